//! Authentication and access rules.

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsResponse,
    SaslAuthenticateResponse, SaslHandshakeResponse,
};

pub(super) fn handshake(code: i16) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(code)
}

pub(super) fn authenticate(code: i16) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default().with_error_code(code)
}

pub(super) fn describe_acls(code: i16) -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(code)
}

pub(super) fn create_acls(request: &CreateAclsRequest, code: i16) -> CreateAclsResponse {
    let refused = AclCreationResult::default().with_error_code(code);
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}

pub(super) fn delete_acls(request: &DeleteAclsRequest, code: i16) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default().with_error_code(code);
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
