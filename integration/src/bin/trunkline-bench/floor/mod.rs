//! Floors: the least work that any program would have to do for the same visible result, written as straight as possible.
//! No check, no note of what was done, no second look. What is asked of a floor is, where it can be, what our own daemons have
//! left on a host just before ([`held`]), so that both sides do the same.
//!
//! One that is measured as a process, or that serves, is this program again under a name that no person types.

pub(crate) mod acknowledge;
pub(crate) mod bare;
pub(crate) mod bridge;
pub(crate) mod database;
pub(crate) mod dhcp;
pub(crate) mod held;
pub(crate) mod kernel;
pub(crate) mod netlink;
pub(crate) mod openflow;
pub(crate) mod ovsdb;
pub(crate) mod program;
pub(crate) mod repair;
pub(crate) mod script;
pub(crate) mod site;
pub(crate) mod sync;
pub(crate) mod tap;
pub(crate) mod trees;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use trunkline_integration::LabError;
use trunkline_integration::program::console::tell;

use crate::site::command;

/// What comes before such a name.
const MARK: &str = "--floor";

/// This program as the floor `name`.
pub(crate) fn process(name: &str) -> Result<Command, LabError> {
    let ourselves = std::env::current_exe().map_err(LabError::io("cannot find this program"))?;
    let mut command = command(&ourselves);
    command.args([MARK, name]);
    Ok(command)
}

/// When this process was started as a floor: does that, and says how it ended.
pub(crate) fn as_process() -> Option<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [mark, name, rest @ ..] = &arguments[..] else {
        return None;
    };
    if mark != MARK {
        return None;
    }
    let rest: Vec<&Path> = rest.iter().map(Path::new).collect();
    let done = match name.to_str() {
        Some(trees::NAME) => trees::main(&rest),
        Some(acknowledge::NAME) => acknowledge::main(&rest),
        _ => Err(LabError::Other("there is no such floor".to_owned())),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.chain());
            ExitCode::FAILURE
        }
    })
}
