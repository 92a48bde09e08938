//! When a port or a trunk is ready.

use super::*;

fn tap_resource() -> Port {
    Port {
        tap: "tap_1000_eth1".parse().unwrap(),
        vlan: Some(vlan(110)),
        mac: "52:54:00:03:e8:01".parse().unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        owner: PortOwner::default(),
    }
}

/// A world in which the port of [`tap_resource`] is ready.
fn good_world() -> (SwitchState, Observed) {
    let mut world = world();
    let mut tap = device("tap_1000_eth1", 30);
    tap.link = Link {
        up: true,
        kind: Some("tun".into()),
        alias: Some(crate::tap::ALIAS.into()),
        ..tap.link
    };
    world.devices.insert("tap_1000_eth1".into(), tap);
    let port = tap_resource();
    let wanted = state(
        false,
        Some(uplink(&[110])),
        BTreeMap::from([(port.tap.to_string(), SwitchPort::from(&port))]),
    );
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    world.devices.get_mut("trunk0").unwrap().link.carrier = true;
    (wanted, world)
}

#[test]
fn a_port_is_ready_only_when_everything_was_read_back() {
    let none = BTreeMap::new();
    let (wanted, world) = good_world();
    let judge = |world: &Observed| judge_port(&tap_resource(), &wanted, world, &none);
    let good = judge(&world);
    assert_eq!((good.state, good.reason.as_str()), (State::Ready, ""));
    let Facts::Port(facts) = good.facts else {
        panic!("facts of another kind")
    };
    assert_eq!(
        (facts.exists, facts.up, facts.ofport, facts.tag, facts.carrier),
        (true, true, 2, 110, false)
    );

    type Break = fn(&mut Observed);
    let breaks: [(&str, Break); 9] = [
        ("does not exist", |world| drop(world.devices.remove("tap_1000_eth1"))),
        ("is down", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.up = false
        }),
        ("MTU of 1400", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.mtu = 1400
        }),
        ("not a TAP", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.alias = None
        }),
        ("no switch port", |world| drop(world.ports.remove("tap_1000_eth1"))),
        ("tag 111 instead of access tag 110", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().columns.tag = Some(111)
        }),
        ("trunk for every VLAN", |world| {
            let columns = &mut world.ports.get_mut("tap_1000_eth1").unwrap().columns;
            (columns.tag, columns.vlan_mode) = (None, None);
        }),
        ("has not taken", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().interfaces[0].ofport = None
        }),
        ("cannot use", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().interfaces[0].error = Some("could not open".into());
        }),
    ];
    for (words, damage) in breaks {
        let mut damaged = world.clone();
        damage(&mut damaged);
        let judgement = judge(&damaged);
        assert_eq!(judgement.state, State::Failed, "{words}");
        assert!(judgement.reason.contains(words), "{words}: {}", judgement.reason);
    }
    let troubles = BTreeMap::from([("tap_1000_eth1".to_owned(), "somebody has the name".to_owned())]);
    assert_eq!(
        judge_port(&tap_resource(), &wanted, &world, &troubles).reason,
        "somebody has the name"
    );
}

#[test]
fn a_trunk_is_ready_only_when_it_carries_exactly_its_vlans() {
    let none = BTreeMap::new();
    let (wanted, world) = good_world();
    let trunk = Trunk {
        vlans: BTreeSet::from([vlan(110)]),
    };
    let good = judge_trunk(&trunk, &wanted, &world, &none);
    assert_eq!((good.state, good.reason.as_str()), (State::Ready, ""));
    let Facts::Trunk(facts) = good.facts else {
        panic!("facts of another kind")
    };
    assert_eq!(
        (facts.interface.as_str(), facts.vlans, facts.up),
        ("trunk0", vec![110], true)
    );

    let mut damaged = world.clone();
    damaged.ports.get_mut("trunk0").unwrap().columns.trunks.clear();
    assert_eq!(judge_trunk(&trunk, &wanted, &damaged, &none).state, State::Failed);

    let mut damaged = world.clone();
    damaged.devices.get_mut("trunk0").unwrap().link.carrier = false;
    assert!(
        judge_trunk(&trunk, &wanted, &damaged, &none)
            .reason
            .contains("no carrier")
    );

    let mut damaged = world.clone();
    damaged.devices.remove("trunk0");
    let gone = judge_trunk(&trunk, &wanted, &damaged, &none);
    assert_eq!(gone.state, State::Failed);
    assert!(
        gone.reason.starts_with("the uplink trunk0 is not there"),
        "{}",
        gone.reason
    );

    let mut damaged = world;
    damaged
        .devices
        .get_mut("trunk0")
        .unwrap()
        .addresses
        .push("192.0.2.1/24".parse().unwrap());
    assert_eq!(judge_trunk(&trunk, &wanted, &damaged, &none).state, State::Degraded);

    let without = SwitchState { uplink: None, ..wanted };
    assert!(
        judge_trunk(&trunk, &without, &Observed::default(), &none)
            .reason
            .contains("no uplink is configured")
    );
    assert_eq!(
        judge_trunk(&Trunk::default(), &without, &Observed::default(), &none).state,
        State::Ready
    );
}
