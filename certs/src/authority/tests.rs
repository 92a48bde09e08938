#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::ServerConfig;
use tempfile::TempDir;

use super::*;
use crate::{Bundle, BundleError, Reloader, TlsError, client_config, server_config};

const DOMAIN: &str = "trunkline.local";

fn authority() -> (TempDir, Authority) {
    let dir = TempDir::new().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), DOMAIN).unwrap();
    (dir, authority)
}

fn leaf(role: Role, name: &str) -> Leaf {
    let dns = if role == Role::Controller {
        vec!["localhost".to_owned()]
    } else {
        Vec::new()
    };
    Leaf {
        role,
        name: name.to_owned(),
        dns,
        ips: Vec::new(),
        days: DEFAULT_DAYS,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn now() -> i64 {
    sign::unix(SystemTime::now())
}

#[test]
fn files_are_private() {
    let (dir, authority) = authority();
    authority
        .issue(&leaf(Role::Worker, "w1"), &dir.path().join("w1"))
        .unwrap();
    for file in [
        "ca/ca.pem",
        "ca/ca.key",
        "ca/issued.txt",
        "w1/ca.pem",
        "w1/cert.pem",
        "w1/key.pem",
    ] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    for directory in ["ca", "w1"] {
        assert_eq!(mode(&dir.path().join(directory)), 0o700, "{directory}");
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "temporary files stayed behind"
    );
}

#[test]
fn every_role_gets_a_bundle_that_loads_as_itself() {
    let (dir, authority) = authority();
    for role in Role::ALL {
        let out = dir.path().join(role.as_str());
        authority.issue(&leaf(role, "x1"), &out).unwrap();
        let bundle = Bundle::load(&out).unwrap();
        assert_eq!(bundle.identity(), &Identity::new(DOMAIN, role, "x1").unwrap());
        assert_eq!(server_config(&bundle).is_ok(), role == Role::Controller);
        assert_eq!(client_config(&bundle).is_ok(), role != Role::Controller);
    }
}

#[test]
fn lifetimes_are_sane() {
    let (dir, authority) = authority();
    let ten_years = sign::days(3650);
    assert!((authority.not_after_unix() - now() - ten_years).abs() < 60);
    let facts = authority
        .issue(&leaf(Role::Worker, "w1"), &dir.path().join("w1"))
        .unwrap();
    assert!((facts.not_after - now() - sign::days(365)).abs() < 60);
    assert!(
        (now() - facts.not_before - 300).abs() < 60,
        "not five minutes of clock skew"
    );
}

#[test]
fn usages_keep_servers_and_clients_apart() {
    let (dir, authority) = authority();
    for role in [Role::Controller, Role::Worker] {
        let out = dir.path().join(role.as_str());
        authority.issue(&leaf(role, "x"), &out).unwrap();
        let der = CertificateDer::from_pem_file(out.join(CERT_FILE)).unwrap();
        let (_, x509) = X509Certificate::from_der(&der).unwrap();
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert_eq!(
            (usage.server_auth, usage.client_auth),
            (role == Role::Controller, role != Role::Controller)
        );
        assert!(!x509.is_ca());
    }
    let der = CertificateDer::from_pem_file(dir.path().join("ca/ca.pem")).unwrap();
    let (_, x509) = X509Certificate::from_der(&der).unwrap();
    let constraints = x509.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    assert!(x509.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn serials_differ() {
    let (dir, authority) = authority();
    let one = authority
        .issue(&leaf(Role::Worker, "w1"), &dir.path().join("1"))
        .unwrap();
    let two = authority
        .issue(&leaf(Role::Worker, "w1"), &dir.path().join("2"))
        .unwrap();
    assert_ne!(one.serial, two.serial);
    let journal = fs::read_to_string(dir.path().join("ca/issued.txt")).unwrap();
    assert!(
        journal.contains(&one.serial) && journal.contains(&two.serial),
        "{journal}"
    );
}

#[test]
fn a_second_authority_is_refused_and_the_first_stays() {
    let (dir, _) = authority();
    let before = fs::read(dir.path().join("ca/ca.key")).unwrap();
    let error = Authority::create(&dir.path().join("ca"), DOMAIN).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
    assert_eq!(fs::read(dir.path().join("ca/ca.key")).unwrap(), before);
}

#[test]
fn a_directory_in_use_is_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("home");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes"), "x").unwrap();
    assert!(matches!(Authority::create(&out, DOMAIN), Err(AuthorityError::File(_))));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "temporary files stayed behind"
    );
}

#[test]
fn an_existing_bundle_is_only_replaced_on_request_and_by_the_same_holder() {
    let (dir, authority) = authority();
    let out = dir.path().join("w1");
    let first = authority.issue(&leaf(Role::Worker, "w1"), &out).unwrap();
    assert!(matches!(
        authority.issue(&leaf(Role::Worker, "w1"), &out),
        Err(AuthorityError::BundleExists(_))
    ));
    assert!(matches!(
        authority.renew(&leaf(Role::Worker, "w2"), &out),
        Err(AuthorityError::NotTheSame { .. })
    ));
    let second = authority.renew(&leaf(Role::Worker, "w1"), &out).unwrap();
    assert_ne!(first.serial, second.serial);
    assert_eq!(Bundle::load(&out).unwrap().certificate().serial, second.serial);
    assert_eq!(mode(&out.join(KEY_FILE)), 0o600);
}

#[test]
fn only_a_controller_has_addresses() {
    let (dir, authority) = authority();
    let out = dir.path().join("x");
    let mut nameless = leaf(Role::Controller, "c1");
    nameless.dns.clear();
    assert!(matches!(authority.issue(&nameless, &out), Err(AuthorityError::NoNames)));
    let mut named = leaf(Role::Worker, "w1");
    named.ips.push([127, 0, 0, 1].into());
    assert!(matches!(
        authority.issue(&named, &out),
        Err(AuthorityError::Names(Role::Worker))
    ));
    let mut wild = leaf(Role::Controller, "c1");
    wild.dns.push("*.example.org".to_owned());
    assert!(matches!(authority.issue(&wild, &out), Err(AuthorityError::Dns(_))));
    assert!(!out.exists());
}

#[test]
fn validity_has_bounds() {
    let (dir, authority) = authority();
    for days in [0, MAX_DAYS + 1, u32::MAX] {
        let bad = Leaf {
            days,
            ..leaf(Role::Worker, "w1")
        };
        assert!(matches!(
            authority.issue(&bad, &dir.path().join("x")),
            Err(AuthorityError::Days(_))
        ));
    }
}

#[test]
fn bad_names_are_refused() {
    let (dir, authority) = authority();
    for name in ["", "..", "a/b", "W1", "-w", "w\n", &"w".repeat(33)] {
        let bad = leaf(Role::Worker, name);
        assert!(
            matches!(
                authority.issue(&bad, &dir.path().join("x")),
                Err(AuthorityError::Identity(_))
            ),
            "{name:?}"
        );
    }
    for domain in ["", "Big.org", "a/b", "a b", "x:1"] {
        assert!(
            Authority::create(&dir.path().join("other"), domain).is_err(),
            "{domain:?}"
        );
    }
}

#[test]
fn bundle_with_a_readable_key_is_refused() {
    let (dir, authority) = authority();
    let out = dir.path().join("w1");
    authority.issue(&leaf(Role::Worker, "w1"), &out).unwrap();
    fs::set_permissions(out.join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
    let error = Bundle::load(&out).unwrap_err();
    assert!(matches!(error, BundleError::KeyExposed { mode: 0o640, .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn bundle_with_a_foreign_key_is_refused() {
    let (dir, authority) = authority();
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    authority.issue(&leaf(Role::Worker, "w1"), &one).unwrap();
    authority.issue(&leaf(Role::Worker, "w1"), &two).unwrap();
    fs::copy(two.join(KEY_FILE), one.join(KEY_FILE)).unwrap();
    assert!(matches!(Bundle::load(&one), Err(BundleError::KeyMismatch { .. })));
}

#[test]
fn bundle_with_a_foreign_authority_is_refused() {
    let (dir, authority) = authority();
    Authority::create(&dir.path().join("other"), DOMAIN).unwrap();
    for role in [Role::Worker, Role::Controller] {
        let out = dir.path().join(role.as_str());
        authority.issue(&leaf(role, "x"), &out).unwrap();
        fs::copy(dir.path().join("other/ca.pem"), out.join(CA_FILE)).unwrap();
        assert!(matches!(Bundle::load(&out), Err(BundleError::Chain { .. })), "{role}");
    }
}

#[test]
fn bundle_out_of_time_is_refused() {
    let (dir, authority) = authority();
    let identity = Identity::new(DOMAIN, Role::Worker, "w1").unwrap();
    let short = Leaf {
        days: 1,
        ..leaf(Role::Worker, "w1")
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let put = |name: &str, at| {
        authority
            .issue_odd(&identity, &short, ClientAuth, at, &dir.path().join(name))
            .unwrap()
    };
    put("old", SystemTime::now() - 2 * day);
    put("new", SystemTime::now() + 2 * day);
    let old = Bundle::load(&dir.path().join("old")).unwrap_err();
    assert!(
        matches!(old, BundleError::Expired { .. }) && old.to_string().contains("--replace"),
        "{old}"
    );
    assert!(matches!(
        Bundle::load(&dir.path().join("new")),
        Err(BundleError::NotYetValid { .. })
    ));
}

#[test]
fn bundle_for_another_use_than_its_role_is_refused() {
    let (dir, authority) = authority();
    let identity = Identity::new(DOMAIN, Role::Worker, "w1").unwrap();
    let out = dir.path().join("w1");
    authority
        .issue_odd(
            &identity,
            &leaf(Role::Worker, "w1"),
            ServerAuth,
            SystemTime::now(),
            &out,
        )
        .unwrap();
    assert!(matches!(Bundle::load(&out), Err(BundleError::Chain { .. })));
}

#[test]
fn a_missing_or_empty_file_is_named() {
    let (dir, authority) = authority();
    for file in [CA_FILE, CERT_FILE, KEY_FILE] {
        let out = dir.path().join(format!("without-{file}"));
        authority.issue(&leaf(Role::Worker, "w1"), &out).unwrap();
        fs::write(out.join(file), "").unwrap();
        let empty = Bundle::load(&out).unwrap_err();
        assert!(
            matches!(empty, BundleError::Pem { .. }) && empty.to_string().contains(file),
            "{empty}"
        );
        fs::remove_file(out.join(file)).unwrap();
        let missing = Bundle::load(&out).unwrap_err();
        assert!(
            matches!(missing, BundleError::Read { .. }) && missing.to_string().contains(file),
            "{missing}"
        );
    }
}

#[test]
fn reloader_takes_a_renewed_bundle() {
    let (dir, authority) = authority();
    let out = dir.path().join("c1");
    authority
        .issue(
            &Leaf {
                days: 10,
                ..leaf(Role::Controller, "c1")
            },
            &out,
        )
        .unwrap();
    let reloader = Reloader::<ServerConfig>::server(&out).unwrap();
    assert!(!reloader.check(), "nothing changed");
    let before = reloader.current();
    authority
        .renew(
            &Leaf {
                days: 20,
                ..leaf(Role::Controller, "c1")
            },
            &out,
        )
        .unwrap();
    assert!(reloader.check());
    assert!(!reloader.check(), "nothing changed again");
    assert_eq!(
        reloader.current().not_after_unix - before.not_after_unix,
        sign::days(10)
    );
}

#[test]
fn reloader_keeps_the_old_bundle_while_the_new_one_is_bad() {
    let (dir, authority) = authority();
    let (out, other) = (dir.path().join("c1"), dir.path().join("c2"));
    authority.issue(&leaf(Role::Controller, "c1"), &out).unwrap();
    authority.issue(&leaf(Role::Controller, "c2"), &other).unwrap();
    let reloader = Reloader::<ServerConfig>::server(&out).unwrap();
    let before = reloader.current();
    fs::copy(other.join(KEY_FILE), out.join(KEY_FILE)).unwrap();
    assert!(!reloader.check(), "a key that does not fit was taken");
    fs::copy(other.join(CERT_FILE), out.join(CERT_FILE)).unwrap();
    assert!(!reloader.check(), "another identity was taken");
    fs::remove_file(out.join(CA_FILE)).unwrap();
    assert!(!reloader.check(), "a bundle without authority was taken");
    assert!(std::sync::Arc::ptr_eq(&before.config, &reloader.current().config));
}

#[test]
fn reloader_does_not_start_without_a_good_bundle() {
    let (dir, authority) = authority();
    assert!(matches!(
        Reloader::server(dir.path().join("none")),
        Err(TlsError::Bundle(_))
    ));
    let out = dir.path().join("w1");
    authority.issue(&leaf(Role::Worker, "w1"), &out).unwrap();
    assert!(matches!(Reloader::server(&out), Err(TlsError::NotController(_))));
}

#[test]
fn authority_with_a_foreign_key_is_not_opened() {
    let (dir, _) = authority();
    Authority::create(&dir.path().join("other"), DOMAIN).unwrap();
    fs::copy(dir.path().join("other/ca.key"), dir.path().join("ca/ca.key")).unwrap();
    assert!(matches!(
        Authority::open(&dir.path().join("ca")),
        Err(AuthorityError::Broken { .. })
    ));
}
