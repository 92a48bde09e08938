//! Wrong files, a row each: the file, and all that is said of it, with its line and column.

use super::said;

/// A file with one slice `a`, whose VMs `web` and `db` have two data interfaces each, and these links.
fn with_links(links: &str) -> String {
    format!(
        "slices:\n- name: a\n  vms:\n  - {{name: web, data_interfaces_count: 2}}\n  - {{name: db, data_interfaces_count: 2}}\n  links:\n{links}\n"
    )
}

pub(super) fn with_vm(vm: &str) -> String {
    format!("slices:\n- name: a\n  vms:\n  - {vm}\n")
}

/// One wrong file a row: the file, and all that is said of it.
fn wrong_files() -> Vec<(String, Vec<&'static str>)> {
    let row = |text: &str, said: &[&'static str]| (text.to_owned(), said.to_vec());
    let links = |text: &str, said: &[&'static str]| (with_links(text), said.to_vec());
    let vm = |text: &str, said: &[&'static str]| (with_vm(text), said.to_vec());
    vec![
        // the file as a whole
        row("", &["1:1: the file is empty: write `slices:` and a list of slices"]),
        row(
            "# nothing\n",
            &["1:1: the file is empty: write `slices:` and a list of slices"],
        ),
        row(
            "- a\n",
            &["1:3: a list is not the file: write the file as a mapping with slices"],
        ),
        row(
            "slices:\n",
            &["1:7: the list of slices is empty: write at least one: `- name: shop`"],
        ),
        row(
            "slices: []\n",
            &["1:9: the list of slices is empty: write at least one: `- name: shop`"],
        ),
        row(
            "slices: 7\n",
            &["1:9: 7 is not a list of slices: write a list: `- name: shop`"],
        ),
        row(
            "slice:\n- name: a\n",
            &["1:1: \"slice\" is not a key of the file: write slices"],
        ),
        row(
            "slices: [{name: a}]\n---\nslices: [{name: b}]\n",
            &["2:1: a second document begins here: write all slices under one `slices:`, without `---`"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], protected: true}",
            &[
                "7:44: protected keeps the only two ends of this link apart: leave protected out, or write three or more ends",
            ],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], port_security: yes}",
            &["7:48: a text is not yes or no: write true or false"],
        ),
        // names
        vm(
            "{name: Web}",
            &["4:12: \"Web\" is not a name: write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end"],
        ),
        vm(
            "{name: ..}",
            &["4:12: \"..\" is not a name: write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end"],
        ),
        vm(
            "{name: \"a\\nb\"}",
            &["4:12: \"a\\nb\" is not a name: write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end"],
        ),
        vm("{name: 12}", &["4:12: 12 is not a name: write a name, like web"]),
        vm("{name: true}", &["4:12: true is not a name: write a name, like web"]),
        vm("{name: }", &["4:10: nothing is not a name: write a name, like web"]),
        vm(
            "{worker: w1}",
            &["4:5: this VM has no name: write `name:` and 1 to 32 of a-z, 0-9 and -"],
        ),
        vm(
            "web",
            &[
                "4:5: a text is not a VM: write a VM as a mapping with name, worker, internet_enabled, data_interfaces_count, interfaces",
            ],
        ),
        row(
            "slices:\n- name: a\n- name: a\n",
            &["3:9: there are two slices named a: give each its own name"],
        ),
        row(
            "slices:\n- name: a\n  vms:\n  - name: web\n  - name: web\n",
            &["5:11: there are two VMs named web in this slice: give each its own name"],
        ),
        // keys and types
        vm(
            "{name: web, wroker: w1}",
            &["4:17: \"wroker\" is not a key of a VM: write worker"],
        ),
        vm(
            "{name: web, colour: red}",
            &[
                "4:17: \"colour\" is not a key of a VM: a VM has name, worker, internet_enabled, data_interfaces_count, interfaces",
            ],
        ),
        vm(
            "{name: web, name: db}",
            &["4:17: name is given twice: keep one of the two"],
        ),
        vm(
            "{name: web, internet_enabled: yes}",
            &["4:35: a text is not yes or no: write true or false"],
        ),
        vm(
            "{name: web, internet_enabled: 1}",
            &["4:35: 1 is not yes or no: write true or false"],
        ),
        vm(
            "{name: web, data_interfaces_count: 17}",
            &["4:40: \"17\" is not a number of data interfaces: write a number from 0 to 16"],
        ),
        vm(
            "{name: web, data_interfaces_count: \"2\"}",
            &["4:40: \"2\" is not a number of data interfaces: write a number from 0 to 16, without quotes"],
        ),
        vm(
            "{name: web, data_interfaces_count: -1}",
            &["4:40: \"-1\" is not a number of data interfaces: write a number from 0 to 16"],
        ),
        vm(
            "!!map {name: web}",
            &["4:11: tags like !!str mean nothing here: leave the tag out"],
        ),
        row(
            "slices:\n- {name: a, vlan_pool_size: 0}\n",
            &["2:29: \"0\" is not a number of VLANs: write a number from 1 to 4093"],
        ),
        row(
            "slices:\n- {name: a, vms: {}}\n",
            &["2:18: a mapping is not a list of VMs: write a list: `- name: web`"],
        ),
        // interfaces
        vm(
            "{name: web, interfaces: [{name: eth1}]}",
            &["4:37: web has no eth1: it has eth0 only: raise data_interfaces_count of web to 1"],
        ),
        vm(
            "{name: web, interfaces: [{name: ens3}]}",
            &["4:37: \"ens3\" is not an interface: write eth0, or eth1 to eth16 for a data interface"],
        ),
        vm(
            "{name: web, interfaces: [{mac: \"02:00:00:00:00:01\"}]}",
            &["4:30: this interface has no name: write `name: eth1`"],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0}, {name: eth0}]}",
            &["4:51: eth0 is given twice: keep one of the two"],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0, mac: \"01:00:5e:00:00:01\"}]}",
            &[
                "4:48: \"01:00:5e:00:00:01\" is not the MAC of an interface: it is a group address; write one whose first byte is even, like 02:00:00:00:00:01",
            ],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0, mac: 02-00-00-00-00-01}]}",
            &["4:48: \"02-00-00-00-00-01\" is not a MAC address: write six bytes in hex, like 02:00:00:00:00:01"],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0, address: 10.64.1.300}]}",
            &["4:52: \"10.64.1.300\" is not an IPv4 address: write one like 10.64.100.20"],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0, address: 10.64.1.30/24}]}",
            &["4:52: \"10.64.1.30/24\" is not an IPv4 address: write it without prefix length: 10.64.1.30"],
        ),
        vm(
            "{name: web, data_interfaces_count: 1, interfaces: [{name: eth0, mac: \"02:00:00:00:00:01\"}, {name: eth1, mac: \"02:00:00:00:00:01\"}]}",
            &["4:114: two interfaces have the MAC 02:00:00:00:00:01: give each its own, or leave mac out"],
        ),
        vm(
            "{name: web, data_interfaces_count: 2, interfaces: [{name: eth2, address: 10.0.0.10}, {name: eth1, address: 10.0.0.10}]}",
            &["4:112: two interfaces have the address 10.0.0.10: give each its own, or leave address out"],
        ),
        vm(
            "{name: web, interfaces: [{name: eth0, mac: \"52:54:00:00:00:01\", address: 10.60.7.10}]}",
            &[
                "4:48: 52:54:00:00:00:01 is of those that the controller makes: write one like 02:00:00:00:00:01, or leave mac out",
                "4:78: eth0 has no subnet without internet: set internet_enabled, or leave the address out",
            ],
        ),
        // links
        links(
            "  - [web.eth1]",
            &["7:5: this link has one end: write two or more: [web.eth1, db.eth1]"],
        ),
        links(
            "  - []",
            &["7:5: this link has no ends: write two or more: [web.eth1, db.eth1]"],
        ),
        links(
            "  - {name: x}",
            &["7:5: this link has no ends: write `ends: [web.eth1, db.eth1]`"],
        ),
        links(
            "  - web.eth1",
            &["7:5: a text is not a link: write its ends, like [web.eth1, db.eth1], or a mapping with ends and more"],
        ),
        links(
            "  - [web.eth1, web.eth1]",
            &["7:16: web.eth1 is in this link twice: name each end once"],
        ),
        links(
            "  - [web.eth1, db.eth1]\n  - [web.eth2, db.eth1]",
            &["8:16: db.eth1 is in two links: use another interface: each is in one link at most"],
        ),
        links(
            "  - [wbe.eth1, db.eth1]",
            &["7:6: there is no VM wbe in this slice: write web.eth1"],
        ),
        links(
            "  - [mail.eth1, db.eth1]",
            &["7:6: there is no VM mail in this slice: the slice has web, db"],
        ),
        links(
            "  - [web.eth3, db.eth1]",
            &["7:6: web has no eth3: it has eth0 to eth2 only: raise data_interfaces_count of web to 3"],
        ),
        links(
            "  - [web.eth0, db.eth1]",
            &["7:6: eth0 cannot be linked: write a data interface, like eth1; eth0 is for management and internet"],
        ),
        links(
            "  - [web, db.eth1]",
            &["7:6: \"web\" is not an end of a link: write vm.interface, like web.eth1"],
        ),
        links(
            "  - [web.eth1, 5]",
            &["7:16: 5 is not an end of a link: write an end of a link, like web.eth1"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 0}",
            &["7:39: \"0\" is not a VLAN id: write a number from 1 to 4094"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 400}",
            &["7:39: VLAN 400 is that of internet access: write another number, or leave vlan out"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 4095}",
            &["7:39: \"4095\" is not a VLAN id: write a number from 1 to 4094"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 5000}",
            &["7:39: \"5000\" is not a VLAN id: write a number from 1 to 4094"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: \"110\"}",
            &["7:39: \"110\" is not a VLAN id: write a number from 1 to 4094, without quotes"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 1.5}",
            &["7:39: \"1.5\" is not a VLAN id: write a number from 1 to 4094"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], mtu: 9001}",
            &["7:38: \"9001\" is not an MTU: write a number from 1280 to 9000"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], dhcp: off}",
            &["7:39: a text is not yes or no: write true or false"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], subnet: 10.0.0.1/24}",
            &["7:41: \"10.0.0.1/24\" is not the subnet of a link: host bits are set; write 10.0.0.0/24"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], subnet: 8.8.8.0/24}",
            &[
                "7:41: 8.8.8.0/24 is somebody's on the internet: write a private one, in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
            ],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], subnet: 10.0.0.0/20}",
            &["7:41: 10.0.0.0/20 is too large for a link: write a prefix length from 24 to 28, like 10.64.110.0/24"],
        ),
        links(
            "  - {name: x, ends: [web.eth1, db.eth1]}\n  - {name: x, ends: [web.eth2, db.eth2]}",
            &["8:12: there are two links named x in this slice: give each its own name"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 110}\n  - {ends: [web.eth2, db.eth2], vlan: 110}",
            &["8:39: two links have VLAN 110: give each its own, or leave vlan out"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], subnet: 10.0.0.0/24}\n  - {ends: [web.eth2, db.eth2], subnet: 10.0.0.64/26}",
            &["8:41: 10.0.0.64/26 overlaps 10.0.0.0/24 of another link: give each link its own, or leave subnet out"],
        ),
        links(
            "  - {ends: [web.eth1, db.eth1], vlan: 110}\n  - {ends: [web.eth2, db.eth2], subnet: 10.64.110.0/24}",
            &[
                "8:41: 10.64.110.0/24 overlaps 10.64.110.0/24 of another link: give each link its own, or leave subnet out",
            ],
        ),
        // addresses within the subnet of their link
        row(
            "slices:\n- name: a\n  vms:\n  - name: web\n    data_interfaces_count: 1\n    interfaces:\n    - {name: eth1, address: 10.9.9.9}\n  - {name: db, data_interfaces_count: 1, interfaces: [{name: eth1, address: 10.0.0.1}]}\n  links:\n  - {ends: [web.eth1, db.eth1], subnet: 10.0.0.0/24}\n",
            &[
                "7:29: 10.9.9.9 is not in 10.0.0.0/24, the subnet of its link: write one from 10.0.0.10 to 10.0.0.250",
                "8:77: 10.0.0.1 of 10.0.0.0/24 is not for guests: write one from 10.0.0.10 to 10.0.0.250",
            ],
        ),
        // a wrong name is said once, not once per link
        row(
            "slices:\n- name: a\n  vms:\n  - {name: Web, data_interfaces_count: 1}\n  - {name: db, data_interfaces_count: 1}\n  links: [[web.eth1, db.eth1]]\n",
            &["4:12: \"Web\" is not a name: write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end"],
        ),
        // syntax
        row(
            "slices:\n\t- name: a\n\t- name: b\n",
            &[
                "2:1: a tab indents this line: write spaces: YAML does not take tabs here",
                "3:1: a tab indents this line: write spaces: YAML does not take tabs here",
            ],
        ),
        row(
            "slices: *nobody\n",
            &["1:9: nothing above is named &nobody: write &nobody where it is defined"],
        ),
        row(
            "slices: &a [*a]\n",
            &["1:13: this alias stands within what it names: write the value out"],
        ),
    ]
}

#[test]
fn a_wrong_file_is_told_where_and_what_to_write_instead() {
    let mut differ = String::new();
    for (text, expected) in wrong_files() {
        let said = said(&text);
        if said != expected {
            differ += &format!("{text}\n  said:     {said:#?}\n  expected: {expected:#?}\n");
        }
    }
    assert!(differ.is_empty(), "{differ}");
}
