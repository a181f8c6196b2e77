//! The kernel command line: `key=value` words, and `cpuN.key=value` for one vCPU alone.

use core::fmt;

use crate::order::Pattern;
use crate::stamp::PAGE_WORDS;
use crate::units;

/// Most vCPUs that the test kernel runs on.
pub const MAX_CPUS: usize = 64;

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing. vCPU 0 serves serial commands, the others halt for good.
    Idle,
    /// Writes its working set over and over, and checks it.
    Dirty,
    /// Fills its working set once; vCPU 0 then serves serial commands, the others halt for good.
    Hash,
}

impl Payload {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Dirty => "dirty",
            Self::Hash => "hash",
        }
    }
}

/// How vCPU 0 passes the time between serial commands when it has nothing else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Halts, and a timer interrupt wakes it: next to no host CPU.
    Halt,
    /// Spins.
    Poll,
}

/// How a dirtying vCPU writes its working set for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPass {
    /// At its rate.
    Paced,
    /// As fast as it can: the rate holds from the second pass on.
    Fast,
}

/// The options of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// What it does.
    pub payload: Payload,
    /// Bytes of its working set. `None`: not given.
    pub working_set: Option<u64>,
    /// Bytes of pages touched per second; 0 is as fast as it can.
    pub rate: u64,
    /// Whether that rate holds for the first pass.
    pub first_pass: FirstPass,
    /// In which order.
    pub pattern: Pattern,
    /// Stamps in each page, 1 to 512.
    pub words: u16,
    /// Tells random orders apart.
    pub seed: u64,
    /// Nanoseconds between two report lines.
    pub report_ns: u64,
}

/// Bytes of a dirtied working set whose size was not given.
pub const DEFAULT_WORKING_SET: u64 = 64 << 20;

impl CpuConfig {
    /// The options when nothing is said.
    pub const fn new() -> Self {
        Self {
            payload: Payload::Idle,
            working_set: None,
            rate: 0,
            first_pass: FirstPass::Paced,
            pattern: Pattern::Sequential,
            words: 2,
            seed: 1,
            report_ns: 1_000_000_000,
        }
    }
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// All that the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The options of each vCPU.
    pub cpus: [CpuConfig; MAX_CPUS],
    /// How many vCPUs to wait for, if CPUID is not to be asked.
    pub cpu_count: Option<usize>,
    /// Nanoseconds between the bytes that vCPU 0 sends; 0 is never.
    pub beat_ns: u64,
    /// What an idle vCPU 0 does.
    pub wait: Wait,
}

/// Why a command line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError<'a> {
    /// A word without `=`.
    NotKeyValue(&'a str),
    /// No such option, or not one that `cpuN.` can precede.
    UnknownKey(&'a str),
    /// `cpuN.` with an N that is not 0 to 63.
    BadCpu(&'a str),
    /// A value that the option does not take.
    BadValue {
        /// The whole word.
        word: &'a str,
        /// What it takes.
        expected: &'static str,
    },
}

impl fmt::Display for ConfigError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKeyValue(word) => write!(f, "command line: \"{word}\" is not key=value"),
            Self::UnknownKey(word) => write!(f, "command line: unknown key in \"{word}\""),
            Self::BadCpu(word) => {
                write!(f, "command line: no such cpu in \"{word}\", expected cpu0 to cpu63")
            }
            Self::BadValue { word, expected } => {
                write!(f, "command line: bad value in \"{word}\", expected {expected}")
            }
        }
    }
}

impl Config {
    /// The options when nothing is said.
    pub const fn new() -> Self {
        Self { cpus: [CpuConfig::new(); MAX_CPUS], cpu_count: None, beat_ns: 0, wait: Wait::Halt }
    }

    /// Applies a command line to `self`. What names one vCPU wins, wherever it stands.
    pub fn apply<'a>(&mut self, text: &'a str) -> Result<(), ConfigError<'a>> {
        let words = || text.split_ascii_whitespace().filter(|word| !is_of_the_vmm(word));
        for word in words() {
            if cpu_prefix(word)?.is_none() {
                self.apply_to_all(word)?;
            }
        }
        for word in words() {
            if let Some((cpu, rest)) = cpu_prefix(word)? {
                let (key, value) = split(rest, word)?;
                apply_to_cpu(&mut self.cpus[cpu], key, value, word)?;
            }
        }
        Ok(())
    }

    fn apply_to_all<'a>(&mut self, word: &'a str) -> Result<(), ConfigError<'a>> {
        let (key, value) = split(word, word)?;
        let bad = |expected| ConfigError::BadValue { word, expected };
        match key {
            "beat" => {
                let beat_ns = units::duration_ns(value).ok_or(bad("a time such as 100us"))?;
                self.beat_ns = beat_ns;
            }
            "cpus" => {
                let count = units::number(value).and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| (1..=MAX_CPUS).contains(count));
                self.cpu_count = Some(count.ok_or(bad("1 to 64"))?);
            }
            "wait" => {
                self.wait = match value {
                    "halt" => Wait::Halt,
                    "poll" => Wait::Poll,
                    _ => return Err(bad("halt or poll")),
                }
            }
            _ => {
                // In place and one by one: 64 copies are too much for the kernel's small stack.
                for cpu in &mut self.cpus {
                    apply_to_cpu(cpu, key, value, word)?;
                }
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

fn apply_to_cpu<'a>(
    cpu: &mut CpuConfig,
    key: &str,
    value: &str,
    word: &'a str,
) -> Result<(), ConfigError<'a>> {
    let bad = |expected| ConfigError::BadValue { word, expected };
    match key {
        "payload" => {
            let known = [Payload::Idle, Payload::Dirty, Payload::Hash];
            let found = known.into_iter().find(|payload| payload.name() == value);
            cpu.payload = found.ok_or(bad("idle, dirty or hash"))?;
        }
        "ws" => {
            let bytes = units::size(value).filter(|&bytes| bytes > 0);
            cpu.working_set = Some(bytes.ok_or(bad("a size such as 64M"))?);
        }
        "rate" => cpu.rate = units::size(value).ok_or(bad("bytes per second such as 50M"))?,
        "first" => {
            cpu.first_pass = match value {
                "paced" => FirstPass::Paced,
                "fast" => FirstPass::Fast,
                _ => return Err(bad("paced or fast")),
            }
        }
        "pattern" => {
            cpu.pattern = match value {
                "seq" => Pattern::Sequential,
                "random" => Pattern::Random,
                "hotcold" => Pattern::HotCold,
                _ => return Err(bad("seq, random or hotcold")),
            }
        }
        "words" => {
            let words = units::number(value).and_then(|words| u16::try_from(words).ok());
            let words = words.filter(|words| (1..=PAGE_WORDS).contains(words));
            cpu.words = words.ok_or(bad("1 to 512"))?;
        }
        "seed" => cpu.seed = units::number(value).ok_or(bad("a number"))?,
        "report" => {
            let report_ns = units::duration_ns(value).filter(|&ns| ns > 0);
            cpu.report_ns = report_ns.ok_or(bad("a time such as 1s"))?;
        }
        _ => return Err(ConfigError::UnknownKey(word)),
    }
    Ok(())
}

/// Words that VMMs add of their own accord to tell Linux where its devices are.
fn is_of_the_vmm(word: &str) -> bool {
    word.starts_with("virtio_mmio.device=")
}

fn split<'a, 'b>(text: &'a str, word: &'b str) -> Result<(&'a str, &'a str), ConfigError<'b>> {
    text.split_once('=').ok_or(ConfigError::NotKeyValue(word))
}

/// Splits `cpuN.rest` into N and the rest; `None` if the word is not of that form.
fn cpu_prefix(word: &str) -> Result<Option<(usize, &str)>, ConfigError<'_>> {
    let Some((cpu, rest)) = word.strip_prefix("cpu").and_then(|rest| rest.split_once('.')) else {
        return Ok(None);
    };
    let cpu = units::number(cpu).and_then(|cpu| usize::try_from(cpu).ok());
    match cpu.filter(|&cpu| cpu < MAX_CPUS) {
        Some(cpu) => Ok(Some((cpu, rest))),
        None => Err(ConfigError::BadCpu(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError<'_>> {
        let mut config = Config::new();
        config.apply(text).map(|()| config)
    }

    #[test]
    fn nothing_said_is_idle() {
        assert_eq!(parse("  "), Ok(Config::new()));
        assert_eq!(Config::new().cpus[0].payload, Payload::Idle);
    }

    #[test]
    fn options_reach_every_cpu_and_overrides_win_wherever_they_stand() {
        let config = parse(
            "cpu3.payload=idle payload=dirty ws=16M rate=50M pattern=random words=512 seed=0x10 \
             report=200ms first=fast beat=100us cpus=4 wait=poll cpu1.ws=1G cpu1.report=1s",
        )
        .unwrap();
        let common = CpuConfig {
            payload: Payload::Dirty,
            working_set: Some(16 << 20),
            rate: 50 << 20,
            first_pass: FirstPass::Fast,
            pattern: Pattern::Random,
            words: 512,
            seed: 16,
            report_ns: 200_000_000,
        };
        assert_eq!(config.cpus[0], common);
        assert_eq!(
            config.cpus[1],
            CpuConfig { working_set: Some(1 << 30), report_ns: 1_000_000_000, ..common }
        );
        assert_eq!(config.cpus[3], CpuConfig { payload: Payload::Idle, ..common });
        assert_eq!((config.beat_ns, config.cpu_count, config.wait), (100_000, Some(4), Wait::Poll));
    }

    #[test]
    fn what_the_vmm_adds_is_ignored() {
        assert!(parse("virtio_mmio.device=512@0xfeb00e00:12").is_ok());
    }

    #[test]
    fn bad_words_are_named() {
        assert_eq!(parse("quiet"), Err(ConfigError::NotKeyValue("quiet")));
        assert_eq!(parse("colour=red"), Err(ConfigError::UnknownKey("colour=red")));
        assert_eq!(parse("cpu1.beat=1s"), Err(ConfigError::UnknownKey("cpu1.beat=1s")));
        assert_eq!(parse("cpu64.ws=1M"), Err(ConfigError::BadCpu("cpu64.ws=1M")));
        for word in [
            "ws=0",
            "ws=x",
            "words=0",
            "words=513",
            "rate=fast",
            "first=slow",
            "beat=1",
            "report=0s",
            "cpus=65",
            "payload=",
            "pattern=zigzag",
            "wait=x",
            "seed=-1",
        ] {
            assert!(matches!(parse(word), Err(ConfigError::BadValue { .. })), "{word}");
        }
        let message = parse("words=0").unwrap_err().to_string();
        assert_eq!(message, "command line: bad value in \"words=0\", expected 1 to 512");
    }
}
