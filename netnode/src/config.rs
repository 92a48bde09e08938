//! The network node's configuration: the sections that every node has, and its own two.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::Deserialize;
use trunkline_agent::config::{ControllerSection, NodeConfig, NodeSection, SwitchSection};
use trunkline_proto::daemon::{self, ConfigError, MetricsConfig, TelemetryConfig};
use trunkline_proto::{Invalid, PortName};

/// A browser has some hundred open; a kernel that nobody tuned keeps 65,536 or 262,144 for all.
const CONNECTIONS_PER_GUEST: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");

/// The network node's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetnodeConfig {
    /// Who this node is and where it keeps things.
    pub node: NodeSection,
    /// Where the controller is.
    pub controller: ControllerSection,
    /// Open vSwitch.
    #[serde(default)]
    pub switch: SwitchSection,
    /// The way to the internet.
    #[serde(default)]
    pub nat: NatSection,
    /// dnsmasq.
    #[serde(default)]
    pub dhcp: DhcpSection,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Metrics; absent: not served.
    pub metrics: Option<MetricsConfig>,
}

/// The way to the internet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatSection {
    /// Interface that leads there.
    pub uplink: Interface,
    /// What guests may not reach through it; absent: what is next to it, and link-local addresses.
    #[serde(deserialize_with = "denied")]
    pub deny: Option<Vec<Ipv4Net>>,
    /// What they may reach all the same.
    #[serde(deserialize_with = "allowed")]
    pub allow: Vec<Ipv4Net>,
    /// How many connections each may have open.
    #[serde(deserialize_with = "connections")]
    pub connections_per_guest: NonZeroU32,
}

/// An interface's name that may stand between quotes in nftables' language.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Interface(String);

/// dnsmasq.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DhcpSection {
    /// The program.
    pub program: PathBuf,
    /// User that it runs as; absent: its package's own user, or `nobody`.
    #[serde(deserialize_with = "plain_user")]
    pub user: Option<String>,
}

impl Default for NatSection {
    fn default() -> Self {
        Self {
            uplink: Interface("ens3".to_owned()),
            deny: None,
            allow: Vec::new(),
            connections_per_guest: CONNECTIONS_PER_GUEST,
        }
    }
}

impl Interface {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Interface {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name: PortName = text.parse().map_err(|error: Invalid| error.to_string())?;
        if is_plain(name.as_str()) {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?}: write an interface of letters, digits, `_`, `-` and `.`"
            ))
        }
    }
}

impl Default for DhcpSection {
    fn default() -> Self {
        Self {
            program: "dnsmasq".into(),
            user: None,
        }
    }
}

impl NetnodeConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or a key or value is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        daemon::load(path)
    }

    /// Splits off what the runtime needs.
    pub fn split(self) -> (NodeConfig, NatSection, DhcpSection) {
        let Self {
            node,
            controller,
            switch,
            nat,
            dhcp,
            telemetry,
            metrics,
        } = self;
        (
            NodeConfig {
                node,
                controller,
                switch,
                telemetry,
                metrics,
            },
            nat,
            dhcp,
        )
    }
}

fn denied<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Ipv4Net>>, D::Error> {
    prefixes("nat.deny", deserializer).map(Some)
}

fn allowed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    prefixes("nat.allow", deserializer)
}

fn connections<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let limit = i64::deserialize(deserializer)?;
    let limit = u32::try_from(limit).ok().and_then(NonZeroU32::new);
    limit.ok_or_else(|| serde::de::Error::custom("nat.connections_per_guest: write a number from 1 on"))
}

fn prefixes<'de, D: serde::Deserializer<'de>>(key: &str, deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let wrong = |reason: String| serde::de::Error::custom(format!("{key}: {reason}"));
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| prefix(text).map_err(wrong)).collect()
}

fn prefix(text: &str) -> Result<Ipv4Net, String> {
    let prefix: Ipv4Net = text.parse().map_err(|_| {
        format!("{text:?}: write an IPv4 prefix such as 192.0.2.0/24, or 192.0.2.53/32 for one address")
    })?;
    match prefix.trunc() {
        right if right == prefix => Ok(prefix),
        right => Err(format!(
            "{text:?} is an address within a prefix: write {right} or {}/32",
            prefix.addr()
        )),
    }
}

/// The name is written into dnsmasq's configuration.
fn plain_user<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if !name.is_empty() && is_plain(&name) {
        Ok(Some(name))
    } else {
        Err(serde::de::Error::custom(format!(
            "{name:?}: write a user of letters, digits, `_`, `-` and `.`"
        )))
    }
}

fn is_plain(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../netnode.example.toml");

    fn parse(text: &str) -> Result<NetnodeConfig, ConfigError> {
        daemon::config::parse(Path::new("netnode.toml"), text)
    }

    #[test]
    fn the_example_is_a_valid_file_and_shows_every_key() {
        // Exhaustive, so that a new key has to be thought of here and in the example.
        let NetnodeConfig {
            node,
            controller: _,
            switch: _,
            nat,
            dhcp,
            telemetry: _,
            metrics,
        } = parse(EXAMPLE).unwrap();
        let NatSection {
            uplink,
            deny,
            allow,
            connections_per_guest,
        } = nat;
        let DhcpSection { program, user } = dhcp;
        assert_eq!(node.name.as_str(), "n1");
        assert_eq!(uplink.as_str(), "ens3");
        assert_eq!((deny, allow.len(), connections_per_guest.get()), (None, 0, 4096));
        assert_eq!((program.to_str(), user), (Some("dnsmasq"), None));
        assert!(metrics.is_some());
        for key in [
            "uplink = \"ens3\"",
            "# deny = [",
            "allow = []",
            "connections_per_guest = 4096",
            "program = \"dnsmasq\"",
            "# user = \"dnsmasq\"",
        ] {
            assert!(EXAMPLE.contains(key), "{key}");
        }
    }

    #[test]
    fn the_uplink_is_ens3_unless_said_otherwise() {
        let text = EXAMPLE.replace("uplink = \"ens3\"", "");
        assert_eq!(parse(&text).unwrap().nat.uplink.as_str(), "ens3");
    }

    #[test]
    fn prefixes_are_read_and_wrong_ones_are_refused_by_key_and_with_what_is_right() {
        let with = |line: &str| {
            parse(
                &EXAMPLE
                    .replace("[nat]", &format!("[nat]\n{line}"))
                    .replace("allow = []", ""),
            )
        };
        let nat = with("deny = [\"10.0.0.0/8\"]\nallow = [\"10.1.2.3/32\"]").unwrap().nat;
        let list = |prefixes: &[Ipv4Net]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(list(&nat.deny.unwrap()), ["10.0.0.0/8"]);
        assert_eq!(list(&nat.allow), ["10.1.2.3/32"]);
        assert_eq!(with("deny = []").unwrap().nat.deny, Some(Vec::new()));
        for (key, value, right) in [
            ("deny", "203.0.113.2/24", "write 203.0.113.0/24 or 203.0.113.2/32"),
            ("allow", "192.0.2.53", "192.0.2.53/32"),
            ("allow", "10.0.0.0/33", "write an IPv4 prefix"),
            ("deny", "2001:db8::/32", "write an IPv4 prefix"),
            ("deny", "lan", "write an IPv4 prefix"),
        ] {
            let error = trunkline_agent::chain(&with(&format!("{key} = [\"{value}\"]")).unwrap_err());
            assert!(
                error.contains(key) && error.contains(value) && error.contains(right),
                "{error}"
            );
        }
    }

    #[test]
    fn a_limit_of_no_connections_is_refused() {
        for limit in ["0", "-1", "4294967296"] {
            let text = EXAMPLE.replace(
                "connections_per_guest = 4096",
                &format!("connections_per_guest = {limit}"),
            );
            let error = trunkline_agent::chain(&parse(&text).unwrap_err());
            assert!(error.contains("connections_per_guest"), "{error}");
        }
    }

    #[test]
    fn a_wrong_key_is_refused_by_name() {
        let error = parse(&EXAMPLE.replace("[nat]", "[nat]\nuplnik = \"x\"")).unwrap_err();
        assert!(trunkline_agent::chain(&error).contains("uplnik"), "{error}");
    }

    #[test]
    fn names_that_could_break_out_of_a_rendered_file_are_refused() {
        for uplink in [r#"a\"b"#, "a;b", "a{b", "a b"] {
            let text = EXAMPLE.replace("uplink = \"ens3\"", &format!("uplink = \"{uplink}\""));
            assert!(parse(&text).is_err(), "{uplink}");
        }
        for user in ["", "a\\nport=53", "a b", "a,b", "a#b"] {
            let text = EXAMPLE.replace("# user = \"dnsmasq\"", &format!("user = \"{user}\""));
            assert!(parse(&text).is_err(), "{user}");
        }
    }
}
