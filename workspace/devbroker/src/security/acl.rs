//! Who may do what: Kafka's access rules.
//!
//! With rules on, what no rule allows is denied, and a rule that denies wins over every rule that
//! allows. Super users are asked nothing. An allowed Read, Write, Delete or Alter implies Describe,
//! an allowed AlterConfigs implies DescribeConfigs; a denied one implies nothing.
//!
//! Pure.

use std::net::IpAddr;

/// What stands for each name, each host, and (as `User:*`) each principal.
const ANY: &str = "*";
/// The name of the only resource of its type.
pub(crate) const CLUSTER_NAME: &str = "kafka-cluster";
/// Rules that may exist at the same time; each question reads them all.
pub(crate) const MAX_ACLS: usize = 10_000;

/// An enumeration with Kafka's names and its codes on the wire.
macro_rules! coded {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $code:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are Kafka's")]
        pub enum $name { $($variant,)* }

        impl $name {
            pub(crate) fn code(self) -> i8 {
                match self { $(Self::$variant => $code,)* }
            }

            pub(crate) fn from_code(code: i8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

coded! {
    /// What a rule is about.
    ResourceType { Topic = 2, Group = 3, Cluster = 4, TransactionalId = 5, }
}
coded! {
    /// How the name of a rule is compared: as it is (where `*` is each name), or as a beginning.
    PatternType { Literal = 3, Prefixed = 4, }
}
coded! {
    /// What someone wants to do. `All` is for rules alone.
    Operation {
        All = 2, Read = 3, Write = 4, Create = 5, Delete = 6, Alter = 7, Describe = 8, ClusterAction = 9,
        DescribeConfigs = 10, AlterConfigs = 11, IdempotentWrite = 12,
    }
}
coded! {
    /// What a rule says.
    Permission { Deny = 2, Allow = 3, }
}

/// The resources that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourcePattern {
    /// Their type.
    pub resource: ResourceType,
    /// Their name, or its beginning, or `*`.
    pub name: String,
    /// How `name` is compared.
    pub pattern: PatternType,
}

impl ResourcePattern {
    /// The one resource with this name; `*` is all of the type.
    pub fn literal(resource: ResourceType, name: impl Into<String>) -> Self {
        Self {
            resource,
            name: name.into(),
            pattern: PatternType::Literal,
        }
    }

    /// All resources whose names begin like this.
    pub fn prefixed(resource: ResourceType, prefix: impl Into<String>) -> Self {
        Self {
            resource,
            name: prefix.into(),
            pattern: PatternType::Prefixed,
        }
    }

    /// The cluster.
    pub fn cluster() -> Self {
        Self::literal(ResourceType::Cluster, CLUSTER_NAME)
    }

    fn is_every_name(&self) -> bool {
        self.pattern == PatternType::Literal && self.name == ANY
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        match self.pattern {
            PatternType::Literal => self.name == name || self.name == ANY,
            PatternType::Prefixed => name.starts_with(&self.name),
        }
    }

    /// Whether this covers all that `other` covers.
    fn encloses(&self, other: &Self) -> bool {
        match self.pattern {
            PatternType::Literal => self.is_every_name() || self == other,
            PatternType::Prefixed => !other.is_every_name() && other.name.starts_with(&self.name),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl {
    /// Whom it is about: `User:<name>`, or `User:*` for everyone.
    pub principal: String,
    /// The address that they come from, `*` for each.
    pub host: String,
    /// What it is about.
    pub resource: ResourcePattern,
    /// What they want to do.
    pub operation: Operation,
    /// Whether they may.
    pub permission: Permission,
}

impl Acl {
    /// A rule that allows, from each host. `principal` is written `User:<name>`.
    pub fn allow(principal: impl Into<String>, operation: Operation, resource: ResourcePattern) -> Self {
        Self {
            principal: principal.into(),
            host: ANY.to_owned(),
            resource,
            operation,
            permission: Permission::Allow,
        }
    }

    /// A rule that denies, from each host.
    pub fn deny(principal: impl Into<String>, operation: Operation, resource: ResourcePattern) -> Self {
        Self {
            permission: Permission::Deny,
            ..Self::allow(principal, operation, resource)
        }
    }

    fn is_about(&self, asking: &Asking<'_>) -> bool {
        let same_principal = self.principal == asking.principal || self.principal == "User:*";
        let same_operation = self.operation == Operation::All
            || self.operation == asking.operation
            || self.permission == Permission::Allow && implies(self.operation, asking.operation);
        same_principal && same_operation && (self.host == ANY || is_host(&self.host, asking.host))
    }
}

fn is_host(written: &str, host: IpAddr) -> bool {
    written.parse() == Ok(host)
}

fn implies(allowed: Operation, asked: Operation) -> bool {
    use Operation::{Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
    match asked {
        Describe => matches!(allowed, Read | Write | Delete | Alter),
        DescribeConfigs => allowed == AlterConfigs,
        _ => false,
    }
}

/// A resource that someone wants to do something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
    TransactionalId(&'a str),
}

impl Resource<'_> {
    fn parts(&self) -> (ResourceType, &str) {
        match self {
            Self::Topic(name) => (ResourceType::Topic, name),
            Self::Group(name) => (ResourceType::Group, name),
            Self::Cluster => (ResourceType::Cluster, CLUSTER_NAME),
            Self::TransactionalId(name) => (ResourceType::TransactionalId, name),
        }
    }
}

/// Who asks, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) principal: &'a str,
    pub(crate) host: IpAddr,
    pub(crate) operation: Operation,
}

/// Which rules are meant, where a field that is `None` means all.
#[derive(Debug, Clone, Default)]
pub(crate) struct AclFilter {
    pub(crate) resource: Option<ResourceType>,
    pub(crate) name: Option<String>,
    pub(crate) pattern: PatternFilter,
    pub(crate) principal: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) operation: Option<Operation>,
    pub(crate) permission: Option<Permission>,
}

/// How the name of a filter is compared with that of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PatternFilter {
    /// The same name, whatever the type of the pattern.
    #[default]
    Any,
    /// The rules that hold for this name.
    Match,
    /// The same name and type of pattern.
    Only(PatternType),
}

impl AclFilter {
    pub(crate) fn meets(&self, acl: &Acl) -> bool {
        let same = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        let pattern = &acl.resource;
        let named = match (self.pattern, &self.name) {
            (PatternFilter::Match, Some(name)) => pattern.covers(name),
            (PatternFilter::Only(wanted), name) => pattern.pattern == wanted && same(name, &pattern.name),
            (_, name) => same(name, &pattern.name),
        };
        named
            && self.resource.is_none_or(|wanted| wanted == pattern.resource)
            && same(&self.principal, &acl.principal)
            && same(&self.host, &acl.host)
            && self.operation.is_none_or(|wanted| wanted == acl.operation)
            && self.permission.is_none_or(|wanted| wanted == acl.permission)
    }
}

/// All rules, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Acls {
    super_users: Vec<String>,
    rules: Vec<Acl>,
}

impl Acls {
    pub(crate) fn new(super_users: Vec<String>) -> Self {
        Self {
            super_users,
            rules: Vec::new(),
        }
    }

    /// Whether there was room for it. A rule that exists stays as it is.
    pub(crate) fn add(&mut self, acl: Acl) -> bool {
        if self.rules.contains(&acl) {
            return true;
        }
        let room = self.rules.len() < MAX_ACLS;
        if room {
            self.rules.push(acl);
        }
        room
    }

    /// Takes out what the predicate names and returns it.
    pub(crate) fn remove(&mut self, meant: impl Fn(&Acl) -> bool) -> Vec<Acl> {
        let (removed, kept) = std::mem::take(&mut self.rules).into_iter().partition(meant);
        self.rules = kept;
        removed
    }

    pub(crate) fn find(&self, filter: &AclFilter) -> Vec<Acl> {
        self.rules
            .iter()
            .filter(|acl| filter.meets(acl))
            .cloned()
            .collect()
    }

    pub(crate) fn allows(&self, asking: &Asking<'_>, resource: Resource<'_>) -> bool {
        if self.is_super_user(asking) {
            return true;
        }
        let (wanted, name) = resource.parts();
        let mut allowed = false;
        for acl in &self.rules {
            let pattern = &acl.resource;
            if pattern.resource == wanted && pattern.covers(name) && acl.is_about(asking) {
                if acl.permission == Permission::Deny {
                    return false;
                }
                allowed = true;
            }
        }
        allowed
    }

    /// Whether there may be a resource of this type with which the operation is allowed: something
    /// is allowed that no one rule denies as a whole.
    pub(crate) fn allows_some(&self, asking: &Asking<'_>, wanted: ResourceType) -> bool {
        if self.is_super_user(asking) {
            return true;
        }
        let rules = |permission| {
            self.rules.iter().filter(move |acl| {
                acl.permission == permission && acl.resource.resource == wanted && acl.is_about(asking)
            })
        };
        rules(Permission::Allow)
            .any(|allow| !rules(Permission::Deny).any(|deny| deny.resource.encloses(&allow.resource)))
    }

    fn is_super_user(&self, asking: &Asking<'_>) -> bool {
        self.super_users.iter().any(|user| user == asking.principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(principal: &'static str, operation: Operation) -> Asking<'static> {
        Asking {
            principal,
            host: [127, 0, 0, 1].into(),
            operation,
        }
    }

    fn acls(rules: impl IntoIterator<Item = Acl>) -> Acls {
        let mut acls = Acls::new(vec!["User:admin".to_owned()]);
        for rule in rules {
            assert!(acls.add(rule));
        }
        acls
    }

    fn topic(name: &str) -> ResourcePattern {
        ResourcePattern::literal(ResourceType::Topic, name)
    }

    fn topics(prefix: &str) -> ResourcePattern {
        ResourcePattern::prefixed(ResourceType::Topic, prefix)
    }

    #[test]
    fn without_a_rule_only_super_users_may() {
        let acls = acls([]);
        for (principal, expected) in [
            ("User:admin", true),
            ("User:app", false),
            ("User:ANONYMOUS", false),
        ] {
            let asking = asking(principal, Operation::Read);
            assert_eq!(acls.allows(&asking, Resource::Topic("orders")), expected);
            assert_eq!(acls.allows_some(&asking, ResourceType::Topic), expected);
        }
    }

    #[test]
    fn literal_prefixed_and_wildcard_names_cover_what_they_say() {
        for (pattern, covered, not_covered) in [
            (topic("orders"), "orders", "orders-2"),
            (topics("orders"), "orders-2", "order"),
            (topic("*"), "anything", ""),
        ] {
            let acls = acls([Acl::allow("User:app", Operation::Read, pattern)]);
            let asking = asking("User:app", Operation::Read);
            assert!(acls.allows(&asking, Resource::Topic(covered)));
            assert!(!acls.allows(&asking, Resource::Group(covered)));
            if !not_covered.is_empty() {
                assert!(!acls.allows(&asking, Resource::Topic(not_covered)));
            }
        }
        // A prefix `*` is the beginning of names, and only the literal one stands for all.
        let acls = acls([Acl::allow("User:app", Operation::Read, topics("*"))]);
        assert!(!acls.allows(&asking("User:app", Operation::Read), Resource::Topic("orders")));
    }

    #[test]
    fn a_denial_wins_whatever_the_order_and_the_pattern() {
        let allow = Acl::allow("User:app", Operation::All, topic("orders"));
        for deny in [topic("orders"), topics("ord"), topic("*")] {
            let deny = Acl::deny("User:*", Operation::Read, deny);
            for rules in [[allow.clone(), deny.clone()], [deny.clone(), allow.clone()]] {
                let acls = acls(rules);
                assert!(!acls.allows(&asking("User:app", Operation::Read), Resource::Topic("orders")));
                assert!(acls.allows(&asking("User:app", Operation::Write), Resource::Topic("orders")));
            }
        }
    }

    #[test]
    fn describe_is_implied_by_what_is_allowed_and_not_by_what_is_denied() {
        use Operation::*;
        let describes =
            |acl: Acl, asked| acls([acl]).allows(&asking("User:app", asked), Resource::Topic("t"));
        for (operation, describe, describe_configs) in [
            (Read, true, false),
            (Write, true, false),
            (Delete, true, false),
            (Alter, true, false),
            (Describe, true, false),
            (Create, false, false),
            (AlterConfigs, false, true),
            (DescribeConfigs, false, true),
            (All, true, true),
        ] {
            let acl = Acl::allow("User:app", operation, topic("t"));
            assert_eq!(describes(acl.clone(), Describe), describe, "{operation:?}");
            assert_eq!(describes(acl, DescribeConfigs), describe_configs, "{operation:?}");
        }
        let acls = acls([
            Acl::allow("User:app", Describe, topic("t")),
            Acl::deny("User:app", Read, topic("t")),
        ]);
        assert!(acls.allows(&asking("User:app", Describe), Resource::Topic("t")));
    }

    #[test]
    fn a_rule_for_a_host_holds_for_it_alone() {
        let acl = Acl::allow("User:app", Operation::Read, topic("t"));
        for (host, expected) in [("127.0.0.1", true), ("127.0.0.2", false), ("::1", false)] {
            let host = host.to_owned();
            let acls = acls([Acl { host, ..acl.clone() }]);
            let asking = asking("User:app", Operation::Read);
            assert_eq!(acls.allows(&asking, Resource::Topic("t")), expected);
        }
    }

    #[test]
    fn some_topic_may_be_written_unless_one_denial_covers_what_is_allowed() {
        let some = |rules: Vec<Acl>| {
            acls(rules).allows_some(&asking("User:app", Operation::Write), ResourceType::Topic)
        };
        let allow = |pattern| Acl::allow("User:app", Operation::Write, pattern);
        let deny = |pattern| Acl::deny("User:app", Operation::Write, pattern);
        assert!(some(vec![allow(topic("a"))]));
        assert!(some(vec![allow(topic("*")), deny(topics("a"))]));
        assert!(some(vec![allow(topics("a")), deny(topic("a"))]));
        assert!(!some(vec![allow(topic("ab")), deny(topics("a"))]));
        assert!(!some(vec![allow(topics("ab")), deny(topics("a"))]));
        assert!(!some(vec![allow(topics("a")), deny(topic("*"))]));
        assert!(!some(vec![deny(topic("b"))]));
    }

    #[test]
    fn rules_are_found_and_removed_by_filter_and_exist_once() {
        let first = Acl::allow("User:app", Operation::Read, topic("orders"));
        let second = Acl::allow("User:app", Operation::Write, topics("ord"));
        let mut acls = acls([first.clone(), second.clone(), first.clone()]);
        assert_eq!(acls.find(&AclFilter::default()), [first.clone(), second.clone()]);
        let named = |pattern| AclFilter {
            name: Some("orders".to_owned()),
            pattern,
            ..AclFilter::default()
        };
        assert_eq!(
            acls.find(&named(PatternFilter::Any)),
            std::slice::from_ref(&first)
        );
        assert_eq!(acls.find(&named(PatternFilter::Match)).len(), 2);
        assert!(
            acls.find(&named(PatternFilter::Only(PatternType::Prefixed)))
                .is_empty()
        );
        assert_eq!(acls.remove(|acl| *acl == first), [first]);
        assert_eq!(acls.find(&AclFilter::default()), [second]);
    }
}
