//! Rules that hold whatever is asked for, in whatever order, with nodes that report late or never.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use trunkline_proto::{
    Digest, LinkSubnet, Mac, Name, VlanId,
    resource::{Flows, Kind, Probe, Spec},
    wire,
};

use crate::{
    compile::Desired,
    model::{Cluster, Position, rows},
    testing::*,
    transition::{Intent, State, Step},
};

#[derive(Debug, Clone)]
enum Op {
    /// Slice, VMs (with their interfaces), links as pairs of VMs, size of the pool, given VLAN, deploy.
    Apply(usize, Vec<(bool, u32, usize)>, Vec<(usize, usize)>, u32, u32, bool),
    Both(usize, usize),
    /// A VM with internet is deployed on this worker.
    Move(usize, usize),
    Delete(usize),
    Deploy(usize),
    Undeploy(usize),
    Rollback(usize, u32),
    RemoveLink(usize, usize),
    /// Node, and by how many generations its report is late.
    Clean(usize, u64),
    Wait(u64),
    Drain(usize),
    Cordon(usize, bool),
    /// An operator vouches for a node, rightly; it comes back later.
    Gone(usize),
    Return(usize),
}

const SLICES: [&str; 4] = ["a", "b", "c", "d"];
const NODES: [&str; 3] = ["w1", "w2", "n1"];

fn op() -> impl Strategy<Value = Op> {
    let vms = prop::collection::vec((any::<bool>(), 0..4u32, 0..3usize), 0..4);
    let links = prop::collection::vec((0..4usize, 0..4usize), 0..4);
    let given = prop_oneof![4 => Just(0u32), 1 => 100..130u32];
    let apply = (0..3usize, vms, links, 0..7u32, given, any::<bool>());
    prop_oneof![
        6 => apply.prop_map(|(s, v, l, p, g, d)| Op::Apply(s, v, l, p, g, d)),
        1 => (0..4usize, 0..3usize).prop_map(|(a, b)| Op::Both(a, b)),
        2 => (0..3usize, 0..2usize).prop_map(|(s, w)| Op::Move(s, w)),
        1 => (0..3usize).prop_map(Op::Delete),
        2 => (0..3usize).prop_map(Op::Deploy),
        1 => (0..3usize).prop_map(Op::Undeploy),
        2 => (0..3usize, 1..4u32).prop_map(|(s, n)| Op::Rollback(s, n)),
        1 => (0..3usize, 0..2usize).prop_map(|(s, l)| Op::RemoveLink(s, l)),
        5 => (0..3usize, prop_oneof![3 => Just(0u64), 1 => 1..4u64]).prop_map(|(n, late)| Op::Clean(n, late)),
        2 => prop_oneof![4 => 20..90u64, 1 => 80_000..100_000u64].prop_map(Op::Wait),
        1 => (0..2usize).prop_map(Op::Drain),
        1 => (0..2usize, prop::bool::weighted(0.2)).prop_map(|(w, yes)| Op::Cordon(w, yes)),
        1 => (0..3usize).prop_map(Op::Gone),
        1 => (0..3usize).prop_map(Op::Return),
    ]
}

fn spec(s: usize, vms: &[(bool, u32, usize)], links: &[(usize, usize)], pool: u32, given: u32) -> wire::SliceSpec {
    let workers = ["", "w1", "w2"];
    let mut next = [0u32; 4];
    let specs = vms.iter().enumerate().map(|(i, (internet, data, worker))| {
        let name = format!("vm{}", if i == 1 { 10 } else { i });
        if *internet {
            online(&name, workers[*worker], *data)
        } else {
            vm(&name, workers[*worker], *data)
        }
    });
    let mut result = slice(SLICES[s], specs.collect(), vec![]);
    for (a, b) in links.iter().filter(|(a, b)| a != b && *a < vms.len() && *b < vms.len()) {
        let mut end = |i: usize| {
            next[i] += 1;
            (next[i] <= vms[i].1).then(|| format!("{}.eth{}", result.vms[i].name, next[i]))
        };
        if let (Some(one), Some(other)) = (end(*a), end(*b)) {
            result.links.push(wire::LinkSpec {
                port_security: a < b,
                ..link(&[&one, &other])
            });
        }
    }
    if let Some(first) = result.links.first_mut() {
        first.vlan = given;
    }
    result.vlan_pool_size = pool;
    result
}

fn intent(world: &World, op: &Op) -> Intent {
    let name_of = |s: &usize| SLICES[*s].to_owned();
    let apply = |slices, deploy| Intent::Apply {
        slices,
        expected: BTreeMap::new(),
        deploy,
    };
    match op {
        Op::Apply(s, vms, links, pool, given, deploy) => apply(vec![spec(*s, vms, links, *pool, *given)], *deploy),
        Op::Both(a, b) => apply(vec![shop(SLICES[*a]), shop(SLICES[*b])], true),
        Op::Move(s, w) => {
            let mut moved = shop(SLICES[*s]);
            moved.vms[0].worker = NODES[*w].into();
            apply(vec![moved], true)
        }
        Op::Delete(s) => Intent::DeleteSlice {
            name: name_of(s),
            expected: 0,
        },
        Op::Deploy(s) => Intent::Deploy {
            name: name_of(s),
            expected: 0,
        },
        Op::Undeploy(s) => Intent::Undeploy {
            name: name_of(s),
            expected: 0,
        },
        Op::Rollback(s, number) => Intent::Rollback {
            name: name_of(s),
            number: *number,
            expected: 0,
        },
        Op::RemoveLink(s, i) => {
            let slice = world.state.cluster.slices.get(&name(SLICES[*s]));
            let link = slice
                .and_then(|s| s.links.keys().nth(*i))
                .map_or("none".into(), ToString::to_string);
            Intent::RemoveLink {
                slice: name_of(s),
                name: link,
                expected: 0,
            }
        }
        Op::Clean(n, late) => {
            let position = world.state.cluster.position();
            Intent::NodeClean {
                name: name(NODES[*n]),
                term: position.term,
                generation: position.generation.saturating_sub(*late),
            }
        }
        Op::Wait(_) => Intent::Tick,
        Op::Drain(w) => Intent::DrainNode {
            name: NODES[*w].into(),
            onto: String::new(),
        },
        Op::Cordon(w, cordoned) => Intent::CordonNode {
            name: NODES[*w].into(),
            cordoned: *cordoned,
        },
        Op::Gone(n) => Intent::DeclareNodeGone { name: NODES[*n].into() },
        Op::Return(n) => Intent::NodeJoined {
            name: name(NODES[*n]),
            role: world.state.cluster.nodes[&name(NODES[*n])].role,
        },
    }
}

/// What the nodes may still have: every (VLAN, slice) that each was told of, with the generation that took it away until the node has
/// reported clean as of that, and what rests.
#[derive(Default)]
struct Truth {
    held: BTreeMap<Name, BTreeMap<(VlanId, u64), Option<u64>>>,
    resting: Vec<(i64, (VlanId, u64))>,
}

impl Truth {
    fn told(world: &World, node: &Name) -> BTreeSet<(VlanId, u64)> {
        let mut all = BTreeSet::new();
        for (slice, frozen) in world.state.cluster.deployed() {
            for link in frozen.links.values() {
                let here = link.ends.iter().any(|e| frozen.vms[&e.vm].worker == *node) || node.as_str() == "n1";
                all.extend(here.then_some((link.vlan, slice.uid)));
            }
        }
        all
    }

    fn see(&mut self, world: &World, cleaned: Option<&(Name, u64)>) {
        let now = world.now.as_millis();
        for node in NODES.map(name) {
            let told = Self::told(world, &node);
            let held = self.held.entry(node.clone()).or_default();
            let generation = world.state.cluster.meta.generation;
            for (_, gone) in held.iter_mut().filter(|(pair, _)| !told.contains(pair)) {
                gone.get_or_insert(generation);
            }
            held.extend(told.into_iter().map(|pair| (pair, None)));
            let clean = cleaned
                .filter(|(name, _)| *name == node)
                .map(|(_, generation)| *generation);
            // One that is off forwards nothing.
            let off = world.state.cluster.nodes[&node].gone.map(|_| u64::MAX);
            let clean = clean.max(off);
            held.retain(|pair, gone| {
                let over = gone.is_some_and(|gone| clean.is_some_and(|clean| gone <= clean));
                if over {
                    self.resting.push((now + 60_000, *pair));
                }
                !over
            });
        }
        self.resting.retain(|(until, _)| *until > now);
    }

    fn no_vlan_is_in_two_slices(&self) {
        let mut owner = BTreeMap::new();
        let resting = self.resting.iter().map(|(_, pair)| pair);
        for (vlan, uid) in self.held.values().flat_map(BTreeMap::keys).chain(resting) {
            assert_eq!(*owner.entry(vlan).or_insert(uid), uid, "vlan {vlan} reaches two slices");
        }
    }
}

fn pools_and_vlans_are_disjoint(cluster: &Cluster) {
    let (mut pooled, mut used, mut macs, mut addresses) =
        (BTreeMap::new(), BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for slice in cluster.slices.values() {
        for vlan in slice.pool.vlans() {
            assert!(![400, 105].contains(&vlan.get()), "a pool holds {vlan}");
            assert_eq!(pooled.insert(vlan, slice.uid), None, "vlan {vlan} is in two pools");
        }
        let (mut subnets, mut own) = (Vec::<LinkSubnet>::new(), BTreeSet::new());
        for link in slice.links.values() {
            assert!(own.insert(link.vlan), "vlan {} is in two links", link.vlan);
            assert!(subnets.iter().all(|s| !s.overlaps(link.subnet.net())));
            subnets.push(link.subnet);
        }
        let deployed = slice.deployed().into_iter().flat_map(|f| f.links.values());
        for link in slice.links.values().chain(deployed) {
            let owner = *used.entry(link.vlan).or_insert(slice.uid);
            assert_eq!(owner, slice.uid, "vlan {} is in two slices", link.vlan);
        }
        for interface in slice.vms.values().flat_map(|vm| &vm.interfaces) {
            assert!(macs.insert(interface.mac), "{} twice", interface.mac);
            if let (Some(vlan), Some(address)) = (interface.vlan, interface.address) {
                assert!(addresses.insert((vlan, address)), "{address} twice on {vlan}");
            }
            assert_eq!(
                interface.link.is_some() || interface.vlan == Some(VlanId::INTERNET),
                interface.vlan.is_some()
            );
        }
    }
    for (vlan, uid) in used {
        assert!(
            pooled.get(&vlan).is_none_or(|owner| *owner == uid),
            "vlan {vlan} is of another's pool"
        );
    }
    let of_network: BTreeSet<Mac> = pooled
        .keys()
        .flat_map(|v| [Mac::of_gateway(*v), Mac::of_dhcp(*v)])
        .collect();
    assert!(macs.is_disjoint(&of_network));
}

fn stored_is_what_is_known(before: &Cluster, step: &Step, stored: &mut BTreeMap<String, Vec<u8>>) {
    let mut keys = BTreeSet::new();
    for key in step.batch.puts.iter().map(|(k, _)| k).chain(&step.batch.deletes) {
        assert!(keys.insert(key), "{key} is in the batch twice");
    }
    for key in &step.batch.deletes {
        assert!(stored.remove(key).is_some(), "{key} was not stored");
    }
    stored.extend(step.batch.puts.iter().cloned());
    assert_eq!(&rows::load(&*stored).unwrap(), &step.state.cluster);
    assert_eq!(*stored, rows::all(&step.state.cluster).into_iter().collect());
    assert_eq!(step.is_noop(), before == &step.state.cluster);
}

/// Whatever was done: once every node is clean of all but what it was told last, and time has passed, nothing is kept from anybody.
fn nothing_waits_for_ever(world: &mut World) {
    for node in NODES.map(name) {
        let Some(record) = world.state.cluster.nodes.get(&node) else {
            continue;
        };
        let Position { term, generation } = record.changed;
        world.must(Intent::NodeClean {
            name: node,
            term,
            generation,
        });
    }
    world.wait(3600);
    let left = &world.state.cluster.departures;
    assert!(left.is_empty(), "{left:?}");
}

fn compiled_is_as_from_scratch(world: &World) {
    let scratch = Desired::compile(&world.state.cluster, &world.settings);
    assert_eq!(scratch, world.state.desired.clone().after_a_restart());
    let loaded = State::load(world.state.cluster.clone(), &world.settings).unwrap();
    assert_eq!(loaded.index, world.state.index);
    assert!(loaded.holdings.same(&world.state.holdings));
    for (_, node) in world.state.desired.nodes() {
        assert_eq!(node.digest, Digest::of(node.resources.iter().map(|(k, e)| (k, e.hash))));
    }
}

/// Every port with a VLAN has exactly one resource of flows on its node, which knows it; no other flows are anywhere.
fn every_port_has_its_flows(world: &World) {
    for (node, desired) in world.state.desired.nodes() {
        let (mut ports, mut flows) = (Vec::new(), BTreeMap::<VlanId, Flows>::new());
        for envelope in desired.resources.values() {
            match envelope.open().unwrap() {
                Spec::Port(port) => ports.extend(port.vlan.map(|vlan| (vlan, port.mac))),
                Spec::Flows(one) => assert!(flows.insert(one.vlan, one).is_none()),
                _ => {}
            }
        }
        for (vlan, mac) in &ports {
            let flows = flows
                .get(vlan)
                .unwrap_or_else(|| panic!("{node}: no flows on vlan {vlan}"));
            if *vlan == VlanId::INTERNET {
                assert!(flows.protected && flows.port_security && flows.guests.is_empty());
            } else {
                assert!(flows.guests.contains(mac), "{node}: {mac} is not known on vlan {vlan}");
            }
        }
        let used: BTreeSet<&VlanId> = ports.iter().map(|(vlan, _)| vlan).collect();
        assert_eq!(flows.keys().collect::<BTreeSet<_>>(), used, "{node}");
        let keys = desired.resources.keys().filter(|key| key.kind == Kind::Flows);
        assert_eq!(keys.count(), flows.len());
    }
}

/// Who is heard hears, at the same size and under the same keys; nobody proves anything to itself; and a node proves just the VLANs
/// that its trunk shares with another node's.
fn every_vlan_that_joins_nodes_is_proved_both_ways(world: &World) {
    let mut probes = BTreeMap::<(&Name, VlanId), Probe>::new();
    let mut on = BTreeMap::<VlanId, BTreeSet<&Name>>::new();
    for (node, desired) in world.state.desired.nodes() {
        for envelope in desired.resources.values() {
            match envelope.open().unwrap() {
                Spec::Trunk(trunk) => trunk.vlans.iter().for_each(|vlan| {
                    on.entry(*vlan).or_default().insert(node);
                }),
                Spec::Probe(probe) => assert!(probes.insert((node, probe.vlan), probe).is_none()),
                _ => {}
            }
        }
    }
    let netnode = name("n1");
    for ((node, vlan), probe) in &probes {
        assert!(!probe.peers.contains(*node), "{node} on vlan {vlan}");
        let mut others = on[vlan].clone();
        others.remove(node);
        if *vlan == VlanId::INTERNET && **node != netnode {
            others = [&netnode].into();
        }
        assert_eq!(
            probe.peers.iter().collect::<BTreeSet<_>>(),
            others,
            "{node} on vlan {vlan}"
        );
        for peer in &probe.peers {
            let theirs = &probes[&(peer, *vlan)];
            assert!(
                theirs.peers.contains(*node),
                "{peer} does not hear {node} on vlan {vlan}"
            );
            assert_eq!((theirs.mtu, &theirs.keys), (probe.mtu, &probe.keys));
        }
        let epoch = world.state.cluster.meta.probe_epoch;
        assert_eq!(probe.keys[0].id, epoch);
    }
    for (vlan, nodes) in &on {
        let proved = nodes
            .iter()
            .filter(|node| probes.contains_key(&(**node, *vlan)))
            .count();
        assert_eq!(
            proved,
            if nodes.len() > 1 { nodes.len() } else { 0 },
            "vlan {vlan} on {nodes:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn tenants_never_meet_and_the_books_agree(ops in prop::collection::vec(op(), 5..60)) {
        let mut world = World::new();
        world.settings.vlan_last = VlanId::try_from(120).unwrap();
        world.settings.vlan_pool_size = 3;
        world.settings.reserved_vlans = [VlanId::try_from(105).unwrap()].into();
        let mut truth = Truth::default();
        let mut stored: BTreeMap<String, Vec<u8>> = rows::all(&world.state.cluster).into_iter().collect();
        for op in &ops {
            if let Op::Wait(seconds) = op {
                world.now = world.now.after(std::time::Duration::from_secs(*seconds));
            }
            let before = world.state.clone();
            let intent = intent(&world, op);
            match world.try_do(intent.clone()) {
                Ok(step) => {
                    stored_is_what_is_known(&before.cluster, &step, &mut stored);
                    if !matches!(intent, Intent::Rollback { .. } | Intent::DeleteSlice { .. } | Intent::RemoveLink { .. }) {
                        prop_assert!(world.must(intent).is_noop(), "twice is not once");
                    }
                }
                Err(crate::transition::Rejection::Internal(bug)) => panic!("{bug}"),
                Err(_) => prop_assert_eq!(&world.state, &before),
            }
            let cleaned = match op {
                Op::Clean(n, late) => Some((name(NODES[*n]), before.cluster.meta.generation.saturating_sub(*late))),
                _ => None,
            };
            truth.see(&world, cleaned.as_ref());
            truth.no_vlan_is_in_two_slices();
            pools_and_vlans_are_disjoint(&world.state.cluster);
            compiled_is_as_from_scratch(&world);
            every_port_has_its_flows(&world);
            every_vlan_that_joins_nodes_is_proved_both_ways(&world);
        }
        nothing_waits_for_ever(&mut world);
    }

    #[test]
    fn however_many_slices_there_are_no_two_share_a_vlan(sizes in prop::collection::vec(1..400u32, 1..60)) {
        let mut world = World::new();
        for (i, size) in sizes.iter().enumerate() {
            let mut spec = shop(&format!("s{i}"));
            spec.vlan_pool_size = *size;
            if world.apply(vec![spec], true).is_err() {
                break;
            }
        }
        let cluster = &world.state.cluster;
        let all: Vec<VlanId> = cluster.slices.values().flat_map(|s| s.pool.vlans()).collect();
        let unique: BTreeSet<VlanId> = all.iter().copied().collect();
        prop_assert_eq!(all.len(), unique.len());
        prop_assert!(!unique.contains(&VlanId::INTERNET));
    }
}
