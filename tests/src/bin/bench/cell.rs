//! What is measured: a guest, and how it moves.

use std::time::Duration;

/// How memory gets to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is copied over TCP on the loopback interface.
    Tcp,
    /// The target is on the same host and gets the memory itself.
    SameMemory,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) memory_mib: u32,
    /// What the guest does, as the test kernel's command line.
    pub(crate) cmdline: &'static str,
    pub(crate) way: Way,
    /// The longest blackout that a system is told to aim at.
    pub(crate) max_downtime: Duration,
}

impl Cell {
    /// Whether the guest writes.
    pub(crate) fn dirties(&self) -> bool {
        self.cmdline.contains("payload=dirty")
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// All of them: the peers' figures that this project is judged by.
pub(crate) const CELLS: [Cell; 4] = [
    Cell {
        name: "idle",
        title: "2 GiB, idle, tcp",
        memory_mib: 2048,
        cmdline: "payload=idle wait=poll beat=100us",
        way: Way::Tcp,
        max_downtime: ms(1),
    },
    Cell {
        name: "slow",
        title: "2 GiB, 256 MiB written at 50 MiB/s, tcp",
        memory_mib: 2048,
        cmdline: "payload=dirty ws=256M rate=50M first=fast report=100ms beat=100us",
        way: Way::Tcp,
        max_downtime: ms(1),
    },
    Cell {
        name: "fast",
        title: "2 GiB, 512 MiB written at 200 MiB/s, tcp",
        memory_mib: 2048,
        cmdline: "payload=dirty ws=512M rate=200M first=fast report=100ms beat=100us",
        way: Way::Tcp,
        max_downtime: ms(5),
    },
    Cell {
        name: "hand-over",
        title: "2 GiB, 512 MiB written at 200 MiB/s, handed over on one host",
        memory_mib: 2048,
        cmdline: "payload=dirty ws=512M rate=200M first=fast report=100ms beat=100us",
        way: Way::SameMemory,
        max_downtime: ms(5),
    },
];
