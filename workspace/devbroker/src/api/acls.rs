//! DescribeAcls, CreateAcls, DeleteAcls.

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};
use crate::batch::Refusal;
use crate::core::Core;
use crate::security::{
    Acl, AclError, AclFilter, CLUSTER_NAME, Operation, PatternFilter, PatternType, Permission, Resource,
    ResourcePattern, ResourceType,
};

/// The code of each enumeration that stands for all of its values.
const ANY: i8 = 1;
/// The type of pattern that asks for the rules that hold for a name.
const MATCH: i8 = 2;

fn denied() -> Refusal {
    Refusal::new(
        ResponseError::ClusterAuthorizationFailed,
        "Cluster authorization failed.",
    )
}

fn refusal(error: AclError) -> Refusal {
    let code = match error {
        AclError::Off => ResponseError::SecurityDisabled,
        AclError::Full => ResponseError::InvalidRequest,
    };
    Refusal::new(code, error.to_string())
}

pub(super) fn describe(
    core: &Core,
    context: &RequestContext,
    request: &DescribeAclsRequest,
) -> DescribeAclsResponse {
    match found(core, context, request) {
        Ok(acls) => DescribeAclsResponse::default().with_resources(by_resource(acls)),
        Err(refusal) => DescribeAclsResponse::default()
            .with_error_code(refusal.error.code())
            .with_error_message(Some(text(&refusal.message))),
    }
}

fn found(core: &Core, context: &RequestContext, request: &DescribeAclsRequest) -> Result<Vec<Acl>, Refusal> {
    if !context.may(core, Operation::Describe, Resource::Cluster) {
        return Err(denied());
    }
    // A filter of DeleteAcls has the same fields.
    let asked = DeleteAclsFilter::default()
        .with_resource_type_filter(request.resource_type_filter)
        .with_resource_name_filter(request.resource_name_filter.clone())
        .with_pattern_type_filter(request.pattern_type_filter)
        .with_principal_filter(request.principal_filter.clone())
        .with_host_filter(request.host_filter.clone())
        .with_operation(request.operation)
        .with_permission_type(request.permission_type);
    core.guard.find_acls(&filter(&asked)?).map_err(refusal)
}

fn by_resource(acls: Vec<Acl>) -> Vec<DescribeAclsResource> {
    let mut resources: IndexMap<ResourcePattern, Vec<AclDescription>> = IndexMap::new();
    for acl in acls {
        let description = AclDescription::default()
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission.code());
        resources.entry(acl.resource).or_default().push(description);
    }
    let resource = |(pattern, acls): (ResourcePattern, Vec<AclDescription>)| {
        DescribeAclsResource::default()
            .with_resource_type(pattern.resource.code())
            .with_resource_name(text(&pattern.name))
            .with_pattern_type(pattern.pattern.code())
            .with_acls(acls)
    };
    resources.into_iter().map(resource).collect()
}

pub(super) fn create(
    core: &Core,
    context: &RequestContext,
    request: &CreateAclsRequest,
) -> CreateAclsResponse {
    let allowed = context.may(core, Operation::Alter, Resource::Cluster);
    let results = request.creations.iter().map(|creation| {
        let created = if allowed {
            rule(creation).and_then(|acl| core.guard.add_acl(acl).map_err(refusal))
        } else {
            Err(denied())
        };
        let result = AclCreationResult::default();
        match created {
            Ok(()) => result,
            Err(refusal) => result
                .with_error_code(refusal.error.code())
                .with_error_message(Some(text(&refusal.message))),
        }
    });
    CreateAclsResponse::default().with_results(results.collect())
}

fn rule(creation: &AclCreation) -> Result<Acl, Refusal> {
    let resource = ResourceType::from_code(creation.resource_type);
    let resource = some("resource type", creation.resource_type, resource)?;
    let pattern = PatternType::from_code(creation.resource_pattern_type);
    let pattern = some("pattern type", creation.resource_pattern_type, pattern)?;
    let operation = some(
        "operation",
        creation.operation,
        Operation::from_code(creation.operation),
    )?;
    let permission = Permission::from_code(creation.permission_type);
    let permission = some("permission", creation.permission_type, permission)?;
    let name = creation.resource_name.to_string();
    if name.is_empty() {
        let message = "Invalid empty resource name";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    if resource == ResourceType::Cluster && name != CLUSTER_NAME {
        let message = format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}");
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    Ok(Acl {
        principal: creation.principal.to_string(),
        host: creation.host.to_string(),
        resource: ResourcePattern {
            resource,
            name,
            pattern,
        },
        operation,
        permission,
    })
}

pub(super) fn delete(
    core: &Core,
    context: &RequestContext,
    request: &DeleteAclsRequest,
) -> DeleteAclsResponse {
    let allowed = context.may(core, Operation::Alter, Resource::Cluster);
    let results = request.filters.iter().map(|asked| {
        let removed = if allowed {
            filter(asked).and_then(|filter| {
                let removed = core.guard.remove_acls(|acl| filter.meets(acl));
                removed.map_err(refusal)
            })
        } else {
            Err(denied())
        };
        let result = DeleteAclsFilterResult::default();
        match removed {
            Ok(removed) => result.with_matching_acls(removed.into_iter().map(removed_acl).collect()),
            Err(refusal) => result
                .with_error_code(refusal.error.code())
                .with_error_message(Some(text(&refusal.message))),
        }
    });
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn removed_acl(acl: Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_resource_type(acl.resource.resource.code())
        .with_resource_name(text(&acl.resource.name))
        .with_pattern_type(acl.resource.pattern.code())
        .with_principal(text(&acl.principal))
        .with_host(text(&acl.host))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.permission.code())
}

fn filter(asked: &DeleteAclsFilter) -> Result<AclFilter, Refusal> {
    let name = |text: &Option<StrBytes>| text.as_ref().map(ToString::to_string);
    let pattern = match asked.pattern_type_filter {
        ANY => PatternFilter::Any,
        MATCH => PatternFilter::Match,
        code => PatternFilter::Only(some("pattern type", code, PatternType::from_code(code))?),
    };
    Ok(AclFilter {
        resource: any_or(
            "resource type",
            asked.resource_type_filter,
            ResourceType::from_code,
        )?,
        name: name(&asked.resource_name_filter),
        pattern,
        principal: name(&asked.principal_filter),
        host: name(&asked.host_filter),
        operation: any_or("operation", asked.operation, Operation::from_code)?,
        permission: any_or("permission", asked.permission_type, Permission::from_code)?,
    })
}

/// `None` for "all".
fn any_or<T>(what: &str, code: i8, known: impl Fn(i8) -> Option<T>) -> Result<Option<T>, Refusal> {
    match code {
        ANY => Ok(None),
        code => some(what, code, known(code)).map(Some),
    }
}

fn some<T>(what: &str, code: i8, known: Option<T>) -> Result<T, Refusal> {
    known.ok_or_else(|| {
        let message = format!("{what} `{code}` is not served");
        Refusal::new(ResponseError::InvalidRequest, message)
    })
}
