//! Small guests start soon and cost little. The limits are for a busy machine and a build without
//! optimisation: docs/startup.md has figures.

use std::time::Duration;

use godwit_tests::{Startup, alone, kvm};

#[test]
fn a_small_guest_starts_soon_and_costs_little() {
    if !kvm("a_small_guest_starts_soon_and_costs_little") {
        return;
    }
    let _alone = alone();
    let runs: Vec<Startup> = (0..5).map(|_| Startup::measure()).collect();
    let best = runs.iter().min_by_key(|run| run.first_byte).expect("five");
    println!("{best:?}");
    assert!(best.first_byte < Duration::from_secs(1), "{runs:?}");
    assert!(runs.iter().all(|run| run.usage.private_kib < 16 << 10), "{runs:?}");
}
