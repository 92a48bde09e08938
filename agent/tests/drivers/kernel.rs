use std::path::Path;

use futures::future::join_all;
use ipnet::IpNet;
use nix::errno::Errno;
use tokio_util::sync::CancellationToken;
use trunkline_agent::netlink::{Handle, LinkChange, Route, TapRequest, watch, watch_rules};
use trunkline_agent::netns::{self, Namespaces};
use trunkline_agent::process::{Detached, Identity, Run, spawn_detached, stop};
use trunkline_agent::tap;

use super::stand::{LIMIT, alone, eventually, exists, netlink, run, veth};

fn tap_request(name: &str) -> TapRequest {
    TapRequest {
        name: name.to_owned(),
        alias: tap::ALIAS.to_owned(),
        mtu: 1400,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_tap_is_made_marked_shielded_up_and_persistent() {
    alone(|| async {
        let netlink = netlink();
        for result in netlink.create_taps(&[tap_request("tap_1000_eth1")]).await {
            result.unwrap();
        }
        let link = netlink.link("tap_1000_eth1").await.unwrap().unwrap();
        assert!(tap::is_tap(&link) && link.up && link.mtu == 1400, "{link:?}");
        assert!(!link.carrier, "nobody holds it open: {link:?}");
        assert!(run("ip", &["-d", "link", "show", "tap_1000_eth1"]).contains("persist on"));
        for (key, value) in [
            ("ipv4/conf/tap_1000_eth1/arp_ignore", "8"),
            ("ipv6/conf/tap_1000_eth1/disable_ipv6", "1"),
        ] {
            assert_eq!(netns::read_sysctl(None, &format!("net/{key}")).await.unwrap(), value);
        }
    });
}

#[test]
fn a_tap_of_a_name_that_is_taken_fails_and_its_siblings_are_made() {
    alone(|| async {
        run("ip", &["tuntap", "add", "tap_1000_eth1", "mode", "tap"]);
        let netlink = netlink();
        let results = netlink
            .create_taps(&[
                tap_request("tap_1000_eth1"),
                tap_request("tap_1001_eth1"),
                tap_request("sixteen_bytes_16"),
            ])
            .await;
        assert!(
            results[0].is_err() && results[1].is_ok() && results[2].is_err(),
            "{results:?}"
        );
        assert_eq!(netlink.link("tap_1000_eth1").await.unwrap().unwrap().alias, None);
    });
}

#[test]
fn four_hundred_taps_are_made_and_deleted_in_batches() {
    alone(|| async {
        let netlink = netlink();
        let requests: Vec<TapRequest> = (1000..1400).map(|vm| tap_request(&format!("tap_{vm}_eth1"))).collect();
        assert!(netlink.create_taps(&requests).await.iter().all(Result::is_ok));
        let links = netlink.links().await.unwrap();
        let indexes: Vec<u32> = links
            .iter()
            .filter(|link| tap::is_tap(link))
            .map(|link| link.index)
            .collect();
        assert_eq!(indexes.len(), 400);
        let started = std::time::Instant::now();
        netlink.delete_many(&indexes).await.unwrap();
        // One by one they take 19 ms each.
        assert!(started.elapsed().as_secs_f32() < 4.0, "{:?}", started.elapsed());
        assert!(!netlink.links().await.unwrap().iter().any(tap::is_tap));
        netlink.delete_many(&indexes).await.unwrap();
    });
}

#[test]
fn deleting_many_touches_no_device_of_another_group() {
    alone(|| async {
        let netlink = netlink();
        veth("other");
        run("ip", &["link", "set", "other", "group", "1"]);
        netlink
            .create_taps(&[tap_request("tap_1_eth1"), tap_request("tap_2_eth1")])
            .await;
        let links = netlink.links().await.unwrap();
        let indexes: Vec<u32> = links
            .iter()
            .filter(|link| tap::is_tap(link))
            .map(|link| link.index)
            .collect();
        netlink.delete_many(&indexes).await.unwrap();
        assert!(netlink.link("other").await.unwrap().is_some());
    });
}

#[test]
fn routes_are_seen_and_addresses_are_added_seen_and_deleted_and_repeats_are_success() {
    alone(|| async {
        veth("v0");
        let netlink = netlink();
        let index = netlink.link("v0").await.unwrap().unwrap().index;
        netlink.set_up(index).await.unwrap();
        for _ in 0..2 {
            netlink.add_address(index, net("10.64.110.1/24")).await.unwrap();
        }
        run("ip", &["route", "add", "10.99.0.0/16", "via", "10.64.110.9"]);
        let route = Route {
            destination: net("10.99.0.0/16"),
            gateway: Some("10.64.110.9".parse().unwrap()),
            output: Some(index),
            table: Route::MAIN,
        };
        assert!(netlink.routes().await.unwrap().contains(&route));
        let held: Vec<IpNet> = netlink
            .addresses()
            .await
            .unwrap()
            .into_iter()
            .filter(|a| a.index == index && !a.link_local)
            .map(|a| a.net)
            .collect();
        assert_eq!(held, [net("10.64.110.1/24")]);
        assert!(run("ip", &["addr", "show", "v0"]).contains("brd 10.64.110.255"));
        for _ in 0..2 {
            netlink.delete_address(index, net("10.64.110.1/24")).await.unwrap();
        }
        for _ in 0..2 {
            netlink.delete(index).await.unwrap();
        }
        assert_eq!(netlink.set_up(index).await.unwrap_err().errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn many_requests_at_once_are_all_answered() {
    alone(|| async {
        veth("v0");
        let netlink = netlink();
        let index = netlink.link("v0").await.unwrap().unwrap().index;
        let adds = (1..=1000_u32).map(|host| {
            let netlink = netlink.clone();
            async move {
                let [_, _, c, d] = host.to_be_bytes();
                netlink.add_address(index, net(&format!("10.1.{c}.{d}/16"))).await
            }
        });
        assert!(join_all(adds).await.iter().all(Result::is_ok));
        assert_eq!(
            netlink
                .addresses()
                .await
                .unwrap()
                .iter()
                .filter(|a| a.index == index)
                .count(),
            1000
        );
    });
}

#[test]
fn changes_of_devices_and_addresses_tick() {
    alone(|| async {
        veth("v0");
        let mut ticks = watch(None, CancellationToken::new()).await.unwrap();
        ticks.mark_unchanged();
        run("ip", &["addr", "add", "10.0.0.1/24", "dev", "v0"]);
        tokio::time::timeout(LIMIT, ticks.changed()).await.unwrap().unwrap();
    });
}

#[test]
fn a_change_of_rules_or_of_forwarding_is_noticed() {
    alone(|| async {
        let mut ticks = watch_rules(CancellationToken::new()).unwrap();
        let before = run("sysctl", &["-n", "net.ipv4.ip_forward"]);
        let other = if before.trim() == "0" { "1" } else { "0" };
        let forward = format!("net.ipv4.ip_forward={other}");
        for change in [
            &["nft", "add", "table", "inet", "somebody"][..],
            &["nft", "add", "chain", "inet", "somebody", "rules"],
            &["nft", "add", "rule", "inet", "somebody", "rules", "accept"],
            &["nft", "flush", "table", "inet", "somebody"],
            &["nft", "delete", "table", "inet", "somebody"],
            &["sysctl", "-qw", &forward],
        ] {
            ticks.mark_unchanged();
            run(change[0], &change[1..]);
            let ticked = tokio::time::timeout(LIMIT, ticks.changed()).await;
            ticked.unwrap_or_else(|_| panic!("no notice of {change:?}")).unwrap();
        }
    });
}

#[test]
fn a_namespace_is_made_used_and_deleted() {
    alone(|| async {
        let namespaces = Namespaces::new("/run/marks").unwrap();
        for _ in 0..2 {
            namespaces.create("ns-dhcp-vlan110").await.unwrap();
        }
        assert!(namespaces.list().unwrap().contains("ns-dhcp-vlan110"));
        // iproute2 knows it as one of its own.
        assert!(run("ip", &["netns", "list"]).contains("ns-dhcp-vlan110"));

        let path = namespaces.path("ns-dhcp-vlan110");
        veth("dhcp_v110");
        let outer = netlink();
        let index = outer.link("dhcp_v110").await.unwrap().unwrap().index;
        outer
            .move_to_namespace(index, std::fs::File::open(&path).unwrap())
            .await
            .unwrap();
        assert!(outer.link("dhcp_v110").await.unwrap().is_none());

        let inner = Handle::in_namespace(&path).await.unwrap();
        let link = inner.link("dhcp_v110").await.unwrap().unwrap();
        let change = LinkChange {
            up: Some(true),
            mac: Some([0x52, 0x55, 0, 2, 0, 110]),
            mtu: Some(1300),
            ..LinkChange::default()
        };
        inner.change(link.index, &change).await.unwrap();
        inner.add_address(link.index, net("10.64.110.254/24")).await.unwrap();
        netns::write_sysctl(Some(&path), "net/ipv4/conf/dhcp_v110/arp_ignore", "1")
            .await
            .unwrap();
        assert_eq!(
            netns::read_sysctl(Some(&path), "net/ipv4/conf/dhcp_v110/arp_ignore")
                .await
                .unwrap(),
            "1"
        );
        let seen = Run::new("ip")
            .args(["-br", "addr"])
            .namespace(&path)
            .run()
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&seen.stdout).contains("10.64.110.254/24"));

        for _ in 0..2 {
            namespaces.delete("ns-dhcp-vlan110").await.unwrap();
        }
        assert!(!exists("/run/netns/ns-dhcp-vlan110") && namespaces.list().unwrap().is_empty());
    });
}

#[test]
fn a_strangers_namespace_is_never_claimed_or_deleted() {
    alone(|| async {
        let namespaces = Namespaces::new("/run/marks").unwrap();
        run("ip", &["netns", "add", "theirs"]);
        assert!(matches!(
            namespaces.create("theirs").await,
            Err(netns::Error::NotOurs(_))
        ));
        assert!(matches!(
            namespaces.delete("theirs").await,
            Err(netns::Error::NotOurs(_))
        ));

        // One of ours that somebody replaced by his own of the same name.
        namespaces.create("swapped").await.unwrap();
        run("ip", &["netns", "del", "swapped"]);
        run("ip", &["netns", "add", "swapped"]);
        assert!(!namespaces.is_ours("swapped"));
        assert!(namespaces.list().unwrap().is_empty());
        assert!(matches!(
            namespaces.delete("swapped").await,
            Err(netns::Error::NotOurs(_))
        ));
        assert!(exists("/run/netns/swapped"));
    });
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    alone(|| async {
        let namespaces = Namespaces::new("/run/marks").unwrap();
        for name in ["", ".", "..", "a/b", "../x"] {
            assert!(
                matches!(namespaces.create(name).await, Err(netns::Error::Name(_))),
                "{name:?}"
            );
        }
    });
}

#[test]
fn a_namespace_that_lost_its_mount_gets_its_name_back_from_a_process_in_it() {
    alone(|| async {
        let namespaces = Namespaces::new("/run/marks").unwrap();
        namespaces.create("ns-a").await.unwrap();
        namespaces.create("ns-b").await.unwrap();
        let detached = |name| Detached {
            argv: vec!["sleep".into(), "60".into()],
            namespace: Some(namespaces.path(name)),
            log: None,
        };
        let inside = spawn_detached(&detached("ns-a")).await.unwrap();
        let elsewhere = spawn_detached(&detached("ns-b")).await.unwrap();
        run("umount", &["-l", "/run/netns/ns-a"]);
        assert!(!namespaces.is_ours("ns-a"));
        assert!(namespaces.is_home_of("ns-a", inside.pid) && !namespaces.is_home_of("ns-a", elsewhere.pid));
        assert!(!namespaces.restore("ns-a", elsewhere.pid).await.unwrap());
        assert!(!namespaces.restore("ns-a", std::process::id()).await.unwrap());
        assert!(!namespaces.exists("ns-a"));
        for _ in 0..2 {
            assert!(namespaces.restore("ns-a", inside.pid).await.unwrap());
        }
        assert!(namespaces.is_ours("ns-a"));
        run("nsenter", &["--net=/run/netns/ns-a", "true"]);

        for process in [&inside, &elsewhere] {
            stop(process, LIMIT).await.unwrap();
        }
        run("umount", &["-l", "/run/netns/ns-a"]);
        assert!(!namespaces.restore("ns-a", inside.pid).await.unwrap());
    });
}

#[test]
fn a_detached_process_runs_in_its_namespace_and_logs() {
    alone(|| async {
        let namespaces = Namespaces::new("/run/marks").unwrap();
        namespaces.create("ns-a").await.unwrap();
        let path = namespaces.path("ns-a");
        let detached = Detached {
            argv: ["tail", "-f", "/nonexistent", "/dev/null"].map(Into::into).to_vec(),
            namespace: Some(path.clone()),
            log: Some("/run/tail.log".into()),
        };
        let identity = spawn_detached(&detached).await.unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        assert_eq!(
            inode(Path::new(&format!("/proc/{}/ns/net", identity.pid))),
            inode(&path)
        );
        eventually("its log", async || {
            let log = std::fs::read_to_string("/run/tail.log").unwrap();
            if log.contains("/nonexistent") { Ok(()) } else { Err(log) }
        })
        .await;
        stop(&identity, LIMIT).await.unwrap();
        namespaces.delete("ns-a").await.unwrap();
    });
}

/// Set in the process that plays the agent.
const PLAY_AGENT: &str = "TRUNKLINE_TEST_PLAY_AGENT";

#[tokio::test]
async fn a_detached_process_outlives_an_agent_that_is_killed_and_is_known_to_the_next() {
    if std::env::var_os(PLAY_AGENT).is_some() {
        let argv = ["sleep", "600"].map(Into::into).to_vec();
        let identity = spawn_detached(&Detached {
            argv,
            namespace: None,
            log: None,
        })
        .await
        .unwrap();
        println!("{}", serde_json::to_string(&identity).unwrap());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let name = "kernel::a_detached_process_outlives_an_agent_that_is_killed_and_is_known_to_the_next";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(PLAY_AGENT, "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let start = text.find('{').expect(&text);
    let identity: Identity = serde_json::from_str(text[start..].lines().next().unwrap()).unwrap();
    let alive = identity.alive();
    stop(&identity, LIMIT).await.unwrap();
    assert!(alive);
}
