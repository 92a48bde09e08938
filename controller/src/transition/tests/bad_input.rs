//! Everything of the list of bad input, with the field that it is told of.

use trunkline_proto::{VmId, wire};

use crate::{
    model::NodeRole,
    settings::Settings,
    testing::*,
    transition::{Intent, Rejection},
};

fn fields(world: &mut World, slices: Vec<wire::SliceSpec>) -> Vec<String> {
    world.violations(slices).into_iter().map(|v| v.field).collect()
}

/// A slice of `a` and `b` with a link between them that `change` spoils.
fn linked(change: impl FnOnce(&mut wire::SliceSpec)) -> Vec<wire::SliceSpec> {
    let mut spec = slice(
        "lab",
        vec![vm("a", "w1", 2), vm("b", "w2", 2)],
        vec![link(&["a.eth1", "b.eth1"])],
    );
    change(&mut spec);
    vec![spec]
}

#[test]
fn bad_names_are_refused_wherever_a_name_goes() {
    let long = "a".repeat(65_536);
    let bad = [
        "a/b", "..", "-web", "a b", "a\nb", "a\0b", "wеb", "ｗeb", "", "Web", "web-", "1web", &long,
    ];
    for text in bad {
        let mut world = World::new();
        assert_eq!(
            fields(&mut world, linked(|s| s.name = text.into())),
            ["slices[0].name"],
            "{text:?}"
        );
        let as_vm = linked(|s| s.vms.push(vm(text, "w1", 0)));
        assert_eq!(fields(&mut world, as_vm), ["slices[0].vms[2].name"], "{text:?}");
        if !text.is_empty() {
            let as_link = linked(|s| s.links[0].name = text.into());
            assert_eq!(fields(&mut world, as_link), ["slices[0].links[0].name"], "{text:?}");
            let as_worker = linked(|s| s.vms[0].worker = text.into());
            assert_eq!(fields(&mut world, as_worker), ["slices[0].vms[0].worker"], "{text:?}");
            let as_end = linked(|s| s.links[0].ends[0] = format!("{text}.eth1"));
            assert_eq!(fields(&mut world, as_end), ["slices[0].links[0].ends[0]"], "{text:?}");
        }
        let told = world.violations(linked(|s| s.name = text.into()));
        assert!(told[0].description.len() < 400, "a long name is not sent back whole");
    }
}

#[test]
fn bad_values_are_told_by_field() {
    type Spoil = fn(&mut wire::SliceSpec);
    let table: &[(&str, Spoil)] = &[
        ("links[0].vlan", |s| s.links[0].vlan = 400),
        ("links[0].vlan", |s| s.links[0].vlan = 4095),
        ("links[0].vlan", |s| s.links[0].vlan = 5000),
        ("links[0].vlan", |s| s.links[0].vlan = u32::MAX),
        ("links[0].vlan", |s| s.links[0].vlan = 130),
        ("links[0].subnet", |s| s.links[0].subnet = "10.0.0.0/16".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "10.0.0.0/20".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "10.0.0.1/24".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "nonsense".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "8.8.8.0/24".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "192.0.3.0/24".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "10.60.7.0/25".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "10.64.130.0/25".into()),
        ("links[0].subnet", |s| s.links[0].subnet = "192.168.1.0/28".into()),
        ("links[0].mtu", |s| s.links[0].mtu = 9001),
        ("links[0].mtu", |s| s.links[0].mtu = 576),
        ("links[0].ends", |s| s.links[0].ends.truncate(1)),
        ("links[0].ends", |s| s.links[0].ends.clear()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "a.eth1".into()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "ghost.eth1".into()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "b.eth3".into()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "b.eth0".into()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "b.ens3".into()),
        ("links[0].ends[1]", |s| s.links[0].ends[1] = "b".into()),
        ("links[1].ends[0]", |s| s.links.push(link(&["a.eth1", "b.eth2"]))),
        ("links[1].name", |s| {
            s.links[0].name = "x".into();
            s.links.push(link(&["a.eth2", "b.eth2"]));
            s.links[1].name = "x".into();
        }),
        ("links[1].vlan", |s| {
            s.links[0].vlan = 150;
            s.links.push(link(&["a.eth2", "b.eth2"]));
            s.links[1].vlan = 150;
        }),
        ("links[1].subnet", |s| {
            s.links[0].subnet = "192.168.0.0/24".into();
            s.links.push(link(&["a.eth2", "b.eth2"]));
            s.links[1].subnet = "192.168.0.128/25".into();
        }),
        ("vms[2].name", |s| s.vms.push(vm("a", "w1", 0))),
        ("vms[1].worker", |s| s.vms[1].worker = "w9".into()),
        ("vms[1].worker", |s| s.vms[1].worker = "n1".into()),
        ("vms[0].data_interfaces_count", |s| s.vms[0].data_interfaces_count = 17),
        ("vms[0].interfaces[0].name", |s| {
            s.vms[0].interfaces = vec![interface("eth3", "", "")]
        }),
        ("vms[0].interfaces[0].name", |s| {
            s.vms[0].interfaces = vec![interface("lo", "", "")]
        }),
        ("vms[0].interfaces[1].name", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "", ""), interface("eth1", "", "")];
        }),
        ("vms[0].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "01:00:5e:00:00:01", "")];
        }),
        ("vms[0].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "ff:ff:ff:ff:ff:ff", "")];
        }),
        ("vms[0].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "52:54:00:03:e8:01", "")];
        }),
        ("vms[0].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "x", "")]
        }),
        ("vms[1].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "02:00:00:00:00:01", "")];
            s.vms[1].interfaces = vec![interface("eth2", "02:00:00:00:00:01", "")];
        }),
        ("vms[0].interfaces[0].mac", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "02:00:00:00:00:aa", "")];
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "", "10.1.2.3")];
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.links[0].subnet = "192.168.0.0/24".into();
            s.vms[0].interfaces = vec![interface("eth1", "", "192.168.0.1")];
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.vms[0].interfaces = vec![interface("eth1", "", "fe80::1")]
        }),
        ("vms[1].interfaces[0].address", |s| {
            s.links[0].subnet = "192.168.0.0/24".into();
            s.vms[0].interfaces = vec![interface("eth1", "", "192.168.0.10")];
            s.vms[1].interfaces = vec![interface("eth1", "", "192.168.0.10")];
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.vms[0].interfaces = vec![interface("eth0", "", "10.60.7.10")]
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.vms[0].internet_enabled = true;
            s.vms[0].interfaces = vec![interface("eth0", "", "10.60.7.254")];
        }),
        ("vms[0].interfaces[0].address", |s| {
            s.vms[0].internet_enabled = true;
            s.vms[0].interfaces = vec![interface("eth0", "", "10.60.7.10")];
        }),
        ("vlan_pool_size", |s| s.vlan_pool_size = 5000),
        ("vlan_pool_size", |s| s.vlan_pool_size = 4000),
    ];
    // Another slice has pool 100 to 119, VLAN 130, a MAC, and 10.60.7.10.
    let mut world = World::new();
    let mut other = shop("other");
    other.links[0].vlan = 130;
    other.vms[1].interfaces = vec![interface("eth1", "02:00:00:00:00:aa", "")];
    world.apply(vec![other], true).unwrap();
    for (i, (field, spoil)) in table.iter().enumerate() {
        let found = fields(&mut world, linked(spoil));
        assert!(!found.is_empty(), "case {i}");
        assert!(
            found.iter().all(|f| f == &format!("slices[0].{field}")),
            "case {i}: {found:?} is not {field}"
        );
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let mut spec = slice(
        "Bad Name",
        vec![vm("a", "w1", 99), vm("b", "w9", 1), vm("-c", "w1", 1)],
        vec![link(&["a.eth1"]), link(&["b.eth1", "ghost.eth1"])],
    );
    spec.links[0].vlan = 4095;
    let mut good = slice("good", vec![vm("a", "w7", 1)], vec![]);
    good.vms[0].interfaces = vec![interface("eth1", "01:00:00:00:00:01", "1.2.3")];
    let mut found = fields(&mut World::new(), vec![spec, good]);
    found.sort();
    assert_eq!(
        found,
        [
            "slices[0].links[0].ends",
            "slices[0].links[0].vlan",
            "slices[0].links[1].ends[1]",
            "slices[0].name",
            "slices[0].vms[0].data_interfaces_count",
            "slices[0].vms[1].worker",
            "slices[0].vms[2].name",
            "slices[1].vms[0].interfaces[0].address",
            "slices[1].vms[0].interfaces[0].mac",
            "slices[1].vms[0].worker",
        ]
    );
}

#[test]
fn the_same_slice_twice_and_none_at_all_are_refused() {
    let mut world = World::new();
    assert_eq!(fields(&mut world, vec![shop("a"), shop("a")]), ["slices[1].name"]);
    assert_eq!(fields(&mut world, vec![]), ["slices"]);
}

#[test]
fn an_interface_name_over_15_bytes_is_refused_when_the_vm_is_created() {
    let mut world = World::new();
    world.state.cluster.meta.next_vm_id = 100_000;
    let spec = |data| vec![slice("lab", vec![vm("a", "w1", data)], vec![])];
    let told = world.violations(spec(10));
    assert_eq!(told[0].field, "slices[0].vms[0].data_interfaces_count");
    assert!(told[0].description.contains("tap_100000_eth10"), "{told:?}");
    world.apply(spec(9), true).unwrap();
}

#[test]
fn vm_ids_run_out_with_a_clear_word() {
    let mut world = World::new();
    world.state.cluster.meta.next_vm_id = VmId::MAX + 1;
    let told = world.violations(vec![slice("lab", vec![vm("a", "w1", 0)], vec![])]);
    assert!(told[0].exhausted);
}

#[test]
fn an_exhausted_pool_says_how_to_grow_it() {
    let mut world = World::new();
    let mut spec = slice("lab", vec![vm("a", "w1", 3), vm("b", "w2", 3)], vec![]);
    spec.vlan_pool_size = 2;
    for i in 1..=3 {
        spec.links.push(link(&[&format!("a.eth{i}"), &format!("b.eth{i}")]));
    }
    match world.apply(vec![spec.clone()], true) {
        Err(Rejection::Exhausted(list)) => {
            assert_eq!(list.len(), 1);
            assert_eq!(list[0].field, "slices[0].links[2].vlan");
            assert!(
                list[0].description.contains("set vlan_pool_size to more than 2"),
                "{list:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    spec.vlan_pool_size = 3;
    world.apply(vec![spec], true).unwrap();
}

#[test]
fn the_internet_subnet_runs_out_by_name_of_the_vm() {
    let settings = Settings {
        internet_subnet: "10.60.7.0/28".parse().unwrap(),
        ..Settings::default()
    };
    let mut world = World::empty(settings);
    world.join("w1", NodeRole::Worker);
    let told = world.violations(vec![slice("lab", vec![online("a", "", 0), online("b", "", 0)], vec![])]);
    assert_eq!(told[0].field, "slices[0].vms[1].internet_enabled");
    assert!(told[0].exhausted);
}

#[test]
fn a_vm_without_a_worker_to_run_on_is_refused() {
    let mut world = World::empty(Settings::default());
    let told = world.violations(vec![slice("lab", vec![vm("a", "", 0)], vec![])]);
    assert_eq!(told[0].field, "slices[0].vms[0].worker");
}

#[test]
fn single_edits_tell_the_fields_of_their_own_request() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], false).unwrap();
    let field = |result: Result<_, Rejection>| match result {
        Err(Rejection::Invalid(list)) => list[0].field.clone(),
        other => panic!("{:?}", other.map(|_: crate::transition::Step| ())),
    };
    let add_vm = |vm| Intent::AddVm {
        slice: "shop".into(),
        vm,
        expected: 0,
    };
    assert_eq!(field(world.try_do(add_vm(Some(vm("../x", "w1", 0))))), "vm.name");
    assert_eq!(field(world.try_do(add_vm(Some(vm("x", "w9", 0))))), "vm.worker");
    assert_eq!(field(world.try_do(add_vm(None))), "vm");
    let add_link = |link| Intent::AddLink {
        slice: "shop".into(),
        link: Some(link),
        expected: 0,
    };
    assert_eq!(
        field(world.try_do(add_link(link(&["web.eth1", "db.eth1"])))),
        "link.ends[0]"
    );
    let deploy = Intent::Deploy {
        name: "a/b".into(),
        expected: 0,
    };
    assert_eq!(field(world.try_do(deploy)), "name");
}

#[test]
fn a_public_subnet_is_refused_with_what_to_write_instead() {
    let told = World::new().violations(linked(|s| s.links[0].subnet = "151.101.1.0/24".into()));
    assert_eq!(told.len(), 1);
    let text = &told[0].description;
    assert!(
        text.contains("on the internet") && text.contains("10.0.0.0/8"),
        "{text}"
    );
}

#[test]
fn a_subnet_that_holds_a_dns_server_is_neither_taken_nor_given() {
    let settings = Settings {
        dns: ["192.168.9.53", "10.64.100.53"]
            .map(|dns| dns.parse().unwrap())
            .to_vec(),
        ..Settings::default()
    };
    let mut world = World::empty(settings);
    for worker in ["w1", "w2"] {
        world.join(worker, NodeRole::Worker);
    }
    let told = world.violations(linked(|s| s.links[0].subnet = "192.168.9.0/24".into()));
    assert_eq!(told[0].field, "slices[0].links[0].subnet");
    assert!(
        told[0].description.contains("DNS server 192.168.9.53"),
        "{}",
        told[0].description
    );
    world.apply(linked(|_| {}), true).unwrap();
    assert_eq!(world.slice("lab").links.values().next().unwrap().vlan.get(), 101);
}
