//! What to try after the demo, in commands that work as they stand.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shows as a few lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invitation {
    godwit: String,
}

impl Invitation {
    /// As this program is called from where the person is.
    pub(super) fn to_this_program() -> Self {
        let program = std::env::current_exe().unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let here = std::env::current_dir().unwrap_or_default();
        Self { godwit: called(&program, std::env::split_paths(&path), &here) }
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let godwit = &self.godwit;
        writeln!(f, "Next, by hand in two terminals:")?;
        writeln!(f, "  1  {godwit} run --name web --kernel builtin --cmdline 'payload=dirty rate=50M'")?;
        writeln!(f, "  2  {godwit} receive --listen tcp:127.0.0.1:7000 --serial none &")?;
        writeln!(f, "     {godwit} migrate web tcp:127.0.0.1:7000")?;
        writeln!(f, "     {godwit} stop web")?;
        write!(f, "All there is: {godwit} --help")
    }
}

/// By its name if the shell finds it, else by a path, as short as it goes.
fn called(program: &Path, mut path: impl Iterator<Item = PathBuf>, here: &Path) -> String {
    let found = program.file_name().filter(|name| *name == "godwit").and_then(|name| {
        let first = path.find(|directory| directory.join(name).is_file())?;
        (first.join(name) == program).then(|| name.to_string_lossy().into_owned())
    });
    let shown = found.unwrap_or_else(|| match program.strip_prefix(here) {
        Ok(below) if below.components().count() > 1 => below.to_string_lossy().into_owned(),
        Ok(below) => format!("./{}", below.display()),
        Err(_) => program.to_string_lossy().into_owned(),
    });
    quoted(shown)
}

/// For a shell.
fn quoted(text: String) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_called_as_briefly_as_it_can_be() {
        let call =
            |program: &str, here: &str| called(Path::new(program), std::iter::empty(), Path::new(here));
        assert_eq!(call("/src/target/release/godwit", "/src"), "target/release/godwit");
        assert_eq!(call("/src/godwit", "/src"), "./godwit");
        assert_eq!(call("/src/godwit", "/home"), "/src/godwit");
        assert_eq!(call("/my src/it's", "/home"), r"'/my src/it'\''s'");
    }

    #[test]
    fn what_the_shell_finds_needs_no_path() {
        let directory = tempfile::tempdir().expect("can be created");
        let program = directory.path().join("godwit");
        std::fs::write(&program, "").expect("can be written");
        let path = || std::iter::once(directory.path().to_owned());
        assert_eq!(called(&program, path(), Path::new("/")), "godwit");
        assert_ne!(called(Path::new("/opt/godwit"), path(), Path::new("/")), "godwit");
    }
}
