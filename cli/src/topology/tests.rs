mod round_trip;
mod wrong_files;

use super::*;
use wrong_files::with_vm;

fn parse(text: &str) -> Result<Topology, Wrong> {
    Topology::parse("t.yaml", text.as_bytes())
}

/// What is said of a wrong file, a line each, without the file's name and the closing line.
fn said(text: &str) -> Vec<String> {
    let wrong = parse(text).expect_err(text).to_string();
    let lines = wrong.lines().filter_map(|line| line.strip_prefix("t.yaml:"));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_file() {
    let text = "slices:\n- name: Shop\n  vms:\n  - name: web\n    wroker: w1\n    data_interfaces_count: many\n  links:\n  - [web.eth1]\n  - {ends: [web.eth2, db.eth1], vlan: 400}\n";
    let wrong = parse(text).expect_err("wrong");
    let at: Vec<_> = wrong.mistakes().iter().map(|m| wrong.position(m)).collect();
    assert_eq!(at, [(2, 9), (5, 5), (6, 28), (8, 5), (9, 23), (9, 39)]);
}

#[test]
fn mistakes_are_shown_in_their_lines_on_a_terminal() {
    let text = "slices:\n- name: Shop\n  vms:\n  - {name: web, wroker: w1}\n  links:\n  - [web.eth1, bd.eth1]\n  - {ends: [web.eth2], vlan: 400}\n";
    let wrong = parse(text).expect_err("wrong");
    insta::assert_snapshot!("pretty", wrong.pretty(false, 80));
    assert!(wrong.pretty(true, 80).contains('\x1b'));
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_eq!(
        said("slices:\n- {name: \"ä\", vlan_pool_size: 0}\n"),
        [
            "2:10: \"\\u{e4}\" is not a name: write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end",
            "2:31: \"0\" is not a number of VLANs: write a number from 1 to 4093",
        ]
    );
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    for text in [
        "slices: [\n",
        "slices:\n- name: \"a\n",
        "slices:\n- {name: a\n- b\n",
        "a: b: c\n",
    ] {
        let wrong = said(text);
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(wrong[0].contains("this is not YAML"), "{wrong:?}");
    }
}

#[test]
fn what_is_not_utf8_is_told_with_its_place() {
    let wrong = Topology::parse("t.yaml", b"slices:\n- name: a\xff\n").expect_err("wrong");
    assert_eq!(wrong.position(&wrong.mistakes()[0]), (2, 10));
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let wrong = Topology::parse("t.yaml", &vec![b'a'; MAX_BYTES + 1]).expect_err("wrong");
    assert_eq!(wrong.mistakes()[0].what, "the file is larger than 4 MiB");
}

#[test]
fn an_alias_bomb_is_refused_and_an_honest_alias_is_not() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let one = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![one; 10].join(","));
    }
    assert!(said(&bomb)[0].contains("too large"), "{:?}", said(&bomb));
    let honest = "slices:\n- name: a\n  vms:\n  - {name: web, data_interfaces_count: &n 2}\n  - {name: db, data_interfaces_count: *n}\n";
    assert_eq!(parse(honest).unwrap().slices[0].vms[1].data_interfaces_count, 2);
}

#[test]
fn deep_nesting_is_refused() {
    let said = said(&"[".repeat(100_000));
    assert!(said[0].contains("nested too deeply"), "{said:?}");
}

#[test]
fn a_hostile_file_ends_in_a_short_message() {
    let long = with_vm(&format!("{{name: {}}}", "x".repeat(65_536)));
    let wrong = parse(&long).expect_err("wrong");
    assert!(wrong.to_string().len() < 400);
    assert!(wrong.pretty(false, 80).len() < 800);
    let many = format!("slices:\n{}", "- {name: A}\n".repeat(20_000));
    let wrong = parse(&many).expect_err("wrong");
    assert_eq!(wrong.mistakes().len(), 20_000);
    assert!(wrong.to_string().lines().count() <= 1_001);
}

#[test]
fn the_example_is_right() {
    let text = include_str!("../../examples/topology.yaml");
    let topology = parse(text).unwrap_or_else(|wrong| panic!("{wrong}"));
    let shop = &topology.slices[0];
    assert_eq!((shop.vms.len(), shop.links.len(), shop.vlan_pool_size), (3, 2, 20));
    assert_eq!(shop.links[0].ends, ["web.eth1", "db.eth1"]);
    assert_eq!((shop.links[1].vlan, shop.links[1].dhcp_off), (3010, false));
    assert_eq!(topology.slices[1].name, "lab");
}

#[test]
fn json_is_read_too() {
    let text = r#"{"slices": [{"name": "a", "vms": [{"name": "web", "internet_enabled": true}], "links": []}]}"#;
    assert!(parse(text).unwrap().slices[0].vms[0].internet_enabled);
}

#[test]
fn the_controllers_violations_are_shown_in_the_file() {
    let text = include_str!("../../examples/topology.yaml");
    let topology = parse(text).unwrap();
    let violations = [
        ("slices[0].vms[0].worker", "there is no worker w1: write one of w8, w9"),
        ("slices[0].links[1].vlan", "VLAN 110 is taken"),
        ("slices[1].vms[0].data_interfaces_count", "too many; write 16"),
        // not in the file: the VM that it belongs to is shown
        ("slices[1].vms[1].interfaces[4].mac", "taken"),
        ("request_id", "unknown; what?"),
    ];
    let wrong = topology.wrong(violations).unwrap();
    let at: Vec<_> = wrong
        .mistakes()
        .iter()
        .map(|m| (wrong.position(m), m.what.as_str()))
        .collect();
    assert_eq!(
        at,
        [
            ((1, 1), "unknown"),
            ((7, 17), "there is no worker w1"),
            ((18, 15), "VLAN 110 is taken"),
            ((27, 46), "too many"),
            ((28, 9), "taken"),
        ]
    );
    assert!(topology.wrong([("request_id", "unknown")]).is_none());
}
