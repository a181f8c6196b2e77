//! From command lines and files to a [`RunConfig`].

use std::ffi::OsString;
use std::io::Write;

use super::*;
use crate::cli::args::{Cli, Command};
use clap::Parser;

fn configured(line: &[&str]) -> Result<RunConfig, Failure> {
    let args = ["godwit", "run"].iter().chain(line).map(OsString::from);
    match Cli::try_parse_from(args).expect("clap accepts").command {
        Command::Run(args) => config(*args),
        other => panic!("{other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(text.as_bytes()).expect("writes");
    file
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = configured(&["--kernel", "builtin"]).expect("valid");
    assert_eq!(config.kernel, Kernel::Builtin);
    assert_eq!((config.cpus, config.memory_bytes), (1, 256 << 20));
    assert_eq!((config.serial, config.on_reset), (Serial::Stdio, OnReset::Reboot));
}

#[test]
fn a_file_says_the_same_as_options_and_options_win() {
    let file = file(
        "kernel = 'builtin'\ncpus = 4\nmemory = '2G'\non-reset = 'exit'\nserial = 'none'\nexpect = ['ok']\ntimeout = '10s'\nname = 'web'\njunit = 'r.xml'\ngdb = 'tcp:127.0.0.1:0'\n",
    );
    let path = file.path().to_str().expect("path");
    let config = configured(&[path, "--name", "db", "--cpus", "2"]).expect("valid");
    assert_eq!(config.name.expect("name").as_str(), "db");
    assert_eq!((config.cpus, config.memory_bytes), (2, 2 << 30));
    assert_eq!((config.serial, config.on_reset), (Serial::None, OnReset::Exit));
    assert_eq!(config.junit.as_deref(), Some(Path::new("r.xml")));
    assert_eq!(config.gdb.expect("an address").to_string(), "tcp:127.0.0.1:0");
    assert_eq!((config.expect, config.timeout), (vec!["ok".to_owned()], Some(Duration::from_secs(10))));
}

#[test]
fn the_command_line_is_usage_and_a_file_is_input() {
    for line in [
        &["--kernel", "builtin", "--memory", "0"][..],
        &["--kernel", "builtin", "--memory", "1000001"],
        &["--kernel", "builtin", "--disk", "x"],
        &["--kernel", "builtin", "--net", "tap=x"],
        &["--kernel", "builtin", "--cpu", "baseline:v3"],
        &["--kernel", "builtin", "--expect", ""],
        &["--kernel", "builtin", "--timeout", "1s"],
        &["--kernel", "builtin", "--gdb", "tcp:0.0.0.0:1234"],
        &[],
    ] {
        assert_eq!(configured(line).expect_err("refused").status(), 2, "{line:?}");
    }
    configured(&["--kernel", "builtin", "--gdb", "tcp:0.0.0.0:1234", "--insecure"]).expect("asked for");
    for text in [
        "gdb = 'tcp:0.0.0.0:1'",
        "gdb = '1234'",
        "cpus = 0",
        "cpus = 65",
        "memory = 0",
        "colour = 'red'",
        "disk = ['x']",
        "cpus = 'x'",
        "[[",
    ] {
        let file = file(text);
        let line = [file.path().to_str().expect("path"), "--kernel", "builtin"];
        assert_eq!(configured(&line).expect_err("refused").status(), 1, "{text}");
    }
    for line in [
        &["--kernel", "/no/such"][..],
        &["--kernel", "/"],
        &["--kernel", "builtin", "--initrd", "/no"],
        &["/no.toml"],
    ] {
        assert_eq!(configured(line).expect_err("refused").status(), 1, "{line:?}");
    }
}

#[test]
fn a_mistake_in_a_file_is_shown_with_its_line() {
    let file = file("cpus = 1\nmemry = 5\n");
    let failure = configured(&[file.path().to_str().expect("path")]).expect_err("refused");
    assert!(failure.message().contains("line 2"), "{}", failure.message());
    assert!(failure.message().contains("memry"), "{}", failure.message());
}
