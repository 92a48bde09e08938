//! Named moments at which a test may have a program die, as by `kill -9`: on both sides of each durable write and of each batch.
//!
//! Only debug builds have them; in a release build [`reach`] is nothing at all. The environment variable [`VARIABLE`] names a file. A
//! program that reaches a moment whose name is in that file removes the file and is gone, so each is for one death. Without the variable
//! no program looks for anything.

/// Names the file that says where to die.
pub const VARIABLE: &str = "TRUNKLINE_FAIL_POINT";

/// In the controller.
pub const OF_CONTROLLER: &[&str] = &[
    "store.before-flush",
    "store.after-flush",
    "store.after-commit",
    "core.after-publish",
    "export.before-rename",
    "export.after-rename",
];

/// In every node.
pub const OF_NODES: &[&str] = &[
    "inbox.before-write",
    "inbox.after-write",
    "file.before-write",
    "file.before-rename",
    "file.after-rename",
    "ovsdb.before-transaction",
    "ovsdb.after-transaction",
    "openflow.before-bundle",
    "openflow.before-commit",
    "openflow.after-bundle",
];

/// In workers only.
pub const OF_WORKERS: &[&str] = &[
    "tap.before-batch",
    "tap.after-batch",
    "tap.before-removal",
    "tap.after-removal",
    "ingress.before-batch",
    "ingress.after-batch",
];

/// In the network node only.
pub const OF_NETNODES: &[&str] = &[
    "netns.before-create",
    "netns.after-mark",
    "netns.after-create",
    "netns.before-delete",
    "netns.after-delete",
    "dnsmasq.before-start",
    "dnsmasq.after-start",
    "dnsmasq.after-note",
    "dhcp.before-removal",
    "dhcp.after-removal",
    "gateway.before-batch",
    "gateway.after-batch",
    "nft.before-batch",
    "nft.after-batch",
];

/// A moment with a name.
#[cfg(debug_assertions)]
pub fn reach(point: &'static str) {
    debug_assert!(
        [OF_CONTROLLER, OF_NODES, OF_WORKERS, OF_NETNODES]
            .concat()
            .contains(&point),
        "{point} is in no list"
    );
    static FILE: std::sync::LazyLock<Option<std::path::PathBuf>> =
        std::sync::LazyLock::new(|| std::env::var_os(VARIABLE).map(Into::into));
    let Some(path) = FILE.as_deref() else { return };
    if is_here(path, point) {
        std::process::abort();
    }
}

/// A moment with a name: nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_: &'static str) {}

/// True when the file names this moment and this caller was the one to take it away.
#[cfg(debug_assertions)]
fn is_here(path: &std::path::Path, point: &str) -> bool {
    let named = std::fs::read_to_string(path).is_ok_and(|named| named.trim() == point);
    named && std::fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_point_is_for_one_death_and_only_by_its_own_name() {
        let path = std::env::temp_dir().join(format!("trunkline-fail-point-{}", std::process::id()));
        std::fs::write(&path, "inbox.after-write\n").unwrap();
        assert!(!is_here(&path, "inbox.before-write"));
        assert!(is_here(&path, "inbox.after-write"));
        assert!(!is_here(&path, "inbox.after-write"));
    }

    #[test]
    fn no_name_is_given_twice() {
        let all = [OF_CONTROLLER, OF_NODES, OF_WORKERS, OF_NETNODES].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
