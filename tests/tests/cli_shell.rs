//! What a shell and a manual reader get: completions and manual pages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use godwit_tests::{Host, skip};

/// Whether there is such a program.
fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}

/// Runs a program that must succeed, and returns what it wrote.
#[track_caller]
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("MANPAGER", "cat")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program} {arguments:?}: {text}{errors}");
    text
}

/// The commands that the help lists.
fn commands(host: &Host) -> BTreeSet<String> {
    let help = host.succeed(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // What is indented further goes on with the line before.
    let entries = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = entries.filter(|entry| !entry.starts_with(' ')).filter_map(|e| e.split_whitespace().next());
    let names: BTreeSet<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.len() > 10 && names.contains("migrate"), "{names:?}");
    names
}

fn script(host: &Host, shell: &str) -> String {
    let path = host.files().join(shell);
    std::fs::write(&path, host.succeed(&["completions", shell])).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}

/// What bash offers after these words.
fn bash_offers(script: &str, words: &[&str]) -> Vec<String> {
    let (last, previous) = (words[words.len() - 1], words[words.len() - 2]);
    let line = format!(
        "source {script}; COMP_WORDS=({}); COMP_CWORD={}; _godwit godwit {last} {previous}; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1
    );
    output_of("bash", &["-c", &line]).lines().map(str::to_owned).collect()
}

#[test]
fn bash_takes_its_script_and_completes_with_it() {
    let host = Host::new();
    let script = script(&host, "bash");
    output_of("bash", &["-n", &script]);
    assert_eq!(bash_offers(&script, &["godwit", "mig"]), ["migrate"]);
    assert_eq!(bash_offers(&script, &["godwit", "migrate", "--max"]), ["--max-downtime"]);
    assert_eq!(bash_offers(&script, &["godwit", "run", "--on-reset", "e"]), ["exit"]);
    let all: BTreeSet<String> = bash_offers(&script, &["godwit", "''"]).into_iter().collect();
    let missing: Vec<_> = commands(&host).into_iter().filter(|command| !all.contains(command)).collect();
    assert!(missing.is_empty(), "not completed: {missing:?}");
}

#[test]
fn other_shells_take_their_scripts() {
    let host = Host::new();
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let script = script(&host, shell);
        if is_there(shell) {
            output_of(shell, &[check, &script]);
        } else {
            skip("other_shells_take_their_scripts", &format!("{shell} is not installed"));
        }
    }
    for shell in ["elvish", "powershell"] {
        assert!(host.succeed(&["completions", shell]).contains("migrate"), "{shell}");
    }
    let refused = host.godwit(&["completions", "cobol"]);
    assert!(refused.one_line().contains("cobol"), "{refused:?}");
}

#[test]
fn every_command_has_a_page_that_renders() {
    let host = Host::new();
    let directory = host.files().join("new/man1");
    assert_eq!(host.succeed(&["man", "--dir", directory.to_str().expect("UTF-8")]), "");
    let pages: BTreeSet<String> = std::fs::read_dir(&directory)
        .expect("was created")
        .map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8"))
        .collect();
    let mut wanted: BTreeSet<String> =
        commands(&host).iter().map(|command| format!("godwit-{command}.1")).collect();
    wanted.insert("godwit.1".to_owned());
    assert_eq!(pages, wanted);
    for page in &pages {
        renders(&directory.join(page));
    }
    let main = std::fs::read_to_string(directory.join("godwit.1")).expect("reads");
    assert_eq!(host.succeed(&["man"]).trim_end(), main.trim_end(), "stdout carries the main page");
}

fn renders(page: &Path) {
    let path = page.to_str().expect("UTF-8");
    let renderers = [("mandoc", vec!["-T", "ascii", "-W", "error", path]), ("man", vec!["-l", path])];
    let there: Vec<_> = renderers.iter().filter(|(program, _)| is_there(program)).collect();
    if there.is_empty() {
        return skip("every_command_has_a_page_that_renders", "neither mandoc nor man is installed");
    }
    for (program, arguments) in there {
        let text = output_of(program, arguments);
        for heading in ["NAME", "SYNOPSIS"] {
            let struck: String = heading.chars().map(|c| format!("{c}\u{8}{c}")).collect();
            assert!(text.contains(heading) || text.contains(&struck), "{program} {path}: {heading}: {text}");
        }
        assert!(text.contains("godwit"), "{program} {path}: {text}");
    }
}

#[test]
fn a_manual_that_cannot_be_written_is_refused_in_one_line() {
    let host = Host::new();
    let file = host.files().join("file");
    std::fs::write(&file, "").expect("writes");
    let refused = host.godwit(&["man", "--dir", file.to_str().expect("UTF-8")]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.one_line().contains("can't write the manual"), "{refused:?}");
}
