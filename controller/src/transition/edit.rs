//! One VM or link added to a draft or taken out of it: the slice's own specification, edited, and applied. So whatever holds
//! for a whole file holds for a single edit.

use std::sync::Arc;

use trunkline_proto::{Name, wire};

use super::{
    Context, Mistakes, Rejection,
    apply::{expect, rewrite},
    state::Draft,
};
use crate::{
    allocate::Holdings,
    model::{Cluster, Slice},
    view,
};

pub(super) fn add_vm(
    cluster: &mut Cluster,
    held: &Holdings,
    slice: &str,
    vm: Option<wire::VmSpec>,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "slice", slice, expected)?;
    let vm = given("vm", vm)?;
    let name = vm.name.parse::<Name>().ok();
    if let Some(name) = name.as_ref().filter(|n| slice.vms.contains_key(n)) {
        return Err(exists("vm", name));
    }
    let mut spec = view::spec(&slice);
    spec.vms.push(vm);
    let path = format!("slices[0].vms[{}]", spec.vms.len() - 1);
    let mut draft = rewrite(cluster, held, &[spec], cx).map_err(|r| shorten(r, &path, "vm"))?;
    draft.outcome.vm = name;
    Ok(draft)
}

pub(super) fn remove_vm(
    cluster: &mut Cluster,
    held: &Holdings,
    slice: &str,
    name: &str,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "slice", slice, expected)?;
    let name = parse("name", name)?;
    let Some(vm) = slice.vms.get(&name) else {
        return Err(missing("vm", &name));
    };
    let links: Vec<String> = vm
        .interfaces
        .iter()
        .filter_map(|i| i.link.as_ref())
        .map(ToString::to_string)
        .collect();
    if !links.is_empty() {
        return Err(Rejection::Precondition {
            kind: "LINKED",
            subject: format!("vm {name}"),
            description: format!(
                "vm {name} is an end of link {}; remove the link first",
                links.join(", ")
            ),
        });
    }
    let mut spec = view::spec(&slice);
    spec.vms.retain(|vm| vm.name != name.as_str());
    rewrite(cluster, held, &[spec], cx)
}

pub(super) fn add_link(
    cluster: &mut Cluster,
    held: &Holdings,
    slice: &str,
    link: Option<wire::LinkSpec>,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "slice", slice, expected)?;
    let link = given("link", link)?;
    let name = link.name.parse::<Name>().ok();
    if let Some(name) = name.filter(|n| slice.links.contains_key(n)) {
        return Err(exists("link", &name));
    }
    let mut spec = view::spec(&slice);
    spec.links.push(link);
    let path = format!("slices[0].links[{}]", spec.links.len() - 1);
    let mut draft = rewrite(cluster, held, &[spec], cx).map_err(|r| shorten(r, &path, "link"))?;
    let now = cluster.slices.get(&slice.name);
    let new = now.and_then(|s| s.links.keys().find(|name| !slice.links.contains_key(name)));
    draft.outcome.link = new.cloned();
    Ok(draft)
}

pub(super) fn remove_link(
    cluster: &mut Cluster,
    held: &Holdings,
    slice: &str,
    name: &str,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "slice", slice, expected)?;
    let name = parse("name", name)?;
    if !slice.links.contains_key(&name) {
        return Err(missing("link", &name));
    }
    let mut spec = view::spec(&slice);
    spec.links.retain(|link| link.name != name.as_str());
    rewrite(cluster, held, &[spec], cx)
}

/// The slice that a request names in `field`, if it is at the expected revision.
pub(super) fn find(cluster: &Cluster, field: &str, name: &str, expected: u64) -> Result<Arc<Slice>, Rejection> {
    let parsed = parse(field, name)?;
    let slice = cluster
        .slices
        .get(&parsed)
        .ok_or_else(|| Rejection::no_slice(&parsed))?;
    expect(name, Some(slice), expected)?;
    Ok(slice.clone())
}

pub(super) fn parse(field: &str, name: &str) -> Result<Name, Rejection> {
    let mut mistakes = Mistakes::default();
    let parsed = mistakes.take(field, name.parse());
    mistakes.finish()?;
    parsed.ok_or_else(|| Rejection::Invalid(Vec::new()))
}

fn given<T>(field: &str, value: Option<T>) -> Result<T, Rejection> {
    let mut mistakes = Mistakes::default();
    if value.is_none() {
        mistakes.add(field, "it is missing");
    }
    mistakes.finish()?;
    value.ok_or_else(|| Rejection::Invalid(Vec::new()))
}

/// Paths of the added part as its own request has them; a mistake anywhere else was brought about by the added part.
fn shorten(rejection: Rejection, path: &str, field: &str) -> Rejection {
    rejection.map_fields(|f| match f.strip_prefix(path) {
        Some(rest) => format!("{field}{rest}"),
        None => field.to_owned(),
    })
}

fn exists(kind: &'static str, name: &Name) -> Rejection {
    Rejection::AlreadyExists {
        kind,
        name: name.to_string(),
    }
}

fn missing(kind: &'static str, name: &Name) -> Rejection {
    Rejection::NotFound {
        kind,
        name: name.to_string(),
    }
}
