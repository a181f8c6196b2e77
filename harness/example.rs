//! A kernel that boots, answers, and does not notice that it is moved.
use godwit_harness::{Boot, Error, Way};

#[test]
fn my_kernel_answers_here_and_there() -> Result<(), Error> {
    // Or the path or the bytes of an ELF file with a PVH note: `Boot::new("target/my-kernel")`.
    let mut guest =
        Boot::new("builtin").cpus(2).memory_mib(32).cmdline("payload=idle").reject("panic").start()?;
    let up = guest.expect("up cpus=")?;
    assert!(up.contains("cpus=2"), "{up}");

    guest.send("echo here")?;
    guest.expect_next("echo here")?;

    let ranges = [0x20_2000..0x20_4000, 0x180_0000..0x190_0000];
    let before = guest.snapshot(&ranges)?;
    assert_ne!(guest.registers()?.vcpus[1].control.cr3, 0);

    guest.migrate(Way::Tcp)?;
    guest.send("echo there")?;
    guest.expect_next("echo there")?;
    let after = guest.snapshot(&ranges)?;
    assert!(before.differences(&after).is_empty());

    guest.send("quit")?;
    assert_eq!(guest.wait_exit()?, 0);
    Ok(())
}
