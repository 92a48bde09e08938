//! Who may do what: roles, names, and certificates that are renewed while everything runs.

use std::fmt::Debug;

use tokio_stream::iter;
use tonic::{Code, Response, Status};
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_integration::api::Api;
use trunkline_integration::demo::Fleet;
use trunkline_integration::lab::layout::{CONTROLLER, CONTROLLER_ADDRESS};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Lab};
use trunkline_integration::wait::until;
use trunkline_proto::client::ApiError;
use trunkline_proto::wire::{
    AddLinkRequest, AddVmRequest, ApplySlicesRequest, DeleteSliceRequest, DeploySliceRequest, GetSliceRequest, Hello,
    LinkSpec, ListEventsRequest, ListRevisionsRequest, ListSlicesRequest, NodeMessage, NodeRole, RemoveLinkRequest,
    RemoveNodeRequest, RemoveVmRequest, RollbackSliceRequest, SliceSpec, UndeploySliceRequest, VmSpec,
    WatchStatusRequest, node_message,
};

use crate::dataplane::await_in_step;
use crate::metrics::value;
use crate::support::{LIMIT, trunkctl, trunkctl_as, with_two_slices};

const EXPIRY: &str = "trunkline_certificate_expiry_timestamp_seconds";

fn as_whom(lab: &Lab, who: &str) -> Api {
    Api::connect(&lab.controller_endpoint(), &lab.bundle(who)).unwrap()
}

fn assert_denied<T: Debug>(what: &str, answer: Result<Response<T>, Status>, reason: &str) {
    let error = ApiError::from(answer.expect_err(what));
    assert_eq!(
        (error.code, error.reason.as_deref()),
        (Code::PermissionDenied, Some(reason)),
        "{what}: {error}"
    );
}

/// Every call that changes something, each as right as it can be, so that only the caller's role is in its way.
fn assert_changes_are_denied(api: &Api) {
    const ROLE: &str = "ROLE_NOT_ALLOWED";
    let (request_id, name, slice) = (|| "one-1".to_owned(), || "green".to_owned(), || "green".to_owned());
    let mut slices = api.client().slices();
    let mut fleet = api.client().fleet();
    api.block_on(async {
        let spec = SliceSpec {
            name: "new".to_owned(),
            ..SliceSpec::default()
        };
        let request = ApplySlicesRequest {
            request_id: request_id(),
            slices: vec![spec],
            ..ApplySlicesRequest::default()
        };
        let dry_run = ApplySlicesRequest {
            dry_run: true,
            ..request.clone()
        };
        assert_denied("apply", slices.apply_slices(request).await, ROLE);
        assert_denied("a dry run", slices.apply_slices(dry_run).await, ROLE);
        let request = DeleteSliceRequest {
            request_id: request_id(),
            name: name(),
            expected_revision: 0,
        };
        assert_denied("delete", slices.delete_slice(request).await, ROLE);
        let request = DeploySliceRequest {
            request_id: request_id(),
            name: name(),
            expected_revision: 0,
        };
        assert_denied("deploy", slices.deploy_slice(request).await, ROLE);
        let request = UndeploySliceRequest {
            request_id: request_id(),
            name: name(),
            expected_revision: 0,
        };
        assert_denied("undeploy", slices.undeploy_slice(request).await, ROLE);
        let request = RollbackSliceRequest {
            request_id: request_id(),
            name: name(),
            number: 1,
            expected_revision: 0,
        };
        assert_denied("rollback", slices.rollback_slice(request).await, ROLE);
        let vm = Some(VmSpec {
            name: "third".to_owned(),
            ..VmSpec::default()
        });
        let request = AddVmRequest {
            request_id: request_id(),
            slice: slice(),
            vm,
            expected_revision: 0,
        };
        assert_denied("add a VM", slices.add_vm(request).await, ROLE);
        let request = RemoveVmRequest {
            request_id: request_id(),
            slice: slice(),
            name: "left".to_owned(),
            expected_revision: 0,
        };
        assert_denied("remove a VM", slices.remove_vm(request).await, ROLE);
        let link = Some(LinkSpec::default());
        let request = AddLinkRequest {
            request_id: request_id(),
            slice: slice(),
            link,
            expected_revision: 0,
        };
        assert_denied("add a link", slices.add_link(request).await, ROLE);
        let name = "left-eth1--right-eth1".to_owned();
        let request = RemoveLinkRequest {
            request_id: request_id(),
            slice: slice(),
            name,
            expected_revision: 0,
        };
        assert_denied("remove a link", slices.remove_link(request).await, ROLE);
        let request = RemoveNodeRequest {
            request_id: request_id(),
            name: "w2".to_owned(),
        };
        assert_denied("remove a node", fleet.remove_node(request).await, ROLE);
    });
}

fn assert_reads_are_answered(api: &Api) {
    assert_eq!(api.slices().unwrap().len(), 2);
    assert_eq!(api.nodes().unwrap().len(), 3);
    assert_eq!(api.status().unwrap().slices.len(), 2);
    let mut slices = api.client().slices();
    let mut events = api.client().events();
    api.block_on(async {
        slices
            .get_slice(GetSliceRequest {
                name: "green".to_owned(),
                ..GetSliceRequest::default()
            })
            .await
            .unwrap();
        let request = ListRevisionsRequest {
            name: "green".to_owned(),
            ..ListRevisionsRequest::default()
        };
        slices.list_revisions(request).await.unwrap();
        events.list_events(ListEventsRequest::default()).await.unwrap();
        let mut status = api
            .client()
            .watch()
            .watch_status(WatchStatusRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert!(status.message().await.unwrap().is_some());
    });
}

/// A node's stream that says it is somebody; what comes of it.
fn hello_as(api: &Api, node: &str, role: NodeRole) -> Result<(), ApiError> {
    let hello = Hello {
        node: node.to_owned(),
        role: role.into(),
        instance_id: "an instance that nobody has".to_owned(),
        ..Hello::default()
    };
    let message = NodeMessage {
        message: Some(node_message::Message::Hello(hello)),
    };
    api.block_on(async {
        let mut stream = api.client().node().sync(iter([message])).await?.into_inner();
        stream.message().await?;
        Ok(())
    })
    .map_err(|status: Status| ApiError::from(status))
}

#[test]
fn each_role_may_do_its_own_and_nothing_else() {
    let lab = with_two_slices();
    let before = as_whom(&lab, "operator").status().unwrap().revision;

    let viewer = as_whom(&lab, "viewer");
    assert_reads_are_answered(&viewer);
    assert_changes_are_denied(&viewer);
    let deploy = trunkctl_as(&lab, "viewer", &["slice", "undeploy", "green"]);
    assert_eq!(deploy.status, 5, "{}", deploy.stderr);
    assert!(deploy.stderr.contains("viewer"), "{}", deploy.stderr);
    let error = hello_as(&viewer, "w1", NodeRole::Worker).unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_deref()),
        (Code::PermissionDenied, Some("ROLE_NOT_ALLOWED"))
    );

    for node in ["w1", "nn"] {
        let api = as_whom(&lab, node);
        assert_changes_are_denied(&api);
        let list = api.block_on(api.client().slices().list_slices(ListSlicesRequest::default()));
        assert_denied("list", list, "ROLE_NOT_ALLOWED");
    }

    // A worker reports for itself: not for another one, and not as the network node.
    let worker = as_whom(&lab, "w1");
    for (name, role) in [
        ("w2", NodeRole::Worker),
        ("nn", NodeRole::Netnode),
        ("w1", NodeRole::Netnode),
    ] {
        let error = hello_as(&worker, name, role).unwrap_err();
        let seen = (error.code, error.reason.as_deref());
        assert_eq!(
            seen,
            (Code::PermissionDenied, Some("IDENTITY_MISMATCH")),
            "{name}: {error}"
        );
    }
    // Nor a second process beside the one that is connected.
    let error = hello_as(&worker, "w1", NodeRole::Worker).unwrap_err();
    assert_eq!(error.reason.as_deref(), Some("IDENTITY_IN_USE"), "{error}");

    assert_eq!(as_whom(&lab, "operator").status().unwrap().revision, before);
    await_in_step(&lab);
}

#[test]
fn a_controller_under_another_name_is_not_talked_to() {
    let lab = with_two_slices();
    let right = trunkctl(&lab, &["slice", "list", "--server-name", CONTROLLER]);
    assert!(right.ok(), "{}", right.stderr);
    let wrong = trunkctl(&lab, &["slice", "list", "--server-name", "other.example.org"]);
    assert_eq!(wrong.status, 5, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("other.example.org"), "{}", wrong.stderr);
}

#[test]
fn a_renewed_certificate_is_taken_into_use_without_a_restart() {
    let lab = with_two_slices();
    let authority = Authority::open(&lab.bundle("ca")).unwrap();
    let renew = |role, name: &str, dns: Vec<String>, ips| {
        let leaf = Leaf {
            role,
            name: name.to_owned(),
            dns,
            ips,
            days: 10,
        };
        authority.renew(&leaf, &lab.bundle(name)).unwrap();
    };
    let pids = || {
        [(CONTROLLER, CONTROLLER_PROGRAM), ("w1", AGENT_PROGRAM)].map(|(host, program)| lab.daemon_pid(host, program))
    };
    let before = pids();

    // A node's is read anew for each session, so it is renewed before the controller ends this one.
    renew(Role::Worker, "w1", Vec::new(), Vec::new());
    let old = value(&lab, CONTROLLER, EXPIRY);
    let (dns, ips) = (
        vec![CONTROLLER.to_owned()],
        vec![CONTROLLER_ADDRESS.into(), [127, 0, 0, 1].into()],
    );
    renew(Role::Controller, CONTROLLER, dns, ips);
    until(
        "the renewed certificate in the controller's metrics",
        LIMIT,
        || match value(&lab, CONTROLLER, EXPIRY) {
            now if now < old => Ok(()),
            same => Err(same.to_string()),
        },
    )
    .unwrap();
    assert!(trunkctl(&lab, &["slice", "list", "--server-name", CONTROLLER]).ok());
    // A name that only the certificate before had: it is the new one that is shown.
    let gone = trunkctl(&lab, &["slice", "list", "--server-name", "localhost"]);
    assert_eq!(gone.status, 5, "{}", gone.stderr);
    assert_eq!(pids(), before);

    let expires = || {
        let nodes = as_whom(&lab, "operator").nodes().unwrap();
        nodes
            .iter()
            .find(|node| node.name == "w1")
            .unwrap()
            .certificate_expires
            .unwrap()
            .seconds
    };
    let old = expires();
    lab.kill_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    Fleet::connect(&lab).unwrap().await_nodes().unwrap();
    assert!(expires() < old, "the next session shows the renewed certificate");
    assert_eq!(lab.daemon_pid("w1", AGENT_PROGRAM), before[1]);
}
