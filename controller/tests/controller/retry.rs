//! Sent again, sent twice, sent too late.

use tonic::Code;
use trunkline_certs::Role;
use trunkline_proto::{
    client::{ApiError, new_request_id},
    wire,
};

use crate::{
    api::{error, get, with_workers},
    common::{apply, pair, vm},
};

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_first_answer_also_after_a_restart() {
    let (mut controller, operator) = with_workers().await;
    let request = apply(vec![pair("shop")], true);
    let first = operator
        .slices()
        .apply_slices(request.clone())
        .await
        .unwrap()
        .into_inner();
    let delete = wire::DeleteSliceRequest {
        request_id: "d".into(),
        name: "shop".into(),
        expected_revision: 0,
    };
    let deleted = operator
        .slices()
        .delete_slice(delete.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        operator
            .slices()
            .apply_slices(request.clone())
            .await
            .unwrap()
            .into_inner(),
        first
    );
    drop(operator);
    controller.down().await;
    controller.up().await.unwrap();
    let operator = controller.operator().await;
    assert_eq!(
        operator
            .slices()
            .apply_slices(request.clone())
            .await
            .unwrap()
            .into_inner(),
        first
    );
    assert_eq!(
        operator
            .slices()
            .delete_slice(delete.clone())
            .await
            .unwrap()
            .into_inner(),
        deleted
    );
    let list = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(list.slices.is_empty(), "the retry brought nothing back");

    let other = wire::DeleteSliceRequest {
        name: "another".into(),
        ..delete
    };
    let reused = operator.slices().delete_slice(other).await.unwrap_err();
    assert_eq!(error(reused), (Code::InvalidArgument, "REQUEST_ID_REUSED".into()));
    // Another person's id is another id.
    let bob = controller.client(Role::Operator, "bob").await;
    assert_eq!(
        bob.slices().apply_slices(request).await.unwrap().into_inner().slices[0].owner,
        "bob"
    );
}

#[tokio::test]
async fn a_request_without_id_or_with_a_long_one_is_refused() {
    let (_controller, operator) = with_workers().await;
    for id in [String::new(), "x".repeat(65)] {
        let request = wire::ApplySlicesRequest {
            request_id: id,
            ..apply(vec![pair("shop")], false)
        };
        let status = operator.slices().apply_slices(request).await.unwrap_err();
        assert_eq!(ApiError::from(status).violations[0].field, "request_id");
    }
}

#[tokio::test]
async fn applying_the_same_twice_changes_nothing_and_a_dry_run_never_does() {
    let (_controller, operator) = with_workers().await;
    let dry = wire::ApplySlicesRequest {
        dry_run: true,
        ..apply(vec![pair("shop")], true)
    };
    let would = operator.slices().apply_slices(dry).await.unwrap().into_inner();
    assert!(!would.changes.is_empty());
    assert_eq!(
        operator
            .slices()
            .list_slices(wire::ListSlicesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .slices,
        []
    );
    let first = operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap()
        .into_inner();
    let second = operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (second.revision, second.generation, second.changes.len()),
        (first.revision, first.generation, 0)
    );
}

#[tokio::test]
async fn an_expected_revision_that_is_old_aborts_and_says_both() {
    let (_controller, operator) = with_workers().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], false))
        .await
        .unwrap();
    let shop = get(&operator, "shop").await;
    let request = |expected_revision| wire::AddVmRequest {
        request_id: new_request_id(),
        slice: "shop".into(),
        vm: Some(vm("more", "w1", 0)),
        expected_revision,
    };
    let status = operator.slices().add_vm(request(shop.revision + 1)).await.unwrap_err();
    let aborted = ApiError::from(status);
    assert_eq!(
        (aborted.code, aborted.reason.as_deref()),
        (Code::Aborted, Some("REVISION_MISMATCH"))
    );
    assert_eq!(aborted.metadata["actual"], shop.revision.to_string());
    operator.slices().add_vm(request(shop.revision)).await.unwrap();
    assert!(get(&operator, "shop").await.revision > shop.revision);
}
