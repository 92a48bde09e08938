//! Files of the authority: private, and never half written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file operation that failed.
#[derive(Debug, Error)]
#[error("cannot {what} {}", path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(wrap("read", path))
}

/// Makes `dir` (0700) with these files (0600). It is made under another name and renamed, so it is there whole or not at all; a
/// directory that has anything in it makes the rename fail.
pub(super) fn create_dir(dir: &Path, files: &[(&str, &str)]) -> Result<(), FileError> {
    let parent = parent(dir);
    fs::create_dir_all(parent).map_err(wrap("make", parent))?;
    let temporary = beside(dir);
    let made =
        fill(&temporary, files).and_then(|()| fs::rename(&temporary, dir).map_err(wrap("make (is it in use?)", dir)));
    if made.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = fs::remove_dir_all(&temporary);
        return made;
    }
    sync_dir(parent)
}

/// Replaces these files of `dir`, in this order. A reader in between sees a key that does not fit and stays with what it has.
pub(super) fn replace(dir: &Path, files: &[(&str, &str)]) -> Result<(), FileError> {
    for (name, text) in files {
        let path = dir.join(name);
        let temporary = beside(&path);
        let put = create(&temporary, text).and_then(|()| fs::rename(&temporary, &path).map_err(wrap("replace", &path)));
        if put.is_err() {
            let _ = fs::remove_file(&temporary);
            return put;
        }
    }
    sync_dir(dir)
}

/// Appends a line and makes it durable.
pub(super) fn append(path: &Path, line: &str) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(wrap("open", path))?;
    file.write_all(line.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(wrap("write", path))
}

fn fill(dir: &Path, files: &[(&str, &str)]) -> Result<(), FileError> {
    DirBuilder::new().mode(0o700).create(dir).map_err(wrap("make", dir))?;
    for (name, text) in files {
        create(&dir.join(name), text)?;
    }
    sync_dir(dir)
}

fn create(path: &Path, text: &str) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(wrap("create", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(wrap("write", path))
}

fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(wrap("sync", dir))
}

/// A hidden name in the same directory, of this process alone.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{}.tmp", std::process::id()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn wrap(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { what, path, source }
}
