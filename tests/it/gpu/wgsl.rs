//! Texts that are no kernels: refused with their place or the reason to whoever asked, and everybody goes on.

use greenroom::gpu::{GpuError, KernelSpec, WGSL_BYTES_MAX};

use super::{
    bad_input::{MAIN, computes, invalid, on_each},
    kernels, lease,
};

#[test]
fn a_text_that_is_no_kernel_is_refused_with_line_and_column_where_it_has_one() {
    on_each(|device| {
        let (bad, good) = (lease(device, 0.5, 1 << 20), lease(device, 0.5, 1 << 20));
        for (text, line, column) in [
            ("fn main( {".to_owned(), 1, 10),
            (format!("{MAIN} {{\n    nothing();\n}}"), 2, 5),
            (format!("{MAIN} {{\r\n  let a: u32 = 1.5;\r\n}}"), 2, 7),
            (format!("// Äußerung\n\n{MAIN} {{ let b = §; }}"), 3, 49),
            (format!("fn f() -> u32 {{}}\n{MAIN} {{ _ = f(); }}"), 1, 1),
            (format!("enable nonsense;\n{MAIN} {{}}"), 1, 8),
            ("\0\0".to_owned(), 1, 1),
            (format!("{MAIN} {{ var x: array<u32, 4>; x[9] = 1u; }}"), 1, 63),
        ] {
            match bad.create_kernel(KernelSpec::new(text.as_str())).wait() {
                Err(GpuError::Wgsl { line: l, column: c, message }) => {
                    println!("{text:?}: {l} {c} {message}");
                    assert_eq!((l, c), (line, column), "{text:?}: {message}");
                    assert!(!message.contains('\n') && !message.contains("''"), "{message}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
        computes(&good);
        computes(&bad);
    });
}

#[test]
fn a_text_without_the_entry_point_or_above_the_device_s_limits_is_refused_with_the_reason() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        for (text, told) in [
            (String::new(), "main"),
            ("// nothing\n".to_owned(), "main"),
            ("fn main() {}".to_owned(), "main"),
            ("@compute @workgroup_size(1) fn other() {}".to_owned(), "main"),
            ("@vertex fn main() -> @builtin(position) vec4f { return vec4f(); }".to_owned(), "main"),
            ("@compute @workgroup_size(4096) fn main() {}".to_owned(), "4096"),
        ] {
            let what = invalid(lease.create_kernel(KernelSpec::new(text.as_str())).wait(), &text);
            println!("{text:?}: {what}");
            assert!(what.contains(told), "{text:?}: {what}");
        }
        let named = lease.create_kernel(KernelSpec::new(kernels::DOUBLE).entry("double")).wait();
        assert!(invalid(named, "entry").contains("double"));
        computes(&lease);
    });
}

#[test]
fn a_text_nested_as_deep_as_one_likes_is_refused_or_compiles_and_ends_no_process() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let compile = |text: String| lease.create_kernel(KernelSpec::new(text)).wait();
        let nested = |open: &str, inner: &str, close: &str| {
            let depth = 60_000 / (open.len() + close.len());
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        for text in [
            format!("{MAIN} {{ let a = {}; }}", nested("(", "1", ")")),
            format!("{MAIN} {{ let a = {}; }}", nested("-", "1", "")),
            format!("{MAIN} {{ {} }}", nested("{", "", "}")),
            format!("{MAIN} {{ {} }}", nested("if true {", "", "}")),
            format!("{MAIN} {{ {} }}", nested("loop { break; ", "", "}")),
            format!("var<private> a: {};\n{MAIN} {{}}", nested("array<", "u32", ",1>")),
            format!("{MAIN} {{ let a = {}; }}", nested("vec2(", "1", ")")),
            format!("{MAIN} {{ var x = 1u; let p = {}x; }}", "&*".repeat(2_000)),
            nested("/*", "", ""),
            nested("@", "", ""),
        ] {
            assert!(text.len() <= WGSL_BYTES_MAX);
            let begins = text[..50.min(text.len())].to_owned();
            assert!(compile(text).is_err(), "{begins}");
        }
        // What the compiler takes however long it is, by recursion.
        for text in [
            format!("{MAIN} {{ var a = 1; let b = a{}; }}", "+a".repeat(800)),
            format!("{MAIN} {{ var a = 1; let b = {}a; }}", "~".repeat(2_000)),
            format!("{MAIN} {{ if true {{}} {} }}", "else if true {}".repeat(400)),
        ] {
            // A driver may have limits of its own.
            let _ = compile(text);
        }
        let long = " ".repeat(WGSL_BYTES_MAX + 1);
        assert!(invalid(compile(long), "long").contains("65537 bytes; allowed: up to 65536"));
        computes(&lease);
    });
}
