//! A host for the binary under test and guests that run the test kernel.

use std::ops::Deref;

use godwit_guest_images::report::BEAT;
use godwit_harness::{Mark, VmProcess};

use crate::godwit;

/// A [`godwit_harness::Host`] with the binary under test, where beats of the test kernel are no part of lines.
#[derive(Debug)]
pub struct Host(godwit_harness::Host);

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Host {
    type Target = godwit_harness::Host;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Host {
    /// A host without VMs.
    ///
    /// # Panics
    /// When `/tmp` can't be written.
    #[must_use]
    pub fn new() -> Self {
        let Self(host) = Self::of_other_kernels();
        Self(host.with_tick(BEAT))
    }

    /// A host without VMs for guests that know no beats: every byte that they say counts.
    ///
    /// # Panics
    /// When `/tmp` can't be written.
    #[must_use]
    pub fn of_other_kernels() -> Self {
        Self(godwit_harness::Host::with_binary(godwit()).expect("/tmp can be written"))
    }

    /// Boots the test kernel, and waits until it is up.
    #[must_use]
    pub fn run(&self, name: &str, cpus: u32, memory: &str, cmdline: &str) -> VmProcess {
        self.run_with(name, cpus, memory, cmdline, &[])
    }

    /// As [`run`](Self::run), with further options.
    #[must_use]
    pub fn run_with(
        &self,
        name: &str,
        cpus: u32,
        memory: &str,
        cmdline: &str,
        options: &[&str],
    ) -> VmProcess {
        let cpus = cpus.to_string();
        let mut arguments = vec!["run", "--kernel", "builtin", "--name", name, "--cpus", &cpus];
        arguments.extend(["--memory", memory, "--cmdline", cmdline]);
        arguments.extend(options);
        let vm = self.vm(&arguments);
        vm.serial().wait_text(Mark::START, "godwit-guest: up");
        vm
    }
}

/// A guest to be, of the binary under test.
pub fn boot(kernel: impl Into<godwit_harness::Image>) -> godwit_harness::Boot {
    godwit_harness::Boot::new(kernel).binary(godwit()).tick(BEAT)
}
