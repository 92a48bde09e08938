//! What has to be right about the state directory before anything starts.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use trunkline_agent::files;

use crate::BootId;

/// Users that dnsmasq may run as, the best first.
const USERS: [&str; 2] = ["dnsmasq", "nobody"];

/// The directory for the marks of our namespaces. After a reboot they mean nothing: a namespace that somebody else made meanwhile
/// could have an inode of that time.
pub(crate) fn marks(state_dir: &Path, boot: &BootId) -> io::Result<PathBuf> {
    let marks = state_dir.join("netns");
    let note = state_dir.join("boot_id");
    let boot = serde_json::to_vec(boot)?;
    if files::read_if_there(&note)?.is_some_and(|earlier| earlier != boot) && marks.exists() {
        fs::remove_dir_all(&marks)?;
    }
    files::state_dir(&marks)?;
    files::write_atomic(&note, &boot, 0o600)?;
    Ok(marks)
}

/// Whom dnsmasq runs as. It reads its reservations again as that user, so it must be able to pass through every directory above
/// them; where it cannot, it stays root.
pub(crate) fn dhcp_user(state_dir: &Path, wanted: Option<&str>) -> io::Result<String> {
    let exists = |name: &str| User::from_name(name).is_ok_and(|user| user.is_some());
    let user = match wanted {
        Some(name) if exists(name) => name,
        Some(name) => return Err(io::Error::other(format!("dhcp.user: there is no user {name}"))),
        None => USERS.into_iter().find(|name| exists(name)).unwrap_or("root"),
    };
    if user == "root" {
        return Ok(user.to_owned());
    }
    // Ours to open; files in it have modes of their own.
    fs::set_permissions(state_dir, Permissions::from_mode(0o711))?;
    match closed_directory(&state_dir.canonicalize()?) {
        None => Ok(user.to_owned()),
        Some(directory) => {
            let directory = directory.display();
            tracing::warn!(%directory, user, "dnsmasq stays root: its user could not pass through this directory");
            Ok("root".to_owned())
        }
    }
}

/// The first directory on the way that others cannot pass through.
fn closed_directory(path: &Path) -> Option<&Path> {
    const OTHERS_PASS: u32 = 0o001;
    path.ancestors()
        .find(|directory| fs::metadata(directory).map_or(true, |data| data.permissions().mode() & OTHERS_PASS == 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dnsmasq_stays_root_below_a_directory_that_its_user_cannot_pass() {
        let closed = tempfile::tempdir().unwrap();
        let state = closed.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(dhcp_user(&state, Some("nobody")).unwrap(), "root");
        fs::set_permissions(closed.path(), Permissions::from_mode(0o711)).unwrap();
        assert_eq!(dhcp_user(&state, Some("nobody")).unwrap(), "nobody");
        assert!(dhcp_user(&state, Some("no-such-user")).is_err());
    }

    #[test]
    fn marks_of_namespaces_do_not_outlive_a_reboot() {
        let state = tempfile::tempdir().unwrap();
        let boot = |id: &str| serde_json::from_str::<BootId>(&format!("\"{id}\"")).unwrap();
        let kept = marks(state.path(), &boot("one")).unwrap().join("ns-dhcp-vlan110");
        fs::write(&kept, "4026532000").unwrap();
        marks(state.path(), &boot("one")).unwrap();
        assert!(kept.exists());
        marks(state.path(), &boot("two")).unwrap();
        assert!(!kept.exists());
    }
}
