//! What the host's own network stack hears of guests: nothing, while the switch hears all.

use std::{
    io::{ErrorKind, Read, Write},
    net::UdpSocket,
};

use trunkline_proto::{Mac, VmId};

use super::*;

/// A UDP datagram from 0.0.0.0 to port 5555 in a frame of a guest.
fn datagram(from: [u8; 6], to: [u8; 4], text: u8) -> Vec<u8> {
    let mac: [u8; 6] = match to {
        [224, a, b, c] => [1, 0, 0x5e, a, b, c],
        _ => [0xff; 6],
    };
    let mut head = [&[0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0][..], &to].concat();
    let sum: u32 = head
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    head[10..12].copy_from_slice(&check.to_be_bytes());
    let ports = [
        5555_u16.to_be_bytes(),
        5555_u16.to_be_bytes(),
        26_u16.to_be_bytes(),
        [0, 0],
    ]
    .concat();
    [&mac[..], &from, &[8, 0], &head, &ports, &[text; 18]].concat()
}

const TO_ALL: [[u8; 4]; 3] = [[255; 4], [224, 0, 0, 1], [0; 4]];

/// The MAC that `port` gives.
fn mac(id: u32) -> [u8; 6] {
    Mac::of_interface(VmId::try_from(id).unwrap(), 1).octets()
}

fn table() -> String {
    run("nft", &["list", "ruleset"])
}

/// What the host hears until a datagram of a device that is not shut comes.
fn heard_by(host: &UdpSocket, open: &mut std::fs::File) -> Vec<u8> {
    open.write_all(&datagram([2, 0, 0, 0, 0, 9], [255; 4], b'.')).unwrap();
    let mut heard = Vec::new();
    let mut text = [0; 100];
    loop {
        assert_ne!(host.recv(&mut text).expect("the host hears an open device"), 0);
        if text[0] == b'.' {
            return heard;
        }
        heard.push(text[0]);
    }
}

#[test]
fn the_hosts_own_stack_hears_nothing_of_a_guest_and_the_switch_everything() {
    alone(async || {
        let mut host = Host::new().await;
        host.alive_every = Duration::from_secs(600);
        let all = [
            port(1001, 110),
            port(1002, 110),
            port(1003, 111),
            trunk(&[110]),
            flows(110),
        ];
        // One reaches nothing at all.
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        session
            .reports_until(|s| s.is_ready(&all[0]) && s.is_ready(&all[1]) && s.clean_generation == 1)
            .await;

        let listener = UdpSocket::bind("0.0.0.0:5555").unwrap();
        listener.set_read_timeout(Some(SOON)).unwrap();
        let mut open = tun::tap("open");
        let (mut one, mut two, mut none) = (
            tun::tap("tap_1001_eth1"),
            tun::tap("tap_1002_eth1"),
            tun::tap("tap_1003_eth1"),
        );
        for (at, to) in (b'1'..).zip(TO_ALL) {
            one.write_all(&datagram(mac(1001), to, at)).unwrap();
            none.write_all(&datagram(mac(1003), to, b'x')).unwrap();
            let wanted = datagram(mac(1001), to, at);
            eventually("the switch forwards it", async || {
                let mut frame = vec![0; 2000];
                match two.read(&mut frame) {
                    Ok(size) if frame[..size] == wanted => Ok(()),
                    Ok(size) => Err(format!("{size} bytes of something else")),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Err("nothing".to_owned()),
                    Err(error) => panic!("{error}"),
                }
            })
            .await;
        }
        assert_eq!(heard_by(&listener, &mut open), b"");

        // Without its chain the host would hear: so this test can fail.
        agent.stop().await;
        run("nft", &["flush", "ruleset"]);
        for to in TO_ALL {
            none.write_all(&datagram(mac(1003), to, b'x')).unwrap();
        }
        assert!(!heard_by(&listener, &mut open).is_empty());
    });
}

#[test]
fn a_chain_comes_with_its_tap_goes_with_it_and_is_back_at_once() {
    alone(async || {
        let mut host = Host::new().await;
        // Looks of its own come too seldom to be what mends it.
        host.alive_every = Duration::from_secs(600);
        let all = [port(1001, 110), port(1002, 110), trunk(&[110]), flows(110)];
        let others = "add table netdev other\nadd table inet trunkline-agent\n";
        std::fs::write("/run/others.nft", others).unwrap();
        run("nft", &["-f", "/run/others.nft"]);
        let before_us = table();
        let (agent, mut session) = host.with(&all).await;
        let before = table();
        assert_eq!(before.matches("policy drop").count(), 2, "{before}");

        let chain = "netdev trunkline-agent tap_1001_eth1";
        for (break_it, words) in [
            ("flush ruleset".to_owned(), "the TAP's nftables chain was gone"),
            (format!("delete chain {chain}"), "the TAP's nftables chain was gone"),
            (
                format!("add chain {chain} {{ policy accept; }}"),
                "the TAP's nftables chain was changed",
            ),
            (
                format!("add rule {chain} accept"),
                "the TAP's nftables chain was changed",
            ),
        ] {
            std::fs::write("/run/break.nft", &break_it).unwrap();
            run("nft", &["-f", "/run/break.nft"]);
            session
                .reports_until(|s| s.is_repaired("port tap_1001_eth1", words))
                .await;
            let chains = table().matches("policy drop").count();
            assert_eq!(
                (chains, table().contains("accept")),
                (2, false),
                "after {break_it}: {}",
                table()
            );
        }
        run("nft", &["-f", "/run/others.nft"]);

        // A TAP that is made anew is shut anew.
        run("ip", &["link", "del", "tap_1001_eth1"]);
        session
            .reports_until(|s| s.is_repaired("port tap_1001_eth1", "the TAP was gone"))
            .await;
        assert_eq!(table().matches("policy drop").count(), 2);

        let fewer = [all[0].clone(), trunk(&[110]), flows(110)];
        session.update(update(1, 2, &all, &fewer)).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        assert!(
            table().contains("tap_1001_eth1") && !table().contains("tap_1002_eth1"),
            "{}",
            table()
        );
        session.update(update(2, 3, &fewer, &[])).await;
        session.reports_until(|s| s.clean_generation == 3).await;
        assert_eq!(sorted(&table()), sorted(&before_us));
        agent.stop().await;
    });
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_strangers_table_of_our_name_is_left_alone_and_named() {
    alone(async || {
        let mut host = Host::new().await;
        run("nft", &["add", "table", "netdev", "trunkline-agent"]);
        let before = table();
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Degraded))
            .await;
        let reason = &seen.items["port tap_1001_eth1"].reason;
        assert!(
            reason.contains("table `netdev trunkline-agent` that was not made by Trunkline"),
            "{reason}"
        );
        assert_eq!(table(), before);
        run("nft", &["delete", "table", "netdev", "trunkline-agent"]);
        session.reports_until(|s| s.is_ready(&all[0])).await;
        agent.stop().await;
    });
}
