//! A node's life as operators lead it, over the API.

use trunkline_proto::{
    client::{ApiError, Client, new_request_id},
    wire,
};

use crate::common::{
    Controller, apply, eventually,
    node::{Disk, Node},
    pair,
};

fn reason(status: tonic::Status) -> String {
    ApiError::from(status).reason.unwrap_or_default()
}

async fn node(operator: &Client, name: &str) -> wire::Node {
    let request = wire::GetNodeRequest { name: name.into() };
    operator
        .fleet()
        .get_node(request)
        .await
        .unwrap()
        .into_inner()
        .node
        .unwrap()
}

async fn kinds(operator: &Client) -> Vec<String> {
    let request = wire::ListEventsRequest::default();
    let events = operator
        .events()
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    events.into_iter().map(|event| event.r#type).collect()
}

async fn drain(operator: &Client, name: &str, onto: &str) -> Result<wire::DrainNodeResponse, tonic::Status> {
    let request = wire::DrainNodeRequest {
        request_id: new_request_id(),
        name: name.into(),
        onto: onto.into(),
    };
    operator
        .fleet()
        .drain_node(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn cordon(operator: &Client, name: &str, cordoned: bool) -> Result<(), tonic::Status> {
    let request = wire::CordonNodeRequest {
        request_id: new_request_id(),
        name: name.into(),
        cordoned,
    };
    operator.fleet().cordon_node(request).await.map(drop)
}

async fn gone(operator: &Client, name: &str) -> Result<(), tonic::Status> {
    let request = wire::DeclareNodeGoneRequest {
        request_id: new_request_id(),
        name: name.into(),
    };
    operator.fleet().declare_node_gone(request).await.map(drop)
}

async fn forget(operator: &Client, name: &str) -> Result<(), tonic::Status> {
    let request = wire::RemoveNodeRequest {
        request_id: new_request_id(),
        name: name.into(),
    };
    operator.fleet().remove_node(request).await.map(drop)
}

fn taps(node: &Node) -> usize {
    node.disk
        .held
        .keys()
        .filter(|key| key.name.as_str().starts_with("tap_"))
        .count()
}

#[tokio::test]
async fn a_moved_vms_ports_follow_it_with_all_that_it_has() {
    let controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let mut w2 = Node::up(&controller, Disk::worker("w2")).await;
    let mut w3 = Node::up(&controller, Disk::worker("w3")).await;
    let operator = controller.operator().await;
    let applied = operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap()
        .into_inner();
    let before = applied.slices[0]
        .vms
        .iter()
        .find(|vm| vm.name == "web")
        .unwrap()
        .clone();
    w1.take().await;
    w2.take().await;
    let request = wire::MoveVmRequest {
        request_id: new_request_id(),
        slice: "shop".into(),
        name: "web".into(),
        worker: "w3".into(),
        force: false,
        expected_revision: applied.revision,
    };
    let moved = operator.slices().move_vm(request.clone()).await.unwrap().into_inner();
    let vm = moved.vm.clone().unwrap();
    assert_eq!((vm.worker.as_str(), &vm.interfaces), ("w3", &before.interfaces));
    assert_eq!(
        operator.slices().move_vm(request.clone()).await.unwrap().into_inner(),
        moved,
        "sent twice"
    );
    let stale = wire::MoveVmRequest {
        request_id: new_request_id(),
        ..request
    };
    assert_eq!(
        reason(operator.slices().move_vm(stale).await.unwrap_err()),
        "REVISION_MISMATCH"
    );
    let deploy = wire::DeploySliceRequest {
        request_id: new_request_id(),
        name: "shop".into(),
        expected_revision: moved.revision,
    };
    operator.slices().deploy_slice(deploy).await.unwrap();
    let update = w1.take().await;
    assert!(update.removals_intended && taps(&w1) == 0);
    w3.take().await;
    assert_eq!(taps(&w3), 2);
    let back = wire::RollbackSliceRequest {
        request_id: new_request_id(),
        name: "shop".into(),
        number: 1,
        expected_revision: 0,
    };
    let back = operator.slices().rollback_slice(back).await.unwrap().into_inner();
    assert_eq!(back.renumbered, ["vm web: worker w3 -> w1, as it was"]);
}

#[tokio::test]
async fn a_worker_is_drained_and_forgotten_and_every_step_is_told() {
    let controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let mut w2 = Node::up(&controller, Disk::worker("w2")).await;
    let operator = controller.operator().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    w1.take().await;
    w2.take().await;
    assert_eq!(reason(forget(&operator, "w1").await.unwrap_err()), "CONNECTED");
    cordon(&operator, "w2", true).await.unwrap();
    assert_eq!(reason(drain(&operator, "w1", "").await.unwrap_err()), "NO_WORKER");
    cordon(&operator, "w2", false).await.unwrap();
    let drained = drain(&operator, "w1", "").await.unwrap();
    let moved = wire::MovedVm {
        slice: "shop".into(),
        vm: "web".into(),
        from: "w1".into(),
        to: "w2".into(),
    };
    assert_eq!(drained.moved, [moved]);
    assert!(node(&operator, "w1").await.cordoned);
    assert!(w1.take().await.removals_intended);
    w2.take().await;
    assert_eq!((taps(&w1), taps(&w2)), (0, 4));
    drop(w1);
    let connected = || async { node(&operator, "w1").await.connected };
    eventually("not connected", connected, |connected| !connected).await;
    forget(&operator, "w1").await.unwrap();
    let told = kinds(&operator).await;
    for kind in [
        "node.cordoned",
        "node.uncordoned",
        "vm.moved",
        "slice.deployed",
        "node.drained",
        "node.removed",
    ] {
        assert!(told.iter().any(|told| told == kind), "{kind} is not in {told:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_declared_gone_holds_nobody_up_and_cleans_up_when_it_comes_back() {
    let controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let mut w2 = Node::up(&controller, Disk::worker("w2")).await;
    let operator = controller.operator().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    w1.take().await;
    w1.report_ready().await;
    w2.take().await;
    assert_eq!(reason(gone(&operator, "w2").await.unwrap_err()), "CONNECTED");
    let disk = w2.disk.clone();
    drop(w2);
    let connected = || async { node(&operator, "w2").await.connected };
    eventually("not connected", connected, |connected| !connected).await;
    gone(&operator, "w2").await.unwrap();
    assert!(node(&operator, "w2").await.gone_since.is_some());
    let metrics = controller.metrics();
    assert!(metrics.contains("trunkline_nodes_gone 1\n") && metrics.contains("trunkline_nodes_connected 1\n"));
    // What names it is deployed all the same, and says what is missing.
    let mut more = pair("shop");
    more.vms.push(crate::common::vm("more", "w2", 0));
    operator.slices().apply_slices(apply(vec![more], true)).await.unwrap();
    let reason = || async {
        let all = wire::GetStatusRequest::default();
        let mut status = operator.slices().get_status(all).await.unwrap().into_inner();
        status.slices.remove(0).links.remove(0).reason
    };
    eventually("the missing end", reason, |text| {
        text.contains("w2 was declared gone at")
    })
    .await;
    let delete = wire::DeleteSliceRequest {
        request_id: new_request_id(),
        name: "shop".into(),
        expected_revision: 0,
    };
    operator.slices().delete_slice(delete).await.unwrap();
    w1.take().await;
    w1.report_ready().await;
    let freed = || kinds(&operator);
    eventually("the VLAN is free", freed, |kinds| {
        kinds.iter().any(|kind| kind == "vlan.freed")
    })
    .await;
    let mut w2 = Node::connect(&controller, disk).await.unwrap();
    assert!(w2.take().await.removals_intended);
    assert!(w2.disk.held.is_empty(), "{:?}", w2.disk.held.keys());
    let back = node(&operator, "w2").await;
    assert!(back.connected && back.gone_since.is_none());
    assert!(kinds(&operator).await.iter().any(|kind| kind == "node.returned"));
    assert!(controller.metrics().contains("trunkline_nodes_gone 0\n"));
}
