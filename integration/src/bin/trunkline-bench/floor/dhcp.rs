//! The network node's part of links with DHCP: one transaction, then for each VLAN a namespace, its device, its address and its
//! dnsmasq, one after the other.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trunkline_integration::LabError;
use trunkline_integration::lab::Host;

use super::database::{Database, reference};
use super::netlink::Netlink;
use super::{ALIAS, BRIDGE, DATABASE, dnsmasq, nft};
use crate::part;

const FILES: &str = "/run/bench-dhcp";
const NETNS: &str = "/run/netns";
/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// One VLAN.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) vlan: u16,
    pub(crate) gateway: Ipv4Addr,
}

impl Site {
    fn server(self) -> Ipv4Addr {
        let [first, second, third, _] = self.gateway.octets();
        Ipv4Addr::new(first, second, third, 254)
    }

    fn mac(self, last: u8) -> String {
        let [high, low] = self.vlan.to_be_bytes();
        format!("52:55:00:{high:02x}:{low:02x}:{last:02x}")
    }

    fn device(self) -> String {
        format!("dhcp_v{}", self.vlan)
    }

    fn namespace(self) -> PathBuf {
        Path::new(NETNS).join(format!("ns-bench-vlan{}", self.vlan))
    }
}

/// Makes the bridge and its uplink, which are no part of what is measured.
pub(crate) fn prepare(host: &Host) -> Result<(), LabError> {
    let mut database = Database::connect(&host.path(DATABASE))?;
    // An agent has made its own there, which forwards nothing without flows.
    database.apply(vec![
        json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}),
    ])?;
    let mut all = vec![
        json!({"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": {"name": BRIDGE, "datapath_type": "netdev",
            "ports": ["set", [["named-uuid", format!("port_{}", plain(BRIDGE))], ["named-uuid", "port_trunk0"]]]}}),
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["bridges", "insert", ["set", [["named-uuid", "bridge"]]]]]}),
    ];
    all.extend(port(BRIDGE, &json!({}), &json!({"type": "internal"})));
    all.extend(port(
        "trunk0",
        &json!({"vlan_mode": "trunk", "trunks": 4095}),
        &json!({}),
    ));
    database.apply(all).map(drop)
}

/// What it is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Make it all.
    Start,
    /// Unmake it all.
    Stop,
}

/// Does what it is asked for, and unmakes it all in the end.
pub(crate) fn run(sites: &[Site]) -> Result<(), LabError> {
    let mut servers = Vec::new();
    for directory in [NETNS, FILES] {
        std::fs::create_dir_all(directory).map_err(LabError::io("cannot make the floor's directories"))?;
    }
    part::answer(|question| {
        match question {
            Question::Start => servers = start(sites)?,
            Question::Stop => stop(sites, std::mem::take(&mut servers))?,
        }
        Ok(Value::Null)
    })?;
    stop(sites, servers)
}

fn start(sites: &[Site]) -> Result<Vec<Child>, LabError> {
    let mut database = Database::connect(Path::new(DATABASE))?;
    database.apply(rows(sites))?;
    load(&rules(sites))?;
    let home = File::open(OWN).map_err(LabError::io("cannot open the host's namespace"))?;
    let mut kernel = Netlink::route()?;
    let servers = sites.iter().map(|site| serve(*site, &mut kernel)).collect();
    setns(&home, CloneFlags::CLONE_NEWNET)?;
    servers
}

fn stop(sites: &[Site], servers: Vec<Child>) -> Result<(), LabError> {
    if servers.is_empty() {
        return Ok(());
    }
    for mut server in servers {
        let _ = server.kill();
        let _ = server.wait();
    }
    for site in sites {
        let _ = umount2(&site.namespace(), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(site.namespace());
    }
    load("delete table inet bench\n")?;
    let mut database = Database::connect(Path::new(DATABASE))?;
    let ports = database.table("Port")?;
    let kept = ports
        .iter()
        .filter(|port| [BRIDGE, "trunk0"].iter().any(|name| port["name"] == *name));
    let kept: Vec<Value> = kept.map(reference).collect();
    let keep = json!({"op": "update", "table": "Bridge", "where": [], "row": {"ports": ["set", kept]}});
    database.apply(vec![keep]).map(drop)
}

/// Nobody is let through by a gateway, and may only ping it.
fn rules(sites: &[Site]) -> String {
    let gateways: Vec<String> = sites.iter().map(|site| format!("\"gw_vlan{}\"", site.vlan)).collect();
    format!(
        "table inet bench {{\n set gateways {{ type ifname; elements = {{ {} }} }}\n\
         chain forward {{ type filter hook forward priority 0; iifname @gateways drop; oifname @gateways drop; }}\n\
         chain input {{ type filter hook input priority 0; iifname @gateways icmp type echo-request accept; iifname @gateways drop; }}\n}}\n",
        gateways.join(", ")
    )
}

/// Both ports of every VLAN, and the uplink's list.
fn rows(sites: &[Site]) -> Vec<Value> {
    let mut all = Vec::new();
    let mut names = Vec::new();
    for site in sites {
        let port = json!({"vlan_mode": "access", "tag": site.vlan, "external_ids": ["map", [[ALIAS, "bench"]]]});
        for (name, last) in [(format!("gw_vlan{}", site.vlan), 1), (site.device(), 254)] {
            let interface = json!({"type": "internal", "mac": site.mac(last), "mtu_request": 1500});
            all.extend(self::port(&name, &port, &interface));
            names.push(json!(["named-uuid", format!("port_{}", plain(&name))]));
        }
    }
    let trunks: Vec<u16> = sites.iter().map(|site| site.vlan).collect();
    all.push(
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", BRIDGE]],
        "mutations": [["ports", "insert", ["set", names]]]}),
    );
    all.push(json!({"op": "update", "table": "Port", "where": [["name", "==", "trunk0"]], "row": {"trunks": ["set", trunks]}}));
    all
}

/// A port and its interface, with the names that they have within a transaction.
fn port(name: &str, port: &Value, interface: &Value) -> [Value; 2] {
    let with = |row: &Value, more: &Value| {
        let mut row = row.clone();
        if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
            row.extend(more.clone());
        }
        row
    };
    let (of_interface, of_port) = (format!("interface_{}", plain(name)), format!("port_{}", plain(name)));
    let port = with(port, &json!({"name": name, "interfaces": ["named-uuid", of_interface]}));
    [
        json!({"op": "insert", "table": "Interface", "uuid-name": of_interface, "row": with(interface, &json!({"name": name}))}),
        json!({"op": "insert", "table": "Port", "uuid-name": of_port, "row": port}),
    ]
}

/// Without what the name of a row within a transaction may not have.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn load(rules: &str) -> Result<(), LabError> {
    let path = format!("{FILES}/rules.nft");
    std::fs::write(&path, rules).map_err(LabError::io("cannot write the floor's rules"))?;
    nft(&["-f", &path])
}

/// The thread is in the host's namespace or in an earlier site's; afterwards it is in this one's.
fn serve(site: Site, kernel: &mut Netlink) -> Result<Child, LabError> {
    let gateway = kernel.index(&format!("gw_vlan{}", site.vlan))?;
    kernel.address(&[(gateway, site.gateway, 24)])?;
    let outside = kernel.index(&site.device())?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let path = site.namespace();
    File::create(&path).map_err(LabError::io("cannot make a namespace's file"))?;
    mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    for (key, value) in [
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/conf/all/arp_ignore", "1"),
    ] {
        std::fs::write(format!("/proc/sys/net/{key}"), value).map_err(LabError::io("cannot set up a namespace"))?;
    }
    let namespace = File::open(OWN).map_err(LabError::io("cannot open a namespace"))?;
    kernel.move_to(outside, namespace.as_raw_fd())?;
    let mut inside = Netlink::route()?;
    let device = inside.index(&site.device())?;
    inside.address(&[(device, site.server(), 24)])?;
    inside.set_up(1, true)?;
    server(site)
}

fn server(site: Site) -> Result<Child, LabError> {
    let Site { vlan, gateway } = site;
    let [first, second, third, _] = gateway.octets();
    let network = format!("{first}.{second}.{third}");
    let text = format!(
        "user=root\npid-file=\nport=0\nno-resolv\nno-hosts\ninterface={}\nexcept-interface=lo\nbind-interfaces\nno-ping\nquiet-dhcp\n\
         dhcp-authoritative\ndhcp-leasefile={FILES}/{vlan}.leases\ndhcp-range={network}.10,{network}.250,255.255.255.0,3600\n\
         dhcp-option=option:router,{gateway}\ndhcp-option=option:dns-server,8.8.8.8\ndhcp-option=option:mtu,1500\n",
        site.device()
    );
    let path = format!("{FILES}/{vlan}.conf");
    std::fs::write(&path, text).map_err(LabError::io("cannot write a configuration"))?;
    dnsmasq(&path)
}
