//! Every topology that is right is read back as it was written, and nothing makes the reader fall over.

use proptest::prelude::*;
use trunkline_proto::wire::{InterfaceSpec, LinkSpec, SliceSpec, VmSpec};

use super::*;

fn name() -> impl Strategy<Value = String> {
    // Words that YAML takes for something else are names like any other.
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}[a-z0-9]",
        prop::sample::select(vec!["yes", "no", "on", "off", "y", "n", "e1", "inf", "nan"]).prop_map(str::to_owned),
    ]
}

prop_compose! {
    fn vm(slice: usize, index: usize)(
        name in name(),
        worker in prop::option::of(name()),
        internet_enabled: bool,
        data in 0..=16_u32,
        mac: bool,
    ) -> VmSpec {
        let unique = format!("02:00:00:00:{slice:02x}:{index:02x}");
        let given = InterfaceSpec { name: "eth0".into(), mac: unique, address: String::new() };
        VmSpec {
            name: format!("{name}-{index}"),
            worker: worker.unwrap_or_default(),
            internet_enabled,
            data_interfaces_count: data,
            interfaces: if mac { vec![given] } else { vec![] },
        }
    }
}

/// What is given of a link: MTU, and whether name, VLAN, subnet, "no DHCP", port security and protection are.
type Choice = (u32, [bool; 6]);

/// Links of two or three ends over the data interfaces that there are, each used once.
fn links(slice: usize, vms: &[VmSpec], choices: &[Choice]) -> Vec<LinkSpec> {
    let ends = vms
        .iter()
        .flat_map(|vm| (1..=vm.data_interfaces_count).map(|i| format!("{}.eth{i}", vm.name)));
    let ends: Vec<String> = ends.collect();
    let groups = ends.chunks(3).filter(|ends| ends.len() > 1);
    let mut links = Vec::new();
    for (index, (ends, &(mtu, [name, vlan, subnet, dhcp_off, port_security, protected]))) in
        groups.zip(choices.iter().cycle()).enumerate()
    {
        links.push(LinkSpec {
            name: if name { format!("l{index}") } else { String::new() },
            ends: ends.to_vec(),
            vlan: if vlan {
                u32::try_from(401 + slice * 300 + index).unwrap()
            } else {
                0
            },
            subnet: if subnet {
                format!("10.{slice}.{index}.0/25")
            } else {
                String::new()
            },
            dhcp_off,
            mtu,
            port_security,
            protected: protected && ends.len() > 2,
        });
    }
    links
}

fn slice(index: usize) -> impl Strategy<Value = SliceSpec> {
    let vms = (0..6_usize).prop_flat_map(move |count| (0..count).map(|i| vm(index, i)).collect::<Vec<_>>());
    let mtu = prop_oneof![Just(0_u32), 1280..=9000_u32];
    let choices = prop::collection::vec((mtu, any::<[bool; 6]>()), 1..6);
    let pool = prop_oneof![Just(0_u32), 1..=4093_u32];
    (name(), vms, choices, pool).prop_map(move |(name, vms, choices, pool)| SliceSpec {
        name: format!("{name}-{index}"),
        links: links(index, &vms, &choices),
        vms,
        vlan_pool_size: pool,
    })
}

fn topology() -> impl Strategy<Value = Vec<SliceSpec>> {
    (1..4_usize).prop_flat_map(|count| (0..count).map(slice).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(slices in topology()) {
        let file = TopologyFile::from(&slices[..]);
        let yaml = serde_saphyr::to_string(&file).unwrap();
        let json = serde_json::to_string_pretty(&file).unwrap();
        for text in [yaml, json] {
            match parse(&text) {
                Ok(read) => prop_assert_eq!(&read.slices, &slices),
                Err(wrong) => prop_assert!(false, "{}\n{}", wrong, text),
            }
        }
    }

    #[test]
    fn no_text_makes_it_fall_over(text in "(?s)[ -~\t\n\u{e4}]{0,200}") {
        let _ = parse(&text).map_err(|wrong| wrong.pretty(true, 80));
    }

    #[test]
    fn no_cut_makes_it_fall_over(at in 0..1500_usize, byte: u8) {
        let mut bytes = include_bytes!("../../../examples/topology.yaml").to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        let _ = Topology::parse("t", &bytes).map_err(|wrong| wrong.pretty(false, 80));
        bytes.truncate(at);
        let _ = Topology::parse("t", &bytes).map_err(|wrong| wrong.pretty(false, 80));
    }
}
