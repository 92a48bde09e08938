//! The SDK for programs that are not asynchronous: one call at a time.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use trunkline_proto::client::{ApiError, Client, ClientConfig};
use trunkline_proto::wire::{
    GetStatusRequest, GetStatusResponse, ListNodesRequest, ListSlicesRequest, Node, Slice, Vm,
};

use crate::LabError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection to the controller.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl Api {
    /// Connects as the holder of a bundle.
    pub fn connect(endpoint: &str, bundle: &Path) -> Result<Self, LabError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(LabError::io("cannot start a runtime"))?;
        let mut config = ClientConfig::new(endpoint, bundle);
        config.connect_timeout = CONNECT_LIMIT;
        let client = runtime
            .block_on(Client::connect(config))
            .map_err(|error| failed("cannot connect", &error))?;
        Ok(Self { runtime, client })
    }

    /// The asynchronous client, for calls that are not here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for a future on the client's runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Every slice.
    pub fn slices(&self) -> Result<Vec<Slice>, LabError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListSlicesRequest {
                page_size: 0,
                page_token,
            };
            let page = self
                .block_on(self.client.slices().list_slices(request))
                .map_err(refused)?
                .into_inner();
            all.extend(page.slices);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// Every node.
    pub fn nodes(&self) -> Result<Vec<Node>, LabError> {
        let request = ListNodesRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        let page = self
            .block_on(self.client.fleet().list_nodes(request))
            .map_err(refused)?;
        Ok(page.into_inner().nodes)
    }

    /// Status of everything.
    pub fn status(&self) -> Result<GetStatusResponse, LabError> {
        let request = GetStatusRequest::default();
        Ok(self
            .block_on(self.client.slices().get_status(request))
            .map_err(refused)?
            .into_inner())
    }

    /// A VM, named `slice/vm`, or `vm` where only one slice has it.
    pub fn vm(&self, name: &str) -> Result<Vm, LabError> {
        let vms: Vec<Vm> = self.slices()?.into_iter().flat_map(|slice| slice.vms).collect();
        pick(vms, name)
    }
}

fn pick(vms: Vec<Vm>, name: &str) -> Result<Vm, LabError> {
    let full = |vm: &Vm| format!("{}/{}", vm.slice, vm.name);
    let all: Vec<String> = vms.iter().map(full).collect();
    let mut found: Vec<Vm> = vms
        .into_iter()
        .filter(|vm| full(vm) == name || vm.name == name)
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(vm), true) => Ok(vm),
        (Some(vm), false) => {
            found.push(vm);
            let which: Vec<String> = found.iter().map(full).collect();
            Err(LabError::Other(format!(
                "several slices have a VM {name:?}: say one of {}",
                which.join(" ")
            )))
        }
        (None, _) if all.is_empty() => Err(LabError::Other(format!(
            "there is no VM {name:?}: there is no VM at all yet"
        ))),
        (None, _) => Err(LabError::Other(format!(
            "there is no VM {name:?}; there are: {}",
            all.join(" ")
        ))),
    }
}

fn refused(status: tonic::Status) -> LabError {
    failed("the controller refused", &ApiError::from(status))
}

fn failed(what: &str, error: &dyn std::error::Error) -> LabError {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    LabError::Other(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms() -> Vec<Vm> {
        let vm = |slice: &str, name: &str| Vm {
            slice: slice.to_owned(),
            name: name.to_owned(),
            ..Vm::default()
        };
        vec![vm("blue", "web"), vm("blue", "db"), vm("green", "web")]
    }

    #[test]
    fn a_vm_is_found_by_its_full_name_or_a_unique_one() {
        assert_eq!(pick(vms(), "green/web").unwrap().slice, "green");
        assert_eq!(pick(vms(), "db").unwrap().slice, "blue");
    }

    #[test]
    fn a_name_that_several_slices_have_is_answered_with_all_of_them() {
        let error = pick(vms(), "web").unwrap_err().to_string();
        assert!(error.contains("blue/web") && error.contains("green/web"), "{error}");
    }

    #[test]
    fn an_unknown_vm_is_answered_with_those_there_are() {
        let error = pick(vms(), "mail").unwrap_err().to_string();
        assert_eq!(error, r#"there is no VM "mail"; there are: blue/web blue/db green/web"#);
    }
}
