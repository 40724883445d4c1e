//! ApiVersions.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use super::RequestContext;
use crate::frame::Frame;
use crate::versions::SUPPORTED;

pub(crate) fn versions() -> ApiVersionsResponse {
    let keys = SUPPORTED.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.told_min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// The answer to a version of ApiVersions that is too new: version 0 with the error, so that the
/// client can ask again with a version that it finds in it.
pub(crate) fn unsupported(context: &RequestContext) -> Result<Frame, String> {
    let response = versions().with_error_code(ResponseError::UnsupportedVersion.code());
    context.encode(&response, 0)
}
