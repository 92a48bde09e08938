//! What a link says of who may send what.

use std::num::NonZeroU32;

use trunkline_proto::resource::{Kind, Spec};

use crate::{
    check::{CheckError, check},
    model::rows,
    testing::*,
    transition::State,
};

/// Three VMs on one link.
fn trio() -> trunkline_proto::wire::SliceSpec {
    let vms = vec![vm("a", "w1", 1), vm("b", "w1", 1), vm("c", "w2", 1)];
    slice("trio", vms, vec![link(&["a.eth1", "b.eth1", "c.eth1"])])
}

fn told(step: &crate::transition::Step) -> Vec<&str> {
    step.changes.iter().map(|c| c.detail.as_str()).collect()
}

#[test]
fn a_link_is_secured_and_protected_when_asked_and_says_so() {
    let mut world = World::new();
    world.apply(vec![trio()], true).unwrap();
    let mut spec = trio();
    spec.links[0].port_security = true;
    spec.links[0].protected = true;
    let step = world.apply(vec![spec.clone()], true).unwrap();
    let text = "port_security: false -> true, protected: false -> true";
    assert!(told(&step).contains(&text), "{:?}", step.changes);
    let stored = world.slice("trio").links.values().next().unwrap();
    let shown = crate::view::link(world.slice("trio"), stored);
    assert!(shown.port_security && shown.protected);
    let asked = crate::view::spec(world.slice("trio"));
    assert!(asked.links[0].port_security && asked.links[0].protected);
    assert!(world.apply(vec![asked], true).unwrap().is_noop());
    for node in ["w1", "w2"] {
        let desired = world.state.node_desired(&name(node));
        let flows = desired.resources.values().find(|e| e.key.kind == Kind::Flows).unwrap();
        let Spec::Flows(flows) = flows.open().unwrap() else {
            panic!()
        };
        assert!(flows.port_security && flows.protected && flows.guests.len() == 3);
    }
}

#[test]
fn a_link_of_two_ends_cannot_keep_them_apart() {
    let mut world = World::new();
    let mut spec = shop("shop");
    spec.links[0].protected = true;
    let violations = world.violations(vec![spec]);
    let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["slices[0].links[0].protected"]);
    assert!(violations[0].description.contains("three or more ends"));
}

#[test]
fn rows_from_before_links_could_be_protected_load_as_neither() {
    let mut world = World::new();
    world.apply(vec![trio()], true).unwrap();
    let fields = [r#","port_security":false"#, r#","protected":false"#];
    let mut stripped = 0;
    let old = rows::all(&world.state.cluster).into_iter().map(|(key, value)| {
        let mut text = String::from_utf8(value).unwrap();
        for field in fields {
            stripped += text.matches(field).count();
            text = text.replace(field, "");
        }
        (key, text.into_bytes())
    });
    let loaded = rows::load(&old.collect::<crate::store::Rows>()).unwrap();
    assert_eq!(stripped, 4, "in the draft and in the revision");
    assert_eq!(loaded, world.state.cluster);
}

#[test]
fn another_limit_is_told_to_the_workers_after_a_restart() {
    let mut world = World::new();
    world.apply(vec![trio()], true).unwrap();
    world.settings.broadcast_limit = NonZeroU32::new(5);
    world.state = State::load(world.state.cluster.clone(), &world.settings).unwrap();
    let touched = world.wait(0).touched;
    let touched: Vec<&str> = touched.iter().map(trunkline_proto::Name::as_str).collect();
    assert_eq!(touched, ["w1", "w2"]);
}

#[test]
fn flows_other_than_the_links_own_are_not_stored() {
    let mut world = World::new();
    let empty = world.state.desired.clone();
    world.apply(vec![trio()], true).unwrap();
    let looked = |cluster| {
        let nodes = ["w1", "w2", "n1"].map(name);
        check(cluster, &world.state.desired, &empty, &nodes, &world.settings)
    };
    assert_eq!(looked(&world.state.cluster).map(drop), Ok(()));
    let mut spec = trio();
    spec.links[0].port_security = true;
    let mut other = world.clone();
    other.apply(vec![spec], true).unwrap();
    let wrong = looked(&other.state.cluster);
    assert_eq!(wrong, Err(CheckError::Flows { node: name("w1") }));
}
