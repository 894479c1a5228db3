//! Standard output, which may have a reader that has left.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

/// Tells `text`, with a line's end after it. Whoever reads no further has what was wanted: that is no failure.
pub(super) fn tell(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let line = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{line}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenroom: the answer cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells how far something has come, beside the answer; that nobody reads it does not matter.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
