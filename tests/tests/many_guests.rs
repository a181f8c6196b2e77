//! Many small guests, as a kernel's CI runs them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use godwit_guest_images::command::Command as GuestCommand;
use godwit_harness::Error;
use godwit_tests::{alone, boot, digest_by_guest, digest_from_outside, kvm, repetitions, written_region};

/// Guests that live at the same time.
const AT_ONCE: usize = 32;

/// What is left behind if anything is.
struct Trace {
    pid: u32,
    directory: PathBuf,
    took: Duration,
}

#[test]
fn many_small_guests_leave_nothing() {
    if !kvm("many_small_guests_leave_nothing") {
        return;
    }
    let _alone = alone();
    let guests = repetitions(50, 500);
    let next = AtomicUsize::new(0);
    let alive = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let traces = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < guests {
                    most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let number = next.load(Ordering::SeqCst);
                    let trace = one(number).unwrap_or_else(|error| panic!("{error}"));
                    alive.fetch_sub(1, Ordering::SeqCst);
                    traces.lock().expect("no panic").push(trace);
                }
            });
        }
    });
    let took = began.elapsed();
    let mut traces = traces.into_inner().expect("no panic");
    assert_eq!(traces.len(), guests);
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("the kernel tells");
    for Trace { pid, directory, .. } in &traces {
        // Another process may have its number by now, but not run a VM of that directory.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let path = directory.to_str().expect("text");
        assert!(!String::from_utf8_lossy(&environment).contains(path), "process {pid} is left");
        assert!(!Path::new(directory).exists(), "{path} is left");
        assert!(!sockets.contains(path), "a socket in {path} is left");
    }
    traces.sort_by_key(|trace| trace.took);
    println!(
        "{guests} guests of 16 MiB, up to {} at once, in {:.1} s: {:.1} guests/s; one from start to end: median {:.0} ms, \
         longest {:.0} ms",
        most.into_inner(),
        took.as_secs_f64(),
        guests as f64 / took.as_secs_f64(),
        traces[guests / 2].took.as_secs_f64() * 1000.0,
        traces[guests - 1].took.as_secs_f64() * 1000.0,
    );
}

/// Starts a guest, has it answer, compares its memory with what it says, stops it.
fn one(number: usize) -> Result<Trace, Error> {
    let began = Instant::now();
    let mut guest = boot("builtin")
        .memory_mib(16)
        .cmdline(format!("payload=hash ws=1M words=512 seed={}", number + 1))
        .reject("panic")
        .reject("exception")
        .reject("error")
        .start()?;
    guest.expect("godwit-guest: up cpus=1")?;
    let (start, len) = written_region(&mut guest)?;
    let text = format!("guest {number}");
    guest.send(GuestCommand::Echo(&text))?;
    guest.expect_next(&text)?;
    let by_guest = digest_by_guest(&mut guest, start, len)?;
    assert_eq!(digest_from_outside(&mut guest, start, len)?, by_guest, "guest {number}");
    assert_eq!(guest.stop()?, 0);
    guest.host().assert_nothing_left();
    let (pid, directory) = (guest.pid(), guest.host().files().to_owned());
    drop(guest);
    Ok(Trace { pid, directory, took: began.elapsed() })
}
