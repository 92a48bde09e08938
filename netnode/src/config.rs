//! The network node's configuration: the sections that every node has, and its own two.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trunkline_agent::config::{ControllerSection, NodeConfig, NodeSection, SwitchSection};
use trunkline_proto::daemon::{self, ConfigError, MetricsConfig, TelemetryConfig};
use trunkline_proto::{Invalid, PortName};

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
        let NatSection { uplink } = nat;
        let DhcpSection { program, user } = dhcp;
        assert_eq!(node.name.as_str(), "n1");
        assert_eq!(uplink.as_str(), "ens3");
        assert_eq!((program.to_str(), user), (Some("dnsmasq"), None));
        assert!(metrics.is_some());
        for key in ["uplink = \"ens3\"", "program = \"dnsmasq\"", "# user = \"dnsmasq\""] {
            assert!(EXAMPLE.contains(key), "{key}");
        }
    }

    #[test]
    fn the_uplink_is_ens3_unless_said_otherwise() {
        let text = EXAMPLE.replace("uplink = \"ens3\"", "");
        assert_eq!(parse(&text).unwrap().nat.uplink.as_str(), "ens3");
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
