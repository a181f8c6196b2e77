//! The report's file: refused before the guest starts, written as a whole.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Where a report will be.
#[derive(Debug)]
pub(crate) struct ReportFile {
    path: PathBuf,
    directory: PathBuf,
}

/// Why there can be no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// Something else has its name.
    #[error("cannot write the report {}: {why}; give --junit another path", path.display())]
    Occupied { path: PathBuf, why: &'static str },
    /// The system refuses.
    #[error("cannot write the report {}: {source}; check that its directory exists and is yours", path.display())]
    System { path: PathBuf, source: io::Error },
    /// The report cannot be made into XML.
    #[error("cannot make the report {}: {source}; report this", path.display())]
    Xml { path: PathBuf, source: quick_junit::SerializeError },
}

impl ReportFile {
    /// Makes sure that a report can be written there. One of an earlier run is removed, so that nobody
    /// takes it for this one's.
    pub(crate) fn prepare(path: &Path) -> Result<Self, ReportError> {
        let failed = |source| ReportError::System { path: path.to_owned(), source };
        let occupied = |why| ReportError::Occupied { path: path.to_owned(), why };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let (Some(directory), Some(_)) = (absolute.parent(), absolute.file_name()) else {
            return Err(occupied("it is not a file's name"));
        };
        let file = Self { directory: directory.to_owned(), path: absolute.clone() };
        // That it can be made is the proof; it goes away at once.
        drop(file.temporary().map_err(failed)?);
        match fs::symlink_metadata(&absolute) {
            // Above all a device: a report must not take its place.
            Ok(metadata) if !metadata.is_file() => Err(occupied("it is not a regular file")),
            Ok(_) => fs::remove_file(&absolute).map(|()| file).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(file),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the report; a reader sees all of it or nothing.
    pub(crate) fn write(&self, report: &quick_junit::Report) -> Result<(), ReportError> {
        let path = || self.path.clone();
        let text = report.to_string().map_err(|source| ReportError::Xml { path: path(), source })?;
        let system = |source| ReportError::System { path: path(), source };
        let mut file = self.temporary().map_err(system)?;
        file.write_all(text.as_bytes()).map_err(system)?;
        file.persist(&self.path).map_err(|error| system(error.error))?;
        Ok(())
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".godwit-junit-")
            // As any other new file: what the umask leaves.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_report_is_gone_and_a_new_one_whole() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("report.xml");
        fs::write(&path, "old").expect("writes");
        let file = ReportFile::prepare(&path).expect("can be written");
        assert!(!path.exists());
        file.write(&quick_junit::Report::new("x")).expect("writes");
        assert!(fs::read_to_string(&path).expect("reads").contains("<testsuites"));
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1, "nothing temporary is left");
    }

    #[test]
    fn what_cannot_be_written_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("sub")).expect("creates");
        std::os::unix::fs::symlink("/dev/null", path("null")).expect("links");
        for refused in [path("no/report.xml"), path("sub"), path("null"), PathBuf::from("/"), PathBuf::new()]
        {
            assert!(ReportFile::prepare(&refused).is_err(), "{}", refused.display());
        }
        assert!(path("sub").is_dir() && fs::symlink_metadata(path("null")).is_ok());
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 2, "nothing temporary is left");
    }
}
