//! `ExplainService`, over real mutual TLS.

use tonic_types::StatusExt;
use trunkline_certs::Role;
use trunkline_proto::wire;

use crate::{
    api::with_workers,
    common::{apply, pair},
};

fn between(from: &str, to: &str) -> wire::ExplainRequest {
    wire::ExplainRequest {
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

#[tokio::test]
async fn a_way_is_explained_to_whoever_may_read() {
    let (controller, operator) = with_workers().await;
    let apply = apply(vec![pair("shop")], true);
    operator.slices().apply_slices(apply).await.unwrap();
    let viewer = controller.client(Role::Viewer, "victor").await;
    let shop = crate::api::get(&operator, "shop").await;
    let ends: Vec<&str> = shop.links[0].ends.iter().map(String::as_str).collect();
    let explained = viewer
        .explain()
        .explain(between(ends[0], ends[1]))
        .await
        .unwrap()
        .into_inner();
    // Nobody is connected: it is joined, and nothing else is known.
    assert_eq!(explained.from, format!("shop/{}", ends[0]));
    assert_eq!(explained.hops[0].kind(), wire::hop::Kind::Joined);
    assert_eq!(explained.hops[0].state(), wire::State::Ready);
    assert!(explained.hops.iter().any(|hop| hop.state() == wire::State::Unknown));
}

#[tokio::test]
async fn a_name_that_nothing_has_is_refused_with_what_there_is() {
    let (_controller, operator) = with_workers().await;
    let apply = apply(vec![pair("shop")], true);
    operator.slices().apply_slices(apply).await.unwrap();
    let refused = operator
        .explain()
        .explain(between("nobody.eth1", "internet"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(
        refused
            .message()
            .starts_with("there is no vm nobody; the vms are shop/"),
        "{refused:?}"
    );
    assert_eq!(refused.get_details_resource_info().unwrap().resource_name, "nobody");
    let refused = operator
        .explain()
        .explain(between("internet", "internet"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let wrong = refused.get_details_bad_request().unwrap();
    assert_eq!(wrong.field_violations[0].field, "from");
}
