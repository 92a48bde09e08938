//! Files that must be whole whenever somebody looks: written beside their place, mostly synchronised, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use trunkline_proto::daemon::failpoint;

/// Writes a file as a whole: a reader, and a crash at any point, sees the old content or the new one. True when anything was
/// written: content and mode that are right already are left alone. Either way it is durable on return.
///
/// # Errors
/// As the system says; the path is in the message.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    write_with(path, content, mode, sync_directory)
}

/// The same, but for what means nothing after the machine's own end, or is rendered anew then: durable only when the system gets to it.
/// A reader, and the end of this program at any point, sees the old content or the new one.
///
/// # Errors
/// As [`write_atomic`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("write {}: {error}", path.display()));
    if is_already(path, content, mode) {
        return Ok(false);
    }
    let temporary = temporary_beside(path)?;
    let written = write_new(&temporary, content, mode).and_then(|_| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })?;
    Ok(true)
}

fn write_with(
    path: &Path,
    content: &[u8],
    mode: u32,
    sync_directory: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("write {}: {error}", path.display()));
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if is_already(path, content, mode) {
        // By an earlier attempt, perhaps, that was renamed and then could not be made durable.
        sync_directory(directory).map_err(failed)?;
        return Ok(false);
    }
    let temporary = temporary_beside(path)?;
    failpoint::reach("file.before-write");
    write_new(&temporary, content, mode)
        .and_then(|file| file.sync_all())
        .and_then(|()| {
            failpoint::reach("file.before-rename");
            fs::rename(&temporary, path)
        })
        // The rename itself is durable only with its directory.
        .and_then(|()| sync_directory(directory))
        .map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })?;
    failpoint::reach("file.after-rename");
    Ok(true)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn is_already(path: &Path, content: &[u8], mode: u32) -> bool {
    let same_mode =
        fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o7777 == mode);
    same_mode && fs::read(path).is_ok_and(|held| held == content)
}

/// A name that a crashed earlier attempt may have left is used again, so that such files do not pile up.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(
        path.file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?,
    );
    name.push(".new");
    Ok(path.with_file_name(name))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The process's umask must not take away what was asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    Ok(file)
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// As the system says; the path is in the message.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("read {}: {error}", path.display()),
        )),
    }
}

/// Removes a file; success when it is gone already.
///
/// # Errors
/// As the system says; the path is in the message.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::new(
            error.kind(),
            format!("remove {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// Makes a directory for state that only its owner may read, with its parents.
///
/// # Errors
/// As the system says; the path is in the message.
pub fn state_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(|error| io::Error::new(error.kind(), format!("make {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(write_atomic(&path, b"one", 0o600).unwrap());
        assert!(write_atomic(&path, b"two", 0o640).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_need_not_be_durable_is_replaced_whole_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(replace(&path, b"one", 0o600).unwrap());
        assert!(replace(&path, b"two", 0o640).unwrap());
        assert!(!replace(&path, b"two", 0o640).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(Path::new("/nonexistent/dir/file"), b"", 0o600).is_err());
    }

    #[test]
    fn a_file_that_is_right_already_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(write_atomic(&path, b"one", 0o600).unwrap());
        assert!(!write_atomic(&path, b"one", 0o600).unwrap());
        assert!(write_atomic(&path, b"one", 0o644).unwrap());
    }

    #[test]
    fn a_rename_that_could_not_be_made_durable_is_not_taken_for_done_by_the_next_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let broken = |_: &Path| Err(io::Error::from(io::ErrorKind::StorageFull));
        write_with(&path, b"one", 0o600, broken).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_with(&path, b"one", 0o600, broken).unwrap_err();
        assert!(!write_atomic(&path, b"one", 0o600).unwrap());
    }

    #[test]
    fn a_temporary_file_of_a_crashed_attempt_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".state.new"), b"half").unwrap();
        let path = dir.path().join("state");
        assert!(write_atomic(&path, b"whole", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn an_error_names_the_path() {
        let error = write_atomic(Path::new("/nonexistent/dir/file"), b"", 0o600).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dir/file"));
        assert!(read_if_there(Path::new("/nonexistent/file")).unwrap().is_none());
        remove_if_there(Path::new("/nonexistent/file")).unwrap();
    }
}
