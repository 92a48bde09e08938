//! The daemons' metrics: there, well made, on loopback only, and of a size that does not depend on what is deployed.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trunkline_integration::lab::Lab;
use trunkline_integration::lab::layout::{CONTROLLER, CONTROLLER_ADDRESS, NETNODE};

use crate::looks::on;
use crate::support::{apply, must_trunkctl, scrape, with_two_slices};

/// Each kind of daemon: its host, its port, its program.
const DAEMONS: [(&str, u16, &str); 3] = [
    (CONTROLLER, 9464, "trunkline-controller"),
    ("w1", 9465, "trunkline-agent"),
    (NETNODE, 9466, "trunkline-netnode"),
];

/// The value of a metric without labels, or with exactly these.
pub(crate) fn value(lab: &Lab, host: &str, series: &str) -> f64 {
    let text = scrape(lab, host);
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let found = found.unwrap_or_else(|| panic!("{host} has no {series}:\n{text}"));
    found.trim().parse().unwrap()
}

/// Every series without its value.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// What Debian's `promtool check metrics` says; nothing, when all is well.
fn promtool(text: &str) -> String {
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!(
        "{}{}",
        String::from_utf8_lossy(&said),
        if output.status.success() { "" } else { "and failed" }
    )
}

/// A slice that has every kind of resource, as the demo's slices have.
fn another(name: &str) -> String {
    format!(
        "slices:
  - name: {name}
    vms:
      - {{ name: a, worker: w1, internet_enabled: true, data_interfaces_count: 1 }}
      - {{ name: b, worker: w2, data_interfaces_count: 1 }}
    links: [[a.eth1, b.eth1]]
"
    )
}

#[test]
fn metrics_are_well_made_on_loopback_only_and_do_not_grow_with_slices() {
    let lab = with_two_slices();
    // Once each of what is done again below, so that its calls are counted already.
    apply(&lab, &another("more-0"));
    must_trunkctl(&lab, &["status"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for (host, _, program) in DAEMONS {
        let served = scrape(&lab, host);
        assert_eq!(promtool(&served), "", "of {program}:\n{served}");
        assert!(
            served.contains(&format!("trunkline_build_info{{program=\"{program}\"")),
            "{served}"
        );
        let expiry = value(&lab, host, "trunkline_certificate_expiry_timestamp_seconds");
        let days = (expiry - now) / 86_400.0;
        assert!(
            (29.0..31.0).contains(&days),
            "{program}'s certificate ends in {days} days"
        );
    }

    for (host, port, program) in DAEMONS {
        let sockets = on(&lab, host, &["ss", "-Hltn", &format!("sport = :{port}")]);
        assert!(sockets.contains(&format!("127.0.0.1:{port}")), "{sockets}");
        assert_eq!(
            sockets.lines().count(),
            1,
            "{program} serves metrics elsewhere, too: {sockets}"
        );
    }
    let elsewhere = SocketAddr::from((CONTROLLER_ADDRESS, 9464));
    let knock = move || TcpStream::connect_timeout(&elsewhere, Duration::from_secs(5)).is_ok();
    assert!(
        !lab.host(NETNODE).unwrap().run(knock).unwrap(),
        "another host reads the controller's metrics"
    );

    let before = DAEMONS.map(|(host, ..)| series(&scrape(&lab, host)));
    for number in 1..=4 {
        apply(&lab, &another(&format!("more-{number}")));
    }
    must_trunkctl(&lab, &["status"]);
    for ((host, _, program), before) in DAEMONS.into_iter().zip(before) {
        let after = series(&scrape(&lab, host));
        let new: Vec<_> = after.difference(&before).collect();
        assert!(new.is_empty(), "{program} has series that come with slices: {new:#?}");
        let named = ["more-", "blue", "green", "tap_", "vlan1"];
        let leak = after
            .iter()
            .find(|series| named.iter().any(|part| series.contains(part)));
        assert_eq!(leak, None, "{program} labels by what is deployed");
    }
}
