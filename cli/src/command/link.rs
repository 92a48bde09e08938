//! `link ...`.

use trunkline_proto::{Endpoint, client::new_request_id, wire};

use super::done;
use crate::{
    args::{InSlice, LinkCommand},
    failure::Failure,
    resolve,
    session::{Session, call},
    view::slice::{LinkView, links_table, say_differing},
};

pub(super) async fn run(session: &Session, command: &LinkCommand) -> Result<(), Failure> {
    match command {
        LinkCommand::List { within } => list(session, within).await,
        LinkCommand::Add {
            ends,
            within,
            name,
            vlan,
            subnet,
            no_dhcp,
            mtu,
            port_security,
            protected,
            expect,
        } => {
            let (slice, ends) = resolve::ends(ends, within.slice.as_deref())?;
            let slice = match slice {
                Some(slice) => slice.to_owned(),
                None => slice_of(session, &ends).await?,
            };
            let spec = wire::LinkSpec {
                name: name.clone().unwrap_or_default(),
                ends: ends.iter().map(ToString::to_string).collect(),
                vlan: vlan.unwrap_or(0),
                subnet: subnet.map(|s| s.to_string()).unwrap_or_default(),
                dhcp_off: *no_dhcp,
                mtu: mtu.unwrap_or(0),
                port_security: *port_security,
                protected: *protected,
            };
            let request = wire::AddLinkRequest {
                request_id: new_request_id(),
                slice: slice.clone(),
                link: Some(spec),
                expected_revision: expect.expect_revision,
            };
            let added = call!(session, slices.add_link(request))?;
            let link = LinkView::from(&added.link.unwrap_or_default());
            session.console.show(&link, || {
                let table = links_table(&session.console, std::iter::once(&link));
                format!("{slice}/{} is in the draft\n{table}", link.name)
            })
        }
        LinkCommand::Remove { link, within, expect } => {
            let (of, name) = resolve::split(link, within.slice.as_deref())?;
            let slices = session.slices(of).await?;
            let (slice, _) = resolve::link(&slices, name)?;
            let request = wire::RemoveLinkRequest {
                request_id: new_request_id(),
                slice: slice.name.clone(),
                name: name.to_owned(),
                expected_revision: expect.expect_revision,
            };
            let removed = call!(session, slices.remove_link(request))?;
            done(
                session,
                removed.revision,
                &format!("{}/{name} is removed from the draft", slice.name),
            )
        }
    }
}

async fn list(session: &Session, within: &InSlice) -> Result<(), Failure> {
    let slices = session.slices(within.slice.as_deref()).await?;
    let views: Vec<_> = slices
        .iter()
        .flat_map(|slice| &slice.links)
        .map(LinkView::from)
        .collect();
    session
        .console
        .show(&views, || links_table(&session.console, views.iter()))?;
    say_differing(&session.console, &slices);
    Ok(())
}

/// The slice of the first end's VM, when only one slice has such a VM.
async fn slice_of(session: &Session, ends: &[Endpoint]) -> Result<String, Failure> {
    let slices = session.slices(None).await?;
    let first = ends.first().map(|end| end.vm.as_str()).unwrap_or_default();
    let (slice, _) = resolve::vm(&slices, first)?;
    Ok(slice.name.clone())
}
