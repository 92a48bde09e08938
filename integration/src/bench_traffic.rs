//! What our flows cost honest traffic: TCP and round trips between two guests on two workers, with our flows and with one
//! NORMAL flow in their place, in turn, on one fleet.
//!
//! A comparison for a person, not a test: on a busy machine the spread says how far the medians can be trusted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::LabError;
use crate::demo::{Fleet, start_guests};
use crate::guest::Guest;
use crate::lab::{AGENT_PROGRAM, Host, Lab, Options};
use crate::program::console::{say_line, tell};
use crate::program::supervise::end_on_signal;

const PORT: u16 = 5201;
const CHUNK: usize = 128 << 10;
const PING: [u8; 64] = [7; 64];
const PINGS: u32 = 2000;
const LEASE_LIMIT: Duration = Duration::from_secs(60);
/// Nothing was heard for so long: the path is dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Before each measure: what the switch learns and caches at first is no part of it.
const WARM_UP: Duration = Duration::from_millis(300);
/// Where a switch's host keeps the flows.
const OURS: &str = "/run/bench-ours.flows";
const NORMAL: &str = "/run/bench-normal.flows";

#[derive(Debug, Default, Serialize)]
struct Measured {
    /// Of TCP, one way.
    megabits_per_second: Vec<f64>,
    /// Of 64 bytes there and back by TCP, each the median of many.
    round_trip_microseconds: Vec<f64>,
}

/// Measures and prints.
pub fn run(rounds: u16, seconds: u16, port_security: bool, as_json: bool) -> Result<(), LabError> {
    end_on_signal()?;
    let lab = Lab::start(&Options::default())?;
    let fleet = Fleet::connect(&lab)?;
    fleet.await_nodes()?;
    fleet.apply(&topology(port_security), "bench.yaml")?;
    let guests = start_guests(&lab, &fleet.api().slices()?, &[])?;
    let find = |name: &str| {
        let found = guests.get(name);
        found.ok_or_else(|| LabError::Other(format!("no guest of {name} runs")))
    };
    let (left, right) = (find("bench/left")?, find("bench/right")?);
    left.await_lease("eth1", LEASE_LIMIT)?;
    let address = right.await_lease("eth1", LEASE_LIMIT)?.address;
    let hosts = keep_flows(&lab)?;
    let listener = right.tcp_listen(PORT)?;
    let (mut ours, mut normal) = (Measured::default(), Measured::default());
    for round in 1..=rounds {
        // Who goes first changes from round to round, so that a slow drift of the machine is on neither side.
        let mut order = [(OURS, &mut ours), (NORMAL, &mut normal)];
        if round % 2 == 0 {
            order.reverse();
        }
        for (flows, measured) in order {
            install(&hosts, flows)?;
            stream(left, &listener, address, WARM_UP)?;
            let length = Duration::from_secs(seconds.into());
            measured
                .megabits_per_second
                .push(stream(left, &listener, address, length)?);
            measured
                .round_trip_microseconds
                .push(round_trip(left, &listener, address)?);
        }
        tell(&format!("round {round} of {rounds}"));
    }
    print(&ours, &normal, as_json)
}

fn topology(port_security: bool) -> String {
    let option = if port_security {
        "        port_security: true\n"
    } else {
        ""
    };
    format!(
        "slices:\n  - name: bench\n    vms:\n      - {{ name: left, worker: w1, data_interfaces_count: 1 }}\n      \
         - {{ name: right, worker: w2, data_interfaces_count: 1 }}\n    links:\n      - name: link\n{option}        \
         ends: [left.eth1, right.eth1]\n"
    )
}

/// Writes down both workers' flows. Their agents end first: they would put back what is taken away here.
fn keep_flows(lab: &Lab) -> Result<Vec<Arc<Host>>, LabError> {
    let mut hosts = Vec::new();
    for worker in lab.layout().workers() {
        lab.kill_daemon(&worker, AGENT_PROGRAM)?;
        let host = lab.host(&worker)?;
        let flows = host.must(&ofctl(&["--no-stats", "dump-flows", "br-int"]))?;
        tell(&format!(
            "{worker} has {} flows",
            flows.lines().filter(|line| line.contains("actions=")).count()
        ));
        let write = |path: &str, text: &str| {
            let path = host.path(path);
            std::fs::write(&path, text).map_err(LabError::io(format!("cannot write {}", path.display())))
        };
        write(OURS, &flows)?;
        write(NORMAL, "actions=NORMAL\n")?;
        hosts.push(Arc::clone(host));
    }
    Ok(hosts)
}

fn install(hosts: &[Arc<Host>], flows: &str) -> Result<(), LabError> {
    let install = |host: &Arc<Host>| host.must(&ofctl(&["replace-flows", "br-int", flows])).map(drop);
    hosts.iter().try_for_each(install)
}

/// A version of the protocol that knows limits.
fn ofctl<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [
        &["ovs-ofctl", "--timeout=10", "-O", "OpenFlow13,OpenFlow14,OpenFlow15"],
        arguments,
    ]
    .concat()
}

fn pair(from: &Guest, listener: &TcpListener, to: Ipv4Addr) -> Result<(TcpStream, TcpStream), LabError> {
    let here = from.tcp_open(to, PORT)?;
    let (there, _) = listener.accept().map_err(LabError::io("nobody called"))?;
    for stream in [&here, &there] {
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(SILENCE)))
            .and_then(|()| stream.set_write_timeout(Some(SILENCE)));
        set.map_err(LabError::io("cannot set up a connection"))?;
    }
    Ok((here, there))
}

/// Megabits a second that came in.
fn stream(from: &Guest, listener: &TcpListener, to: Ipv4Addr, length: Duration) -> Result<f64, LabError> {
    let (mut here, mut there) = pair(from, listener, to)?;
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        let chunk = vec![0; CHUNK];
        while start.elapsed() < length && here.write_all(&chunk).is_ok() {}
    });
    let (mut total, mut chunk) = (0_u64, vec![0; CHUNK]);
    loop {
        match there.read(&mut chunk).map_err(LabError::io("the stream broke off"))? {
            0 => break,
            length => total += length as u64,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let _ = sender.join();
    Ok(total as f64 * 8.0 / seconds / 1e6)
}

/// Median of many, in microseconds.
fn round_trip(from: &Guest, listener: &TcpListener, to: Ipv4Addr) -> Result<f64, LabError> {
    let (mut here, mut there) = pair(from, listener, to)?;
    let echo = std::thread::spawn(move || {
        let mut ping = PING;
        while there.read_exact(&mut ping).is_ok() && there.write_all(&ping).is_ok() {}
    });
    let broke = || LabError::io("the echo broke off");
    let (mut times, mut ping) = (Vec::new(), PING);
    for _ in 0..PINGS {
        let start = Instant::now();
        here.write_all(&ping).map_err(broke())?;
        here.read_exact(&mut ping).map_err(broke())?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(here);
    let _ = echo.join();
    Ok(median(&times))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        Some(upper) if values.len().is_multiple_of(2) => {
            let lower = middle.checked_sub(1).and_then(|lower| values.get(lower));
            (upper + lower.unwrap_or(upper)) / 2.0
        }
        Some(upper) => *upper,
        None => f64::NAN,
    }
}

fn print(ours: &Measured, normal: &Measured, as_json: bool) -> Result<(), LabError> {
    let speed = median(&ours.megabits_per_second) / median(&normal.megabits_per_second);
    // More is better on both: what NORMAL takes, in parts of what ours take.
    let latency = median(&normal.round_trip_microseconds) / median(&ours.round_trip_microseconds);
    if as_json {
        let value = serde_json::json!({
            "ours": ours, "normal": normal, "throughput_ratio": speed, "latency_ratio": latency,
        });
        return say_line(&format!("{value:#}"));
    }
    let spread = |values: &[f64]| {
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = values.iter().copied().fold(0.0, f64::max);
        format!("{:.0} ({lowest:.0} to {highest:.0})", median(values))
    };
    let mut table = crate::program::table(&["", "OUR FLOWS", "NORMAL", "RATIO"]);
    let row = |name: &str, ours: &[f64], normal: &[f64], ratio: f64| {
        [name.to_owned(), spread(ours), spread(normal), format!("{ratio:.3}")]
    };
    let (of_ours, of_normal) = (&ours.megabits_per_second, &normal.megabits_per_second);
    table.add_row(row("TCP, Mbit/s", of_ours, of_normal, speed));
    let (of_ours, of_normal) = (&ours.round_trip_microseconds, &normal.round_trip_microseconds);
    table.add_row(row("round trip, microseconds", of_ours, of_normal, latency));
    say_line(&format!(
        "{table}\n\nMedian (lowest to highest); a ratio of 1 is no cost, below 1 is slower."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
