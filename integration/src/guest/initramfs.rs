//! What a real machine starts from: the common file system, and behind it one more archive with a program of ours and the
//! libraries that it needs.

use std::path::{Path, PathBuf};

use crate::LabError;
use crate::lab::programs;

const PROGRAM: &str = "trunkline-frames";

/// The path of a file for qemu's `-initrd`, made in the folder unless it is there.
pub(super) fn with_program(folder: &Path) -> Result<PathBuf, LabError> {
    let path = folder.join("initramfs");
    if path.is_file() {
        return Ok(path);
    }
    let read = |path: &Path| std::fs::read(path).map_err(LabError::io(format!("cannot read {}", path.display())));
    let mut bytes = read(&programs::guest_file("initramfs")?)?;
    // An archive begins where its length could be divided.
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut archive = Archive { bytes, files: 0 };
    archive.add("lib", 0o040_755, &[]);
    archive.add("lib64", 0o040_755, &[]);
    for library in libraries()? {
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
        archive.add(&format!("{folder}/{name}"), 0o100_755, &read(&library)?);
    }
    archive.add(&format!("bin/{PROGRAM}"), 0o100_755, &read(&programs::find(PROGRAM)?)?);
    archive.add("TRAILER!!!", 0, &[]);
    std::fs::create_dir_all(folder).map_err(LabError::io(format!("cannot make {}", folder.display())))?;
    // Two machines may be started at once: whole, or not there.
    let temporary = folder.join(format!(".initramfs-{}", uuid::Uuid::new_v4().simple()));
    let what = || format!("cannot write {}", path.display());
    std::fs::write(&temporary, archive.bytes).map_err(LabError::io(what()))?;
    std::fs::rename(&temporary, &path).map_err(LabError::io(what()))?;
    Ok(path)
}

/// The libraries that this program stands on, which are those of all our programs.
fn libraries() -> Result<Vec<PathBuf>, LabError> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(LabError::io("cannot see our own libraries"))?;
    let mut paths: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| PathBuf::from(format!("/{path}")))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains(".so"))
        })
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The "newc" format of cpio, as the kernel unpacks it.
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let size = u32::try_from(content.len()).unwrap_or(0);
        let named = u32::try_from(name.len() + 1).unwrap_or(0);
        // Number, mode, owner, group, links, time, size, four numbers of devices, length of the name, no checksum.
        let fields = [self.files, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, named, 0];
        let header = fields
            .iter()
            .fold("070701".to_owned(), |text, field| text + &format!("{field:08x}"));
        self.bytes.extend(header.bytes().chain(name.bytes()).chain([0]));
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_header_name_and_content_at_fours() {
        let mut archive = Archive {
            bytes: Vec::new(),
            files: 0,
        };
        archive.add("bin/x", 0o100_755, b"hello");
        let text = String::from_utf8(archive.bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000081ed"), "{text}");
        assert_eq!(&text[6 + 6 * 8..6 + 7 * 8], "00000005");
        assert_eq!(&text[6 + 11 * 8..6 + 12 * 8], "00000006");
        assert_eq!(&text[110..115], "bin/x");
        assert_eq!(&text[116..121], "hello");
        assert_eq!(archive.bytes.len() % 4, 0);
    }
}
