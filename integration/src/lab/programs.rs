//! Where the programs are: those built with this one lie beside it, the guests' files below the target folder.

use std::path::PathBuf;

use crate::LabError;

/// Folder of the programs that were built with this one. A test's own program lies one folder deeper.
pub fn folder() -> Result<PathBuf, LabError> {
    let ourselves = std::env::current_exe().map_err(LabError::io("cannot find this program"))?;
    let mut folder = ourselves;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    Ok(folder)
}

/// One of our programs.
pub fn find(name: &str) -> Result<PathBuf, LabError> {
    let folder = folder()?;
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::MissingProgram {
        program: name.to_owned(),
        looked_in: folder.display().to_string(),
    })
}

/// A file that set-up put into `lab/guest` of the target folder: `busybox`, `vmlinuz`, `initramfs`.
pub fn guest_file(name: &str) -> Result<PathBuf, LabError> {
    let given = std::env::var_os("TRUNKLINE_LAB_GUEST").map(PathBuf::from);
    let folder = match given {
        Some(folder) => folder,
        None => folder()?
            .parent()
            .map(|target| target.join("lab/guest"))
            .unwrap_or_default(),
    };
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::MissingProgram {
        program: format!("the guests' {name}"),
        looked_in: folder.display().to_string(),
    })
}
