//! Compiles the test kernel with the same compiler that builds this crate.
//!
//! It is built for the host's own target, which every installation has, and made freestanding by its
//! flags: no target to install, no nightly.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER_FLAGS: &[&str] = &[
    "--edition=2024",
    "--crate-type=bin",
    "--crate-name=godwit_test_kernel",
    "-Copt-level=2",
    "-Cpanic=abort",
    "-Crelocation-model=static",
    "-Cno-redzone=yes",
    "-Cforce-unwind-tables=no",
    // Its symbols stay, for debuggers; those of `core` have debug information that is as large again.
    "-Cstrip=debuginfo",
    "-Dunsafe_op_in_unsafe_fn",
];

const LINKER_FLAGS: &[&str] = &[
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
];

fn main() {
    // The shared modules are in src.
    for folder in ["build.rs", "kernel", "src"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    if let Err(reason) = build() {
        println!("cargo::error=the test kernel was not built: {reason}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let host = variable("HOST")?;
    if !host.starts_with("x86_64-") || !host.contains("-linux-") {
        return Err(format!("it needs an x86_64 Linux toolchain, and this one is {host}"));
    }
    let kernel = Path::new("kernel");
    let output = PathBuf::from(variable("OUT_DIR")?).join("test-kernel");
    let script = kernel.join("link.ld");
    let mut command = Command::new(variable("RUSTC")?);
    command
        // Flags of the person's own build (sanitizers, target-cpu) have no place in a kernel.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(COMPILER_FLAGS)
        .arg(format!("--target={host}"))
        .args(LINKER_FLAGS.iter().map(|flag| format!("-Clink-arg={flag}")))
        .arg(format!("-Clink-arg=-Wl,-T{}", script.display()))
        .arg("-o")
        .arg(&output)
        .arg(kernel.join("main.rs"));
    let result = command.output().map_err(|error| format!("{command:?} did not start: {error}"))?;
    let messages = String::from_utf8_lossy(&result.stderr);
    if result.status.success() {
        for line in messages.lines() {
            println!("cargo::warning={line}");
        }
        return Ok(());
    }
    eprintln!("{messages}");
    if messages.contains("linker `") {
        return Err(
            "there is no linker (install a C compiler driver: `cc`, for instance Debian's gcc)".into()
        );
    }
    Err(format!("the compiler failed with {}, its messages are above", result.status))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
