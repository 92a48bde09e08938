//! Bad input over the real API: told by field, nothing stored, nothing changed on a host.

use tonic::Code;
use trunkline_integration::api::Api;
use trunkline_proto::client::{ApiError, new_request_id};
use trunkline_proto::wire::{
    AddLinkRequest, AddVmRequest, ApplySlicesRequest, InterfaceSpec, LinkSpec, SliceSpec, VmSpec,
};

use crate::dataplane::{DataPlane, await_in_step};
use crate::support::{api, with_two_slices};

fn vm(name: &str, worker: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        worker: worker.to_owned(),
        data_interfaces_count: 2,
        ..VmSpec::default()
    }
}

fn link(ends: &[&str]) -> LinkSpec {
    LinkSpec {
        ends: ends.iter().map(ToString::to_string).collect(),
        ..LinkSpec::default()
    }
}

/// `a` and `b`, joined.
fn right() -> SliceSpec {
    SliceSpec {
        name: "lab".to_owned(),
        vms: vec![vm("a", "w1"), vm("b", "w2")],
        links: vec![link(&["a.eth1", "b.eth1"])],
        vlan_pool_size: 0,
    }
}

fn interface(name: &str, mac: &str, address: &str) -> InterfaceSpec {
    InterfaceSpec {
        name: name.to_owned(),
        mac: mac.to_owned(),
        address: address.to_owned(),
    }
}

/// The error of an apply that must be refused.
fn refused(api: &Api, slice: SliceSpec, deploy: bool) -> ApiError {
    let request_id = new_request_id();
    let request = ApplySlicesRequest {
        request_id,
        slices: vec![slice],
        deploy,
        ..ApplySlicesRequest::default()
    };
    let answer = api.block_on(api.client().slices().apply_slices(request.clone()));
    ApiError::from(answer.expect_err(&format!("{request:?}")))
}

fn assert_told(error: &ApiError, code: Code, field: &str) {
    assert_eq!(error.code, code, "{field}: {error}");
    let found = error.violations.iter().find(|violation| violation.field == field);
    let found = found.unwrap_or_else(|| panic!("{field} is not among {:?}", error.violations));
    assert!(
        !found.description.is_empty() && found.description.len() < 400,
        "{found:?}"
    );
}

type Spoil = fn(&mut SliceSpec);

/// The field that is told of, and what is wrong.
const WRONG: &[(&str, Spoil)] = &[
    ("vms[2].name", |s| s.vms.push(vm("a", "w1"))),
    ("vms[0].worker", |s| s.vms[0].worker = "w9".to_owned()),
    ("vms[0].worker", |s| s.vms[0].worker = "nn".to_owned()),
    ("vms[0].data_interfaces_count", |s| s.vms[0].data_interfaces_count = 17),
    ("vms[0].interfaces[0].name", |s| {
        s.vms[0].interfaces = vec![interface("eth9", "", "")]
    }),
    // Over the 15 bytes that the kernel takes.
    ("vms[0].interfaces[0].name", |s| {
        s.vms[0].interfaces = vec![interface("eth1000000000000", "", "")]
    }),
    ("vms[0].interfaces[0].mac", |s| {
        s.vms[0].interfaces = vec![interface("eth1", "01:00:5e:00:00:01", "")]
    }),
    // That of green/right's eth1.
    ("vms[0].interfaces[0].mac", |s| {
        s.vms[0].interfaces = vec![interface("eth1", "52:54:00:03:ec:01", "")]
    }),
    ("vms[1].interfaces[0].mac", |s| {
        s.vms[0].interfaces = vec![interface("eth1", "02:00:00:00:00:01", "")];
        s.vms[1].interfaces = vec![interface("eth1", "02:00:00:00:00:01", "")];
    }),
    ("vms[0].interfaces[0].address", |s| {
        s.vms[0].interfaces = vec![interface("eth1", "", "10.1.2.3")]
    }),
    ("vms[1].interfaces[0].address", |s| {
        s.links[0].subnet = "192.168.0.0/24".to_owned();
        s.vms[0].interfaces = vec![interface("eth1", "", "192.168.0.20")];
        s.vms[1].interfaces = vec![interface("eth1", "", "192.168.0.20")];
    }),
    ("links[0].vlan", |s| s.links[0].vlan = 400),
    ("links[0].vlan", |s| s.links[0].vlan = 4095),
    ("links[0].vlan", |s| s.links[0].vlan = 5000),
    // Of the pool of slice blue.
    ("links[0].vlan", |s| s.links[0].vlan = 100),
    ("links[1].vlan", |s| {
        s.links[0].vlan = 150;
        s.links.push(LinkSpec {
            vlan: 150,
            ..link(&["a.eth2", "b.eth2"])
        });
    }),
    ("links[0].subnet", |s| s.links[0].subnet = "10.0.0.0/16".to_owned()),
    ("links[0].subnet", |s| s.links[0].subnet = "10.60.7.0/25".to_owned()),
    ("links[1].subnet", |s| {
        s.links[0].subnet = "192.168.0.0/24".to_owned();
        s.links.push(LinkSpec {
            subnet: "192.168.0.128/25".to_owned(),
            ..link(&["a.eth2", "b.eth2"])
        });
    }),
    ("links[0].ends", |s| s.links[0].ends.truncate(1)),
    ("links[0].ends[1]", |s| s.links[0].ends[1] = "a.eth1".to_owned()),
    ("links[0].ends[1]", |s| s.links[0].ends[1] = "ghost.eth1".to_owned()),
    ("links[0].ends[1]", |s| s.links[0].ends[1] = "b.eth3".to_owned()),
    ("links[0].ends[1]", |s| s.links[0].ends[1] = "b.eth0".to_owned()),
    ("links[1].ends[0]", |s| s.links.push(link(&["a.eth1", "b.eth2"]))),
];

/// What no name may be. The last but one begins with a Cyrillic letter.
fn bad_names() -> Vec<String> {
    let long = "a".repeat(65_536);
    ["", "a/b", "..", "-web", "a b", "a\nb", "a\0b", "аpp", &long]
        .map(str::to_owned)
        .into()
}

#[test]
fn bad_input_is_told_by_field_and_changes_nothing() {
    let lab = with_two_slices();
    await_in_step(&lab);
    let api = api(&lab);
    let (network, slices, revision) = (
        DataPlane::of(&lab),
        api.slices().unwrap(),
        api.status().unwrap().revision,
    );

    for (field, spoil) in WRONG {
        let mut slice = right();
        spoil(&mut slice);
        assert_told(
            &refused(&api, slice, true),
            Code::InvalidArgument,
            &format!("slices[0].{field}"),
        );
    }
    for name in bad_names() {
        let wrong = |spoil: &dyn Fn(&mut SliceSpec)| {
            let mut slice = right();
            spoil(&mut slice);
            refused(&api, slice, true)
        };
        let code = Code::InvalidArgument;
        assert_told(&wrong(&|s| s.name = name.clone()), code, "slices[0].name");
        assert_told(&wrong(&|s| s.vms.push(vm(&name, "w1"))), code, "slices[0].vms[2].name");
        assert_told(
            &wrong(&|s| s.links[0].ends[0] = format!("{name}.eth1")),
            code,
            "slices[0].links[0].ends[0]",
        );
        if !name.is_empty() {
            assert_told(
                &wrong(&|s| s.vms[0].worker = name.clone()),
                code,
                "slices[0].vms[0].worker",
            );
            assert_told(
                &wrong(&|s| s.links[0].name = name.clone()),
                code,
                "slices[0].links[0].name",
            );
        }
    }

    // All mistakes of a request at once.
    let mut many = right();
    many.name = "a/b".to_owned();
    many.vms[1].name = "..".to_owned();
    many.links[0].vlan = 4095;
    let error = refused(&api, many, false);
    for field in ["slices[0].name", "slices[0].vms[1].name", "slices[0].links[0].vlan"] {
        assert_told(&error, Code::InvalidArgument, field);
    }

    // A pool of one VLAN has none for a second link.
    let mut small = right();
    small.vlan_pool_size = 1;
    small.links.push(link(&["a.eth2", "b.eth2"]));
    let error = refused(&api, small, true);
    assert_eq!(
        (error.code, error.reason.as_deref()),
        (Code::ResourceExhausted, Some("POOL_EXHAUSTED")),
        "{error}"
    );
    assert!(!error.violations.is_empty());

    // The single calls say the same.
    let mut client = api.client().slices();
    let request = AddVmRequest {
        request_id: new_request_id(),
        slice: "green".to_owned(),
        vm: Some(vm("-x", "w1")),
        expected_revision: 0,
    };
    let error = ApiError::from(api.block_on(client.add_vm(request)).unwrap_err());
    assert_told(&error, Code::InvalidArgument, "vm.name");
    let request = AddLinkRequest {
        request_id: new_request_id(),
        slice: "green".to_owned(),
        link: Some(link(&["left.eth1"])),
        expected_revision: 0,
    };
    let error = ApiError::from(api.block_on(client.add_link(request)).unwrap_err());
    assert_told(&error, Code::InvalidArgument, "link.ends");

    assert_eq!(api.status().unwrap().revision, revision, "something was stored");
    assert_eq!(api.slices().unwrap(), slices);
    assert_eq!(DataPlane::of(&lab), network, "something was changed on a host");
}
