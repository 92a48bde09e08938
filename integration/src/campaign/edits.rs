//! What the operator asks for: one small function for each call of the API, and what its answer means for the book.

use trunkline_proto::client::new_request_id;
use trunkline_proto::wire::{
    AddLinkRequest, AddVmRequest, ApplySlicesRequest, ConfirmRemovalsRequest, CordonNodeRequest,
    DeclareNodeGoneRequest, DeleteSliceRequest, DeploySliceRequest, DrainNodeRequest, GetNodeRequest, HeldRemovals,
    MoveVmRequest, RemoveLinkRequest, RemoveVmRequest, RollbackSliceRequest, UndeploySliceRequest,
};

use super::act::Operator;
use super::steps::Step;
use super::wish::{Wish, WishedLink, WishedVm};
use crate::LabError;

/// Asks with one method of one client until there is an answer.
macro_rules! insist {
    ($operator:ident, $twice:expr, $client:ident.$method:ident($request:expr)) => {{
        let request = $request;
        $operator.insist($twice, |client| {
            let (mut client, request) = (client.$client(), request.clone());
            async move { client.$method(request).await }
        })?
    }};
}

type Said = Result<String, String>;

impl Operator {
    /// Makes a change; says how it was answered, or what was wrong with the answer. Other steps are none.
    pub(super) fn make(&mut self, step: &Step) -> Said {
        match step {
            Step::Apply { slice, deploy, twice } => self.apply(slice, *deploy, *twice),
            Step::Deploy { slice, twice } => self.deploy(slice, *twice),
            Step::Undeploy { slice, twice } => self.undeploy(slice, *twice),
            Step::Rollback { slice, number, twice } => self.rollback(slice, *number, *twice),
            Step::Delete { slice, twice } => self.delete(slice, *twice),
            Step::AddVm { slice, vm, twice } => self.add_vm(slice, vm, *twice),
            Step::RemoveVm { slice, vm, twice } => self.remove_vm(slice, vm, *twice),
            Step::AddLink { slice, link, twice } => self.add_link(slice, link, *twice),
            Step::RemoveLink { slice, link, twice } => self.remove_link(slice, link, *twice),
            Step::Move {
                slice,
                vm,
                worker,
                twice,
            } => self.move_vm(slice, vm, worker, *twice),
            Step::Drain { worker, onto, twice } => self.drain(worker, onto, *twice),
            Step::Uncordon { worker, twice } => self.uncordon(worker, *twice),
            _ => Ok("no change".to_owned()),
        }
    }

    /// VMs that are there stay where they are: moving is a request of its own.
    fn apply(&mut self, wish: &Wish, deploy: bool, twice: bool) -> Said {
        let mut wish = wish.clone();
        for vm in &mut wish.vms {
            if let Some(worker) = self.ledger.home(&wish.name, &vm.name) {
                vm.worker = worker;
            }
        }
        let wish = wish.sorted();
        let request = ApplySlicesRequest {
            request_id: new_request_id(),
            slices: vec![wish.spec()],
            deploy,
            ..ApplySlicesRequest::default()
        };
        let answer = insist!(self, twice, slices.apply_slices(request));
        self.note(answer, |ledger, done| {
            ledger.draft(&wish);
            if deploy {
                let slice = done.slices.iter().find(|slice| slice.name == wish.name);
                let number = slice.and_then(|slice| Some(slice.deployed.as_ref()?.number));
                let number =
                    number.ok_or_else(|| format!("{} was deployed, and the answer has no number", wish.name))?;
                if ledger.deployed(&wish.name, number)? {
                    ledger.told(&wish.name, "slice.deployed", done.revision);
                }
            }
            // A draft is no generation.
            ledger.saw(done.revision, deploy.then_some((done.term, done.generation)))
        })
    }

    fn deploy(&mut self, slice: &str, twice: bool) -> Said {
        let request = DeploySliceRequest {
            request_id: new_request_id(),
            name: slice.to_owned(),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.deploy_slice(request));
        self.note(answer, |ledger, done| {
            let new = ledger.deployed(slice, done.number)?;
            if new {
                ledger.told(slice, "slice.deployed", done.revision);
            }
            // One that differs in nothing is answered with its own generation.
            ledger.saw(done.revision, new.then_some((done.term, done.generation)))
        })
    }

    fn undeploy(&mut self, slice: &str, twice: bool) -> Said {
        let request = UndeploySliceRequest {
            request_id: new_request_id(),
            name: slice.to_owned(),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.undeploy_slice(request));
        self.note(answer, |ledger, done| {
            if ledger.undeployed(slice)? {
                ledger.told(slice, "slice.undeployed", done.revision);
            }
            ledger.saw(done.revision, Some((done.term, done.generation)))
        })
    }

    fn rollback(&mut self, slice: &str, number: u32, twice: bool) -> Said {
        let request = RollbackSliceRequest {
            request_id: new_request_id(),
            name: slice.to_owned(),
            number,
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.rollback_slice(request));
        self.note(answer, |ledger, done| {
            let new = ledger.rolled_back(slice, number, done.number)?;
            if new {
                ledger.told(slice, "slice.rolledback", done.revision);
            }
            ledger.saw(done.revision, new.then_some((done.term, done.generation)))
        })
    }

    fn delete(&mut self, slice: &str, twice: bool) -> Said {
        let request = DeleteSliceRequest {
            request_id: new_request_id(),
            name: slice.to_owned(),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.delete_slice(request));
        self.note(answer, |ledger, done| {
            ledger.deleted(slice)?;
            ledger.told(slice, "slice.deleted", done.revision);
            ledger.saw(done.revision, Some((done.term, done.generation)))
        })
    }

    fn add_vm(&mut self, slice: &str, vm: &WishedVm, twice: bool) -> Said {
        let request = AddVmRequest {
            request_id: new_request_id(),
            slice: slice.to_owned(),
            vm: Some(vm.spec()),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.add_vm(request));
        self.note(answer, |ledger, done| {
            ledger.edited(slice, |draft| draft.vms.push(vm.clone()))?;
            ledger.told(slice, "slice.applied", done.revision);
            ledger.saw(done.revision, None)
        })
    }

    fn remove_vm(&mut self, slice: &str, vm: &str, twice: bool) -> Said {
        let request = RemoveVmRequest {
            request_id: new_request_id(),
            slice: slice.to_owned(),
            name: vm.to_owned(),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.remove_vm(request));
        self.note(answer, |ledger, done| {
            ledger.edited(slice, |draft| draft.vms.retain(|each| each.name != vm))?;
            ledger.told(slice, "slice.applied", done.revision);
            ledger.saw(done.revision, None)
        })
    }

    fn add_link(&mut self, slice: &str, link: &WishedLink, twice: bool) -> Said {
        let request = AddLinkRequest {
            request_id: new_request_id(),
            slice: slice.to_owned(),
            link: Some(link.spec()),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.add_link(request));
        self.note(answer, |ledger, done| {
            ledger.edited(slice, |draft| draft.links.push(link.clone()))?;
            ledger.told(slice, "slice.applied", done.revision);
            ledger.saw(done.revision, None)
        })
    }

    fn remove_link(&mut self, slice: &str, link: &str, twice: bool) -> Said {
        let request = RemoveLinkRequest {
            request_id: new_request_id(),
            slice: slice.to_owned(),
            name: link.to_owned(),
            expected_revision: 0,
        };
        let answer = insist!(self, twice, slices.remove_link(request));
        self.note(answer, |ledger, done| {
            ledger.edited(slice, |draft| draft.links.retain(|each| each.name != link))?;
            ledger.told(slice, "slice.applied", done.revision);
            ledger.saw(done.revision, None)
        })
    }

    fn move_vm(&mut self, slice: &str, vm: &str, worker: &str, twice: bool) -> Said {
        let request = MoveVmRequest {
            request_id: new_request_id(),
            slice: slice.to_owned(),
            name: vm.to_owned(),
            worker: worker.to_owned(),
            expected_revision: 0,
            // Faults may have it away just now.
            force: true,
        };
        let answer = insist!(self, twice, slices.move_vm(request));
        self.note(answer, |ledger, done| {
            if ledger.home(slice, vm).is_some_and(|there| there != worker) {
                ledger.told(slice, "vm.moved", done.revision);
            }
            ledger.edited(slice, |draft| {
                for each in draft.vms.iter_mut().filter(|each| each.name == vm) {
                    worker.clone_into(&mut each.worker);
                }
            })?;
            ledger.saw(done.revision, None)
        })
    }

    fn drain(&mut self, worker: &str, onto: &str, twice: bool) -> Said {
        let request = DrainNodeRequest {
            request_id: new_request_id(),
            name: worker.to_owned(),
            onto: onto.to_owned(),
        };
        let answer = insist!(self, twice, fleet.drain_node(request));
        self.note(answer, |ledger, done| {
            let moved = ledger.drained(worker, onto);
            for slice in &moved {
                ledger.told(slice, "vm.moved", done.revision);
            }
            let mut named: Vec<&String> = done.moved.iter().map(|moved| &moved.slice).collect();
            named.dedup();
            if named != moved.iter().collect::<Vec<_>>() {
                return Err(format!(
                    "{worker} was drained of VMs of {named:?}, and had some of {moved:?}"
                ));
            }
            ledger.saw(done.revision, None)
        })
    }

    fn uncordon(&mut self, worker: &str, twice: bool) -> Said {
        let request = CordonNodeRequest {
            request_id: new_request_id(),
            name: worker.to_owned(),
            cordoned: false,
        };
        let answer = insist!(self, twice, fleet.cordon_node(request));
        self.note(answer, |ledger, done| ledger.saw(done.revision, None))
    }

    /// Removals that nodes hold back.
    pub(super) fn held(&self) -> Result<Vec<(String, HeldRemovals)>, LabError> {
        let mut held = Vec::new();
        for node in self.api.nodes()? {
            let request = GetNodeRequest {
                name: node.name.clone(),
            };
            let shown = self.api.block_on(self.api.client().fleet().get_node(request));
            let what =
                |status: tonic::Status| LabError::Other(format!("{} is not shown: {}", node.name, status.message()));
            let shown = shown.map_err(what)?.into_inner();
            held.extend(shown.held_removals.map(|held| (node.name.clone(), held)));
        }
        Ok(held)
    }

    /// The operator looked at them, and means them.
    pub(super) fn confirm(&self, node: &str, held: &HeldRemovals) -> Result<usize, String> {
        let request = ConfirmRemovalsRequest {
            request_id: new_request_id(),
            name: node.to_owned(),
            term: held.term,
            generation: held.generation,
            leftovers: held.leftovers.clone(),
        };
        let answer = insist!(self, false, fleet.confirm_removals(request));
        let confirmed = answer.map_err(|status| status.message().to_owned())?.confirmed;
        Ok(usize::try_from(confirmed).unwrap_or(usize::MAX))
    }

    /// Vouches for a worker that does not run any more.
    pub(super) fn declare_gone(&mut self, worker: &str, twice: bool) -> Said {
        let request = DeclareNodeGoneRequest {
            request_id: new_request_id(),
            name: worker.to_owned(),
        };
        let answer = insist!(self, twice, fleet.declare_node_gone(request));
        self.note(answer, |ledger, done| ledger.saw(done.revision, None))
    }
}
