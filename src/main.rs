//! The `godwit` program: launches virtual machines on KVM and moves them live.

mod cli;
mod instance;

/// Temporary: stands where the demo will be.
mod demo {
    /// Temporary: says that there is no demo yet.
    pub(crate) fn demo(_: crate::cli::DemoConfig) -> crate::instance::Exit {
        crate::instance::Exit::not_wired("demo")
    }
}

fn main() -> std::process::ExitCode {
    cli::main()
}
