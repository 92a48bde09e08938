#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use trunkline_proto::wire::FILE_DESCRIPTOR_SET;

use super::*;

fn who(role: Role) -> Identity {
    Identity::new("trunkline.local", role, "x1").unwrap()
}

/// Full path of every method in the package's descriptors.
fn methods() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths
}

#[test]
fn every_method_of_every_service_has_a_rule_and_every_rule_a_method() {
    let ruled: BTreeSet<String> = RULES
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .filter(|path| path.starts_with("/trunkline."))
        .collect();
    let methods = methods();
    assert!(methods.len() > 15, "the descriptors are read: {methods:?}");
    assert_eq!(ruled, methods);
}

#[test]
fn no_method_has_two_rules() {
    let paths: BTreeSet<&str> = RULES.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths.len(), RULES.len());
}

#[test]
fn a_method_without_a_rule_is_denied_to_everybody() {
    for role in Role::ALL {
        for path in [
            "",
            "/",
            "/trunkline.v1.SliceService/Format",
            "/trunkline.v1.SliceService/getslice",
            "//x",
        ] {
            let status = check(&who(role), path).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert_eq!(status.get_error_details().error_info().unwrap().reason, REASON_UNLISTED);
        }
    }
}

#[test]
fn nodes_only_sync_and_only_nodes_sync() {
    for (path, _) in RULES.iter().filter(|(path, _)| path.starts_with("/trunkline.")) {
        for role in Role::ALL {
            let node = matches!(role, Role::Worker | Role::Netnode);
            let sync = *path == "/trunkline.v1.NodeService/Sync";
            assert!(
                node == sync || check(&who(role), path).is_err(),
                "{role} may call {path}"
            );
        }
    }
}

#[test]
fn a_viewer_changes_nothing() {
    let allowed: Vec<&str> = RULES
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| check(&who(Role::Viewer), path).is_ok())
        .collect();
    for path in allowed {
        let method = path.rsplit('/').next().unwrap();
        let reads = [
            "Explain",
            "Get",
            "List",
            "Watch",
            "Follow",
            "Check",
            "ServerReflectionInfo",
        ];
        assert!(
            reads.iter().any(|read| method.starts_with(read)),
            "a viewer may call {path}"
        );
        assert!(
            check(&who(Role::Operator), path).is_ok(),
            "an operator may not call {path}"
        );
    }
}

#[test]
fn a_denial_says_which_role_is_needed() {
    let status = check(&who(Role::Viewer), "/trunkline.v1.SliceService/DeploySlice").unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "viewer/x1 may not call /trunkline.v1.SliceService/DeploySlice: it takes the role operator"
    );
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (REASON_ROLE, "trunkline"));
    assert_eq!(
        (info.metadata["role"].as_str(), info.metadata["allowed"].as_str()),
        ("viewer", "operator")
    );
}
