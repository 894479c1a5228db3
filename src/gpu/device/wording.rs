//! What wgpu says, in one line: it goes to logs, to people and into answers.

/// The causes one after the other: `In Device::create_bind_group: ...`.
pub(super) fn one_line(text: &str) -> String {
    let says = |line: &&str| !["", "Validation Error", "Caused by:"].contains(line);
    text.lines().map(str::trim).filter(says).collect::<Vec<_>>().join(": ")
}

/// What is wrong with a text in WGSL and the notes about it: without the picture of its place, which is told apart.
pub(super) fn of_wgsl(message: &str) -> String {
    let message = message.trim();
    let wrong = message.split('\u{250c}').next().unwrap_or(message);
    let wrong = wrong.split_once("error: ").map_or(wrong, |(_, wrong)| wrong);
    let notes = message.lines().filter_map(|line| line.trim_start().strip_prefix("= "));
    let notes = notes.map(|note| note.strip_prefix("note: ").unwrap_or(note));
    one_line(&std::iter::once(wrong).chain(notes).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_become_one_line() {
        let told = "Validation Error\n\nCaused by:\n  In a CommandEncoder\n    In a set_immediates command\n      Too long\n";
        assert_eq!(one_line(told), "In a CommandEncoder: In a set_immediates command: Too long");
        assert_eq!(one_line("one line"), "one line");
    }

    #[test]
    fn of_a_text_that_does_not_compile_it_is_told_what_is_wrong_and_no_picture() {
        let told = "\nShader '' parsing error: expected identifier, found \"{\"\n  ┌─ wgsl:1:10\n  │\n1 │ fn main( {\n  │          ^ expected identifier\n\n";
        assert_eq!(of_wgsl(told), "expected identifier, found \"{\"");
        let told = "\nShader validation error: Function [0] 'f' is invalid\n  ┌─ :1:1\n  │\n1 │ fn f() -> u32 {}\n  │ ^^^^ naga::ir::Function [0]\n  │\n  = It is wrong\n  = note: Very wrong\n\n";
        assert_eq!(of_wgsl(told), "Function [0] 'f' is invalid: It is wrong: Very wrong");
        assert_eq!(of_wgsl("of another kind\n"), "of another kind");
    }
}
