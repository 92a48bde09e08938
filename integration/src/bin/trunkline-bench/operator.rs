//! An operator's calls, as figures make them.

use trunkline_integration::LabError;
use trunkline_integration::api::Api;
use trunkline_proto::client::{ApiError, new_request_id};
use trunkline_proto::wire::{
    ApplySlicesRequest, ApplySlicesResponse, DeploySliceRequest, SliceSpec, UndeploySliceRequest,
};

/// Makes drafts of slices, and deploys them where that is asked for.
pub(crate) fn apply(api: &Api, slices: Vec<SliceSpec>, deploy: bool) -> Result<ApplySlicesResponse, LabError> {
    let request = ApplySlicesRequest {
        request_id: new_request_id(),
        slices,
        deploy,
        ..ApplySlicesRequest::default()
    };
    let applied = api.block_on(api.client().slices().apply_slices(request));
    Ok(applied.map_err(refused)?.into_inner())
}

/// Deploys a draft.
pub(crate) fn deploy(api: &Api, name: &str) -> Result<(), LabError> {
    let request = DeploySliceRequest {
        request_id: new_request_id(),
        name: name.to_owned(),
        expected_revision: 0,
    };
    let deployed = api.block_on(api.client().slices().deploy_slice(request));
    deployed.map(drop).map_err(refused)
}

/// Undeploys a slice.
pub(crate) fn undeploy(api: &Api, name: &str) -> Result<(), LabError> {
    let request = UndeploySliceRequest {
        request_id: new_request_id(),
        name: name.to_owned(),
        expected_revision: 0,
    };
    let undeployed = api.block_on(api.client().slices().undeploy_slice(request));
    undeployed.map(drop).map_err(refused)
}

/// What the controller said instead of an answer.
pub(crate) fn refused(status: tonic::Status) -> LabError {
    LabError::Other(format!("the controller refused: {}", ApiError::from(status)))
}
