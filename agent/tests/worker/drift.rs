//! What is changed behind the agent's back is put right at once and told of, with its words.

use super::*;

/// Two links, so that a list can be narrowed.
fn all() -> [Envelope; 5] {
    [
        port(1001, 110),
        port(1002, 111),
        trunk(&[110, 111]),
        flows(110),
        flows(111),
    ]
}

/// What a program says; an error while what it asks is not there.
fn said(program: &str, args: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Everything that a pass leaves behind, but for numbers that the switch chose.
fn picture(host: &Host) -> Result<String, String> {
    let db = format!("--db=unix:{}", host.ovs.socket().display());
    let vsctl = |args: &[&str]| said("ovs-vsctl", &[&[db.as_str(), "--timeout=20"], args].concat());
    let text = said("ip", &["-br", "link", "show"])?;
    let links = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().split('@').next().unwrap_or_default();
        let up = line.contains(",UP") || line.contains("<UP");
        format!("{name} {up}")
    });
    let mut lines: Vec<String> = links.collect();
    for name in vsctl(&["list-ports", "br-int"])?.lines() {
        for column in ["tag", "trunks", "vlan_mode", "protected"] {
            lines.push(format!("{name} {column} {}", vsctl(&["get", "port", name, column])?));
        }
        lines.push(format!("{name} {}", vsctl(&["get", "interface", name, "error"])?));
    }
    lines.push(vsctl(&["get", "bridge", "br-int", "fail_mode"])?);
    let bridge = "unix:/run/openvswitch/br-int.mgmt";
    let flows = said("ovs-ofctl", &["-O", "OpenFlow14", "dump-flows", bridge])?;
    let flows = flows.lines().filter(|line| line.contains("actions=")).count();
    lines.push(format!("{flows} flows"));
    lines.sort();
    Ok(lines.join("\n"))
}

/// Waits for everything to be as it was.
async fn as_before(host: &Host, before: &str, what: &str) {
    eventually(what, async || match picture(host) {
        Ok(now) if now == before => Ok(()),
        now => Err(format!("{}\nbefore:\n{before}", now.unwrap_or_else(|error| error))),
    })
    .await;
}

/// Breaks things one after the other, and waits for each to be right again and told of.
async fn each_is_repaired(host: &mut Host, session: &mut Session, table: &[(&[&str], &str, &str)]) {
    let before = picture(host).unwrap();
    for (break_it, key, words) in table {
        match break_it {
            ["ovs-vsctl", args @ ..] => drop(host.ovs.vsctl(args)),
            ["ovs-ofctl", command, args @ ..] => drop(host.ofctl(command, args)),
            [program, args @ ..] => drop(run(program, args)),
            [] => unreachable!(),
        }
        println!("{break_it:?}");
        let seen = session.reports_until(|s| s.is_repaired(key, words)).await;
        println!("  {:?}", seen.repairs);
        as_before(host, &before, &format!("everything as before, after {break_it:?}")).await;
    }
}

#[test]
fn whatever_is_changed_behind_the_agents_back_is_put_right_and_told_of() {
    alone(async || {
        let mut host = Host::new().await;
        // Looks of its own come too seldom to be what mends it.
        host.alive_every = Duration::from_secs(600);
        let (agent, mut session) = host.with(&all()).await;
        let (port, uplink, rules) = ("port tap_1001_eth1", "trunk uplink", "flows flows_vlan110");
        let ours = "cookie=0x54524e4b00000001,table=3,priority=7,tcp,actions=NORMAL";
        each_is_repaired(
            &mut host,
            &mut session,
            &[
                (&["ip", "link", "del", "tap_1001_eth1"], port, "the TAP was gone"),
                (
                    &["ip", "link", "set", "tap_1001_eth1", "down"],
                    port,
                    "the TAP was down",
                ),
                (
                    &["ip", "link", "set", "tap_1001_eth1", "mtu", "1400"],
                    port,
                    "the TAP had an MTU of 1400, not 1500",
                ),
                (
                    &["ovs-vsctl", "del-port", "br-int", "tap_1001_eth1"],
                    port,
                    "the switch port was gone",
                ),
                (
                    &["ovs-vsctl", "set", "port", "tap_1001_eth1", "tag=120"],
                    port,
                    "switch port had tag 120, not 110",
                ),
                (
                    &["ovs-vsctl", "set", "port", "up0", "trunks=[]"],
                    uplink,
                    "uplink's VLAN list was empty, which means every VLAN",
                ),
                (
                    &["ovs-vsctl", "set", "port", "up0", "trunks=7"],
                    uplink,
                    "uplink's VLAN list lacked 110, 111 and had 7 too much",
                ),
                (
                    &["ovs-vsctl", "remove", "port", "up0", "trunks", "111"],
                    uplink,
                    "uplink's VLAN list lacked 111",
                ),
                (
                    &["ovs-vsctl", "del-port", "br-int", "up0"],
                    uplink,
                    "the uplink up0 was not on br-int",
                ),
                (&["ip", "link", "set", "up0", "down"], uplink, "the uplink up0 was down"),
                (
                    &["ip", "link", "set", "br-int", "up"],
                    uplink,
                    "the bridge's own device br-int was up",
                ),
                (
                    &["ovs-vsctl", "set", "bridge", "br-int", "fail_mode=standalone"],
                    uplink,
                    "the bridge br-int had fail_mode=standalone, not secure",
                ),
                (&["ovs-ofctl", "del-flows"], rules, "flows were missing"),
                (&["ovs-ofctl", "add-flow", ours], rules, "1 flow was not ours to have"),
                (&["ovs-vsctl", "emer-reset"], rules, "flows were missing"),
            ],
        )
        .await;
        agent.stop().await;
    });
}

#[test]
fn a_switch_that_lost_its_rows_or_its_database_is_rebuilt_without_ghosts() {
    alone(async || {
        let mut host = Host::new().await;
        host.alive_every = Duration::from_secs(600);
        let (agent, mut session) = host.with(&all()).await;
        let gone = "the switch port was gone";
        let before = picture(&host).unwrap();
        each_is_repaired(
            &mut host,
            &mut session,
            &[
                (&["ovs-vsctl", "del-br", "br-int"], "port tap_1001_eth1", gone),
                (
                    &["ovs-vsctl", "clear", "Open_vSwitch", ".", "bridges"],
                    "trunk uplink",
                    "the bridge br-int was gone",
                ),
            ],
        )
        .await;

        let back = async |host: &Host, session: &mut Session, what: &str| {
            session
                .reports_until(|s| s.is_repaired("port tap_1002_eth1", gone))
                .await;
            as_before(host, &before, what).await;
        };
        host.ovs.kill_vswitchd();
        host.ovs.start_vswitchd();
        session
            .reports_until(|s| s.is_repaired("flows flows_vlan110", "flows were missing"))
            .await;
        as_before(&host, &before, "rebuilt after ovs-vswitchd was killed").await;

        host.ovs.wipe().await;
        back(&host, &mut session, "rebuilt after the database was wiped").await;
        // Devices outlive a dead ovs-vswitchd; with the database gone nothing names them any more.
        host.ovs.kill_vswitchd();
        host.ovs.wipe().await;
        host.ovs.start_vswitchd();
        back(&host, &mut session, "rebuilt after both were lost").await;
        agent.stop().await;
    });
}

#[test]
fn a_change_that_was_asked_for_is_no_repair() {
    alone(async || {
        let mut host = Host::new().await;
        let first = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&first).await;
        let more = [
            port(1001, 110),
            port(1002, 112),
            port(1003, 110),
            trunk(&[110, 112]),
            flows(110),
            flows(112),
        ];
        session.update(update(1, 2, &first, &more)).await;
        let seen = session
            .reports_until(|s| {
                s.clean_generation == 2 && more.iter().filter(|e| !first.contains(e)).all(|e| s.is_ready(e))
            })
            .await;
        assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
        session.update(update(2, 3, &more, &all())).await;
        let seen = session
            .reports_until(|s| s.clean_generation == 3 && s.is_ready(&all()[1]))
            .await;
        assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
        agent.stop().await;
    });
}

#[test]
fn a_node_alone_repairs_drift_and_survives_its_own_reboot() {
    alone(async || {
        let mut host = Host::new().await;
        let (agent, session) = host.with(&all()).await;
        let before = picture(&host).unwrap();
        drop(session);
        let address = std::mem::replace(&mut host.controller, Controller::start(&host.pki).await)
            .kill()
            .await;

        let right = async |host: &Host, what: &str| {
            as_before(host, &before, what).await;
        };
        run("ip", &["link", "del", "tap_1001_eth1"]);
        host.ovs.vsctl(&["del-port", "br-int", "tap_1002_eth1"]);
        right(&host, "drift is put right without a controller").await;

        // A reboot: processes and TAPs are gone, the database is not.
        agent.kill().await;
        host.ovs.kill_vswitchd();
        host.ovs.stop_server();
        for device in ["tap_1001_eth1", "tap_1002_eth1"] {
            run("ip", &["link", "del", device]);
        }
        host.ovs.start_server().await;
        host.ovs.start_vswitchd();
        let config = NodeConfig {
            controller: trunkline_agent::config::ControllerSection {
                endpoint: format!("https://{address}"),
                server_name: None,
            },
            ..host.config()
        };
        let agent = host.agent_with(config);
        right(&host, "everything after the reboot, still without a controller").await;

        // What was done meanwhile is told once there is somebody to tell.
        let mut controller = Controller::start_on(&host.pki, address).await;
        let mut seen = Seen::default();
        while !(seen.complete && seen.is_repaired("port tap_1001_eth1", "")) {
            // A node that learns more of its switch begins a new session.
            let mut session = controller.session().await;
            session.hello().await;
            session.welcome().await;
            while let Some(message) = session.try_next().await {
                if let trunkline_proto::wire::node_message::Message::Report(report) = message {
                    seen.take(report);
                }
                if seen.complete && seen.is_repaired("port tap_1001_eth1", "") {
                    break;
                }
            }
        }
        assert!(
            seen.is_repaired("port tap_1001_eth1", "the TAP was gone"),
            "{:?}",
            seen.repairs
        );
        agent.stop().await;
    });
}

#[test]
fn frames_that_a_guest_sends_are_counted() {
    alone(async || {
        let mut host = Host::new().await;
        let all = all();
        let (agent, mut session) = host.with(&all).await;
        let counted = |s: &Seen| match s.items.get("port tap_1001_eth1").map(|o| o.facts.clone()) {
            Some(Some(Facts::Port(facts))) => facts.received,
            _ => 0,
        };
        // A guest: whoever holds the TAP open. What it writes is received by the device.
        let tap = Tap::open("tap_1001_eth1");
        for _ in 0..3 {
            tap.send(&[0xff; 60]);
        }
        let seen = session.reports_until(|s| counted(s) >= 3).await;
        assert!(seen.is_ready(&all[0]));
        agent.stop().await;
    });
}

/// A TAP held open as a guest's launcher does it.
struct Tap(std::fs::File);

impl Tap {
    fn open(name: &str) -> Self {
        use std::os::fd::AsRawFd;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .unwrap();
        tun::attach(file.as_raw_fd(), name);
        Self(file)
    }

    fn send(&self, frame: &[u8]) {
        use std::io::Write;
        (&self.0).write_all(frame).unwrap();
    }
}

#[allow(unsafe_code)]
mod tun {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

    pub(super) fn attach(fd: i32, name: &str) {
        let mut device = [0; libc::IFNAMSIZ];
        for (to, from) in device.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let request = libc::ifreq {
            ifr_name: device,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap(),
            },
        };
        // SAFETY: TUNSETIFF reads one `ifreq`, which `request` is, and keeps no pointer to it.
        unsafe { set_interface(fd, &raw const request) }.unwrap();
    }
}
