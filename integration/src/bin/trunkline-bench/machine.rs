//! What the measurements were made on.

use std::process::Command;
use std::time::SystemTime;

use trunkline_controller::model::Timestamp;
use trunkline_integration::LabError;

/// Name and value of each fact.
pub(crate) fn facts() -> Result<Vec<(&'static str, String)>, LabError> {
    let cpu = field("/proc/cpuinfo", "model name")?;
    let memory = field("/proc/meminfo", "MemTotal")?;
    let memory: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_err(LabError::io("cannot count the cores"))?;
    let today: String = Timestamp::from(SystemTime::now())
        .to_string()
        .chars()
        .take(10)
        .collect();
    Ok(vec![
        ("CPU", cpu),
        ("cores", cores.to_string()),
        ("memory", format!("{:.0} GiB", memory / 1024.0 / 1024.0)),
        ("kernel", read("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("Open vSwitch", version("ovs-vswitchd")?),
        ("dnsmasq", version("dnsmasq")?),
        ("rustc", version("rustc")?),
        ("measured on", today),
    ])
}

fn read(path: &str) -> Result<String, LabError> {
    std::fs::read_to_string(path).map_err(LabError::io(format!("cannot read {path}")))
}

fn field(path: &str, name: &str) -> Result<String, LabError> {
    let text = read(path)?;
    let found = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name);
    let found = found.ok_or_else(|| LabError::Other(format!("{path} says nothing of {name:?}")))?;
    Ok(found.1.trim().to_owned())
}

/// The first word that begins with a digit.
fn version(program: &str) -> Result<String, LabError> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(LabError::io(format!("cannot run {program}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let found = found.ok_or_else(|| LabError::Other(format!("{program} says no version")))?;
    Ok(found.to_owned())
}
