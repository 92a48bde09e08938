//! `SliceService`: thin handlers. What is asked for is checked by the transition, not here.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trunkline_proto::{
    Name,
    wire::{self, slice_service_server::SliceService},
};

use super::{
    call::{Call, mutate},
    errors, page, status,
};
use crate::{
    core::Core,
    model::Slice,
    settings::Settings,
    transition::{Intent, State, Step},
    view,
};

/// The service.
pub(super) struct Slices {
    pub(super) core: Arc<Core>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SliceService for Slices {
    async fn apply_slices(&self, request: Request<wire::ApplySlicesRequest>) -> Answer<wire::ApplySlicesResponse> {
        let deploy = request.get_ref().deploy;
        if request.get_ref().dry_run {
            return self.dry_run(request).await;
        }
        let answer = move |step: &Step, settings: &Settings| applied(step, settings, deploy);
        mutate(
            &self.core,
            "ApplySlices",
            request,
            |r| &r.request_id,
            apply_intent,
            answer,
        )
        .await
    }

    async fn get_slice(&self, request: Request<wire::GetSliceRequest>) -> Answer<wire::Slice> {
        let call = Call::new("GetSlice", &request)?;
        call.run(&self.core, async {
            let state = self.core.state();
            let wire::GetSliceRequest { name, deployed, number } = request.get_ref();
            let (slice, settings) = (find(&state, name)?, self.core.settings());
            if *number != 0 {
                let frozen = slice.revisions.get(number);
                let frozen = frozen.ok_or_else(|| errors::not_found("revision", &number.to_string()))?;
                return Ok(view::frozen(slice, frozen, settings));
            }
            if *deployed {
                let frozen = slice.deployed().ok_or_else(|| errors::not_deployed(&slice.name))?;
                return Ok(view::frozen(slice, frozen, settings));
            }
            Ok(view::slice(slice, settings))
        })
        .await
    }

    async fn list_slices(&self, request: Request<wire::ListSlicesRequest>) -> Answer<wire::ListSlicesResponse> {
        let call = Call::new("ListSlices", &request)?;
        call.run(&self.core, async {
            let wire::ListSlicesRequest { page_size, page_token } = request.into_inner();
            let (most, after) = (page::size(page_size)?, page::from_token(&page_token)?);
            let state = self.core.state();
            let rest = state
                .cluster
                .slices
                .values()
                .filter(|s| after.as_deref().is_none_or(|after| s.name.as_str() > after));
            let views = rest.map(|slice| view::slice(slice, self.core.settings()));
            let (slices, next_page_token) = page::cut(views, most, |slice| slice.name.clone());
            Ok(wire::ListSlicesResponse {
                slices,
                next_page_token,
                revision: state.cluster.meta.revision,
            })
        })
        .await
    }

    async fn delete_slice(&self, request: Request<wire::DeleteSliceRequest>) -> Answer<wire::DeleteSliceResponse> {
        let intent = |r: wire::DeleteSliceRequest| Intent::DeleteSlice {
            name: r.name,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| {
            let At {
                revision,
                term,
                generation,
            } = At::of(step);
            wire::DeleteSliceResponse {
                revision,
                term,
                generation,
            }
        };
        mutate(&self.core, "DeleteSlice", request, |r| &r.request_id, intent, answer).await
    }

    async fn add_vm(&self, request: Request<wire::AddVmRequest>) -> Answer<wire::AddVmResponse> {
        let intent = |r: wire::AddVmRequest| Intent::AddVm {
            slice: r.slice,
            vm: r.vm,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, settings: &Settings| wire::AddVmResponse {
            revision: At::of(step).revision,
            vm: named_vm(step, settings),
        };
        mutate(&self.core, "AddVm", request, |r| &r.request_id, intent, answer).await
    }

    async fn remove_vm(&self, request: Request<wire::RemoveVmRequest>) -> Answer<wire::RemoveVmResponse> {
        let intent = |r: wire::RemoveVmRequest| Intent::RemoveVm {
            slice: r.slice,
            name: r.name,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| wire::RemoveVmResponse {
            revision: At::of(step).revision,
        };
        mutate(&self.core, "RemoveVm", request, |r| &r.request_id, intent, answer).await
    }

    async fn move_vm(&self, request: Request<wire::MoveVmRequest>) -> Answer<wire::MoveVmResponse> {
        let intent = |r: wire::MoveVmRequest| Intent::MoveVm {
            slice: r.slice,
            name: r.name,
            worker: r.worker,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, settings: &Settings| wire::MoveVmResponse {
            revision: At::of(step).revision,
            vm: named_vm(step, settings),
        };
        mutate(&self.core, "MoveVm", request, |r| &r.request_id, intent, answer).await
    }

    async fn add_link(&self, request: Request<wire::AddLinkRequest>) -> Answer<wire::AddLinkResponse> {
        let intent = |r: wire::AddLinkRequest| Intent::AddLink {
            slice: r.slice,
            link: r.link,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| {
            let link = named(step).zip(step.outcome.link.as_ref());
            let link = link.and_then(|(slice, name)| Some(view::link(slice, slice.links.get(name)?)));
            wire::AddLinkResponse {
                revision: At::of(step).revision,
                link,
            }
        };
        mutate(&self.core, "AddLink", request, |r| &r.request_id, intent, answer).await
    }

    async fn remove_link(&self, request: Request<wire::RemoveLinkRequest>) -> Answer<wire::RemoveLinkResponse> {
        let intent = |r: wire::RemoveLinkRequest| Intent::RemoveLink {
            slice: r.slice,
            name: r.name,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| wire::RemoveLinkResponse {
            revision: At::of(step).revision,
        };
        mutate(&self.core, "RemoveLink", request, |r| &r.request_id, intent, answer).await
    }

    async fn deploy_slice(&self, request: Request<wire::DeploySliceRequest>) -> Answer<wire::DeploySliceResponse> {
        let intent = |r: wire::DeploySliceRequest| Intent::Deploy {
            name: r.name,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| {
            let At {
                revision,
                term,
                generation,
            } = deployed_at(step);
            wire::DeploySliceResponse {
                revision,
                number: step.outcome.number.unwrap_or_default(),
                term,
                generation,
            }
        };
        mutate(&self.core, "DeploySlice", request, |r| &r.request_id, intent, answer).await
    }

    async fn undeploy_slice(
        &self,
        request: Request<wire::UndeploySliceRequest>,
    ) -> Answer<wire::UndeploySliceResponse> {
        let intent = |r: wire::UndeploySliceRequest| Intent::Undeploy {
            name: r.name,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| {
            let At {
                revision,
                term,
                generation,
            } = At::of(step);
            wire::UndeploySliceResponse {
                revision,
                term,
                generation,
            }
        };
        mutate(&self.core, "UndeploySlice", request, |r| &r.request_id, intent, answer).await
    }

    async fn rollback_slice(
        &self,
        request: Request<wire::RollbackSliceRequest>,
    ) -> Answer<wire::RollbackSliceResponse> {
        let intent = |r: wire::RollbackSliceRequest| Intent::Rollback {
            name: r.name,
            number: r.number,
            expected: r.expected_revision,
        };
        let answer = |step: &Step, _: &Settings| {
            let At {
                revision,
                term,
                generation,
            } = deployed_at(step);
            let number = step.outcome.number.unwrap_or_default();
            let renumbered = step.outcome.renumbered.clone();
            wire::RollbackSliceResponse {
                revision,
                number,
                term,
                generation,
                renumbered,
            }
        };
        mutate(&self.core, "RollbackSlice", request, |r| &r.request_id, intent, answer).await
    }

    async fn list_revisions(
        &self,
        request: Request<wire::ListRevisionsRequest>,
    ) -> Answer<wire::ListRevisionsResponse> {
        let call = Call::new("ListRevisions", &request)?;
        call.run(&self.core, async {
            let wire::ListRevisionsRequest {
                name,
                page_size,
                page_token,
            } = request.into_inner();
            let (most, before) = (page::size(page_size)?, page::from_token(&page_token)?);
            let before = match before.map(|number| number.parse::<u32>()) {
                None => u32::MAX,
                Some(Ok(number)) => number,
                Some(Err(_)) => {
                    return Err(errors::field(
                        "page_token",
                        "send the next_page_token of the page before",
                    ));
                }
            };
            let state = self.core.state();
            let slice = find(&state, &name)?;
            let rest = slice
                .revisions
                .range(..before)
                .rev()
                .map(|(_, frozen)| view::deployment(frozen));
            let (revisions, next_page_token) = page::cut(rest, most, |deployment| deployment.number.to_string());
            Ok(wire::ListRevisionsResponse {
                revisions,
                next_page_token,
            })
        })
        .await
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Answer<wire::GetStatusResponse> {
        let call = Call::new("GetStatus", &request)?;
        call.run(&self.core, async {
            let wire::GetStatusRequest { slices, brief } = request.get_ref();
            let names = status::parse_names(slices)?;
            status::require(&self.core.state(), &names)?;
            status::compute(&self.core, names, status::detail(*brief)).await
        })
        .await
    }
}

impl Slices {
    async fn dry_run(&self, request: Request<wire::ApplySlicesRequest>) -> Answer<wire::ApplySlicesResponse> {
        let call = Call::new("ApplySlices", &request)?;
        let actor = call.actor.clone();
        let request = request.into_inner();
        call.run(&self.core, async {
            let step = self
                .core
                .try_step(apply_intent(request), actor)
                .await
                .map_err(errors::of_core)?;
            let changes = step.changes.iter().map(wire::Change::from).collect();
            let revision = self.core.state().cluster.meta.revision;
            let slices = step
                .outcome
                .slices
                .iter()
                .filter_map(|name| step.state.cluster.slices.get(name));
            let slices = slices.map(|slice| view::slice(slice, self.core.settings())).collect();
            Ok(wire::ApplySlicesResponse {
                revision,
                changes,
                slices,
                term: 0,
                generation: 0,
            })
        })
        .await
    }
}

fn apply_intent(request: wire::ApplySlicesRequest) -> Intent {
    let wire::ApplySlicesRequest {
        request_id: _,
        slices,
        expected_revisions,
        deploy,
        dry_run: _,
    } = request;
    Intent::Apply {
        slices,
        expected: expected_revisions,
        deploy,
    }
}

fn applied(step: &Step, settings: &Settings, deploy: bool) -> wire::ApplySlicesResponse {
    let At {
        revision,
        term,
        generation,
    } = At::of(step);
    let slices = step
        .outcome
        .slices
        .iter()
        .filter_map(|name| step.state.cluster.slices.get(name));
    wire::ApplySlicesResponse {
        revision,
        changes: step.changes.iter().map(wire::Change::from).collect(),
        slices: slices.map(|slice| view::slice(slice, settings)).collect(),
        term: if deploy { term } else { 0 },
        generation: if deploy { generation } else { 0 },
    }
}

/// Where a commit left the cluster.
struct At {
    revision: u64,
    term: u64,
    generation: u64,
}

impl At {
    fn of(step: &Step) -> Self {
        let meta = &step.state.cluster.meta;
        Self {
            revision: meta.revision,
            term: meta.term,
            generation: meta.generation,
        }
    }
}

/// Where the slice became desired state; earlier than now when nothing differed.
fn deployed_at(step: &Step) -> At {
    let At {
        revision,
        term,
        generation,
    } = At::of(step);
    match named(step).and_then(|slice| slice.deployed()) {
        Some(frozen) => At {
            revision,
            term: frozen.position.term,
            generation: frozen.position.generation,
        },
        None => At {
            revision,
            term,
            generation,
        },
    }
}

fn named(step: &Step) -> Option<&Arc<Slice>> {
    step.state.cluster.slices.get(step.outcome.slices.first()?)
}

/// The VM that was added or moved.
fn named_vm(step: &Step, settings: &Settings) -> Option<wire::Vm> {
    let (slice, name) = named(step).zip(step.outcome.vm.as_ref())?;
    Some(view::vm(slice, slice.vms.get(name)?, settings))
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Slice>, Status> {
    let parsed: Name = name
        .parse()
        .map_err(|error: trunkline_proto::Invalid| errors::field("name", error.to_string()))?;
    state
        .cluster
        .slices
        .get(&parsed)
        .ok_or_else(|| errors::not_found("slice", name))
}
