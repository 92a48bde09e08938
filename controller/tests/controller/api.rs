//! The API as a client SDK meets it, over real mutual TLS.

use std::collections::BTreeSet;

use crate::common::{
    Controller, apply, eventually, link,
    node::{Disk, Node},
    pair, vm,
};
use tonic::Code;
use tonic_types::StatusExt;
use trunkline_certs::Role;
use trunkline_proto::{
    client::{ApiError, Client, new_request_id},
    wire,
};

pub fn error(status: tonic::Status) -> (Code, String) {
    let error = ApiError::from(status);
    (error.code, error.reason.unwrap_or_default())
}

pub async fn with_workers() -> (Controller, Client) {
    let controller = Controller::start().await;
    for name in ["w1", "w2"] {
        drop(Node::up(&controller, Disk::worker(name)).await);
    }
    let operator = controller.operator().await;
    (controller, operator)
}

pub async fn get(client: &Client, name: &str) -> wire::Slice {
    client
        .slices()
        .get_slice(wire::GetSliceRequest {
            name: name.into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_slice_goes_through_its_whole_life() {
    let (_controller, operator) = with_workers().await;
    let mut slices = operator.slices();
    let applied = slices
        .apply_slices(apply(vec![pair("shop")], false))
        .await
        .unwrap()
        .into_inner();
    assert!(
        applied.changes.len() >= 4 && applied.slices.len() == 1 && applied.generation == 0,
        "{applied:?}"
    );
    let shop = get(&operator, "shop").await;
    assert_eq!((shop.vms.len(), shop.links.len(), shop.owner.as_str()), (2, 1, "alice"));
    assert!(shop.deployed.is_none() && shop.draft_differs);
    assert_eq!(
        shop.links[0].vlan, shop.vms[0].interfaces[1].vlan,
        "the VLAN is recorded on the interface"
    );

    let request_id = new_request_id;
    let add = wire::AddVmRequest {
        request_id: request_id(),
        slice: "shop".into(),
        vm: Some(vm("cache", "", 1)),
        expected_revision: 0,
    };
    let added = slices.add_vm(add).await.unwrap().into_inner().vm.unwrap();
    assert!(added.placed && !added.worker.is_empty());
    let add = wire::AddLinkRequest {
        request_id: request_id(),
        slice: "shop".into(),
        link: Some(link(&["cache.eth1", "web.eth1"])),
        expected_revision: 0,
    };
    assert_eq!(
        slices.add_link(add).await.unwrap_err().code(),
        Code::InvalidArgument,
        "web.eth1 is in another link"
    );

    let deploy = |id: String| wire::DeploySliceRequest {
        request_id: id,
        name: "shop".into(),
        expected_revision: 0,
    };
    let first = slices.deploy_slice(deploy(request_id())).await.unwrap().into_inner();
    assert_eq!((first.number, first.term), (1, 1));
    let same = slices.deploy_slice(deploy(request_id())).await.unwrap().into_inner();
    assert_eq!(
        (same.number, same.generation),
        (1, first.generation),
        "nothing differed"
    );

    let remove = wire::RemoveLinkRequest {
        request_id: request_id(),
        slice: "shop".into(),
        name: shop.links[0].name.clone(),
        expected_revision: 0,
    };
    slices.remove_link(remove).await.unwrap();
    let second = slices.deploy_slice(deploy(request_id())).await.unwrap().into_inner();
    assert_eq!(second.number, 2);
    assert!(second.generation > first.generation);
    let back = wire::RollbackSliceRequest {
        request_id: request_id(),
        name: "shop".into(),
        number: 1,
        expected_revision: 0,
    };
    assert_eq!(slices.rollback_slice(back).await.unwrap().into_inner().number, 3);
    let list = wire::ListRevisionsRequest {
        name: "shop".into(),
        page_size: 2,
        page_token: String::new(),
    };
    let page = slices.list_revisions(list.clone()).await.unwrap().into_inner();
    assert_eq!(page.revisions.iter().map(|d| d.number).collect::<Vec<_>>(), [3, 2]);
    let page = slices
        .list_revisions(wire::ListRevisionsRequest {
            page_token: page.next_page_token,
            ..list
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.revisions[0].number, page.next_page_token.as_str()), (1, ""));

    the_deployed_slice_is_told_apart_from_its_draft(&operator).await;
    let undeploy = wire::UndeploySliceRequest {
        request_id: request_id(),
        name: "shop".into(),
        expected_revision: 0,
    };
    slices.undeploy_slice(undeploy).await.unwrap();
    assert!(get(&operator, "shop").await.deployed.is_none());
    let off = wire::GetSliceRequest {
        name: "shop".into(),
        deployed: true,
        number: 0,
    };
    let off = slices.get_slice(off).await.unwrap_err();
    assert_eq!(error(off), (Code::FailedPrecondition, "NOT_DEPLOYED".into()));
    let delete = wire::DeleteSliceRequest {
        request_id: request_id(),
        name: "shop".into(),
        expected_revision: 0,
    };
    slices.delete_slice(delete).await.unwrap();
    let gone = slices
        .get_slice(wire::GetSliceRequest {
            name: "shop".into(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(gone.get_details_resource_info().unwrap().resource_name, "shop");
    assert_eq!(error(gone), (Code::NotFound, "NOT_FOUND".into()));
}

/// After the rollback: the draft has no link, what is deployed has one.
async fn the_deployed_slice_is_told_apart_from_its_draft(operator: &Client) {
    let ask = |deployed, number| wire::GetSliceRequest {
        name: "shop".into(),
        deployed,
        number,
    };
    let (mut slices, draft) = (operator.slices(), get(operator, "shop").await);
    assert_eq!((draft.links.len(), draft.draft_differs), (0, true));
    let deployed = slices.get_slice(ask(true, 0)).await.unwrap().into_inner();
    assert_eq!((deployed.links.len(), deployed.draft_differs), (1, true));
    let web = deployed.vms.iter().find(|vm| vm.name == "web").unwrap();
    assert_eq!(web.interfaces[1].vlan, deployed.links[0].vlan);
    assert_eq!(deployed.spec.unwrap().links.len(), 1);
    let second = slices.get_slice(ask(false, 2)).await.unwrap().into_inner();
    assert_eq!(second.links.len(), 0);
    let never = slices.get_slice(ask(false, 99)).await.unwrap_err();
    assert_eq!(error(never), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test]
async fn every_mistake_of_a_request_comes_at_once_and_nothing_is_stored() {
    let (_controller, operator) = with_workers().await;
    let mut bad = pair("shop");
    bad.vms[0].worker = "nowhere".into();
    bad.vms.push(vm("../etc", "w1", 0));
    bad.links[0].vlan = 400;
    let before = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .revision;
    let status = operator
        .slices()
        .apply_slices(apply(vec![pair("good"), bad], true))
        .await
        .unwrap_err();
    let fields: BTreeSet<String> = status
        .get_details_bad_request()
        .unwrap()
        .field_violations
        .into_iter()
        .map(|v| v.field)
        .collect();
    for field in [
        "slices[1].vms[0].worker",
        "slices[1].vms[2].name",
        "slices[1].links[0].vlan",
    ] {
        assert!(fields.contains(field), "{field} not in {fields:?}");
    }
    assert_eq!(error(status), (Code::InvalidArgument, "INVALID_FIELDS".into()));
    let after = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((after.revision, after.slices.len()), (before, 0));
}

#[tokio::test]
async fn lists_come_in_pages_that_together_are_everything() {
    let (_controller, operator) = with_workers().await;
    let all: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
    operator
        .slices()
        .apply_slices(apply(all.iter().map(|name| pair(name)).collect(), false))
        .await
        .unwrap();
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = wire::ListSlicesRequest {
            page_size: 3,
            page_token: token,
        };
        let page = operator.slices().list_slices(request).await.unwrap().into_inner();
        seen.extend(page.slices.into_iter().map(|slice| slice.name));
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (all, 3));
    let nodes = wire::ListNodesRequest {
        page_size: 1,
        page_token: String::new(),
    };
    let page = operator.fleet().list_nodes(nodes.clone()).await.unwrap().into_inner();
    assert_eq!(
        (page.nodes.len(), page.nodes[0].name.as_str(), page.nodes[0].vms),
        (1, "w1", 7)
    );
    let rest = wire::ListNodesRequest {
        page_token: page.next_page_token,
        ..nodes
    };
    assert_eq!(
        operator.fleet().list_nodes(rest).await.unwrap().into_inner().nodes[0].name,
        "w2"
    );
    for request in [
        wire::ListSlicesRequest {
            page_size: 1001,
            page_token: String::new(),
        },
        wire::ListSlicesRequest {
            page_size: 0,
            page_token: "no token".into(),
        },
    ] {
        assert_eq!(
            operator.slices().list_slices(request).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}

#[tokio::test]
async fn a_role_may_do_what_is_its_own_and_no_more() {
    let (controller, operator) = with_workers().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], false))
        .await
        .unwrap();
    let viewer = controller.client(Role::Viewer, "eve").await;
    get(&viewer, "shop").await;
    let denied = viewer
        .slices()
        .apply_slices(apply(vec![pair("mine")], false))
        .await
        .unwrap_err();
    assert_eq!(error(denied), (Code::PermissionDenied, "ROLE_NOT_ALLOWED".into()));
    let worker = controller.client(Role::Worker, "w1").await;
    let denied = worker
        .slices()
        .get_slice(wire::GetSliceRequest {
            name: "shop".into(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let netnode = controller.client(Role::Netnode, "n1").await;
    let remove = wire::RemoveNodeRequest {
        request_id: "r".into(),
        name: "w1".into(),
    };
    assert_eq!(
        netnode.fleet().remove_node(remove).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_node_that_is_gone_can_be_forgotten_and_one_that_is_connected_cannot() {
    let (controller, operator) = with_workers().await;
    let disk = Disk {
        instance: "new".into(),
        ..Disk::worker("w1")
    };
    let connect = || async { Node::connect(&controller, disk.clone()).await.ok().map(|_| ()) };
    eventually("the first session is over", connect, Option::is_some).await;
    let remove = |name: &str| wire::RemoveNodeRequest {
        request_id: new_request_id(),
        name: name.into(),
    };
    let w1 = || async { Node::connect(&controller, disk.clone()).await };
    let held = w1().await.unwrap();
    let status = operator.fleet().remove_node(remove("w1")).await.unwrap_err();
    assert!(!status.get_details_precondition_failure().unwrap().violations.is_empty());
    assert_eq!(error(status), (Code::FailedPrecondition, "CONNECTED".into()));
    drop(held);
    let removed = || async { operator.fleet().remove_node(remove("w1")).await.map_err(error) };
    eventually("removed", removed, Result::is_ok).await.unwrap();
    let status = operator
        .fleet()
        .get_node(wire::GetNodeRequest { name: "w1".into() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn metrics_are_there_and_their_labels_name_no_slice_and_no_node() {
    let (controller, operator) = with_workers().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("marketplace")], true))
        .await
        .unwrap();
    let text = controller.metrics();
    for line in [
        "trunkline_slices 1",
        "trunkline_nodes 2",
        "trunkline_calls_total{method=\"ApplySlices\",code=\"OK\"} 1",
        "trunkline_term 1",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(!text.contains("marketplace") && !text.contains("w1"));
}
