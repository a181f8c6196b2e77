//! Writes the test kernel to a file, to boot it under another VMM.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: dump FILE");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, godwit_guest_images::TEST_KERNEL) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => (eprintln!("{}: {error}", path.display()), ExitCode::FAILURE).1,
    }
}
