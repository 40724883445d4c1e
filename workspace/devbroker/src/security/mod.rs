//! Who may connect, and what they may do.
//!
//! A connection is *known* before any request of it is answered, except those that make it known:
//! by its address alone (`User:ANONYMOUS`), by the certificate that it shows, or by what it proves
//! over SASL, where the last of these that is configured decides. What a known connection may do is
//! then a question to the access rules, which costs nothing where there are none.
//!
//! - `tls`, `subject`: encryption, and the name in a client's certificate.
//! - `sasl`, `scram`: pure; proving a user with PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
//! - `acl`: pure; the access rules.

mod acl;
mod sasl;
mod scram;
mod subject;
pub(crate) mod tls;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use uuid::Uuid;

pub use acl::{Acl, Operation, PatternType, Permission, ResourcePattern, ResourceType};
pub(crate) use acl::{AclFilter, CLUSTER_NAME, MAX_ACLS, PatternFilter, Resource};
use acl::{Acls, Asking};
use sasl::{Directory, User};
pub(crate) use sasl::{IllegalState, Refused, Session};

use crate::sync;

/// What clients must show, and what they may do. The default is Kafka's: PLAINTEXT, and everyone
/// may do everything.
///
/// The security protocol follows from the fields: `tls` alone is SSL, `sasl` alone SASL_PLAINTEXT,
/// both are SASL_SSL.
#[derive(Debug, Clone)]
pub struct Security {
    /// Encryption.
    pub tls: Option<Tls>,
    /// Names and passwords.
    pub sasl: Option<Sasl>,
    /// Access rules. With `Some` everything is denied that no rule allows.
    pub authorization: Option<Authorization>,
    /// How long a connection may take until it is known.
    pub handshake_timeout: Duration,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            tls: None,
            sasl: None,
            authorization: None,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Security {
    /// The `security.protocol` that a client must set.
    pub fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }
}

/// The broker's side of TLS, as PEM texts.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The broker's certificate, followed by those of the authorities between it and the root.
    pub certificate_chain_pem: String,
    /// The key of the first certificate.
    pub private_key_pem: Password,
    /// The authorities of client certificates. With `Some` each client must show one, and where
    /// there is no SASL it is `User:` and the subject of its certificate, such as `User:CN=worker`.
    pub client_ca_pem: Option<String>,
}

/// Names and passwords, and how they may be proven.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// What clients may set as `sasl.mechanism`.
    pub mechanisms: Vec<Mechanism>,
    /// The users. `app` becomes the principal `User:app`.
    pub users: Vec<(String, Password)>,
}

impl Sasl {
    /// These users, with every mechanism.
    pub fn users<N: Into<String>, P: Into<String>>(users: impl IntoIterator<Item = (N, P)>) -> Self {
        let user = |(name, password): (N, P)| (name.into(), Password::new(password));
        Self {
            mechanisms: vec![Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512],
            users: users.into_iter().map(user).collect(),
        }
    }
}

/// A way to prove a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// The password itself (RFC 4616).
    Plain,
    /// A proof of it with SHA-256 (RFC 7677).
    ScramSha256,
    /// A proof of it with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name on the wire and in client settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The access rules that a broker starts with.
#[derive(Debug, Clone, Default)]
pub struct Authorization {
    /// Principals that may do everything, written `User:<name>`.
    pub super_users: Vec<String>,
    /// The rules, at most 10,000.
    pub acls: Vec<Acl>,
}

/// A password or a key, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Who is on the other side of a connection, written as access rules name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal(Arc<str>);

impl Principal {
    pub(crate) fn user(name: &str) -> Self {
        Self(format!("User:{name}").into())
    }

    pub(crate) fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The running counterpart of [`Security`], which all connections ask.
#[derive(Debug)]
pub(crate) struct Guard {
    sasl: Option<Directory>,
    acls: Option<RwLock<Acls>>,
    anonymous: Principal,
}

/// There are no access rules, or no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AclError {
    #[error("access rules are off: start the broker with `Security::authorization`")]
    Off,
    #[error("there are {MAX_ACLS} access rules, and no more can be added")]
    Full,
}

impl Guard {
    pub(crate) fn new(security: &Security) -> Self {
        let directory = |sasl: &Sasl| {
            let user = |(name, password): &(String, Password)| {
                (name.clone(), User::new(password, Uuid::new_v4().as_bytes()))
            };
            Directory {
                mechanisms: sasl.mechanisms.clone(),
                users: sasl.users.iter().map(user).collect::<HashMap<_, _>>(),
            }
        };
        let rules = |authorization: &Authorization| {
            let mut acls = Acls::new(authorization.super_users.clone());
            for acl in &authorization.acls {
                if !acls.add(acl.clone()) {
                    tracing::warn!(limit = MAX_ACLS, "access rule left out: {}", AclError::Full);
                }
            }
            RwLock::new(acls)
        };
        Self {
            sasl: security.sasl.as_ref().map(directory),
            acls: security.authorization.as_ref().map(rules),
            anonymous: Principal::anonymous(),
        }
    }

    /// The state of a connection that begins; `shown` is who it is by its certificate.
    pub(crate) fn session(&self, shown: Option<Principal>) -> Session {
        match &self.sasl {
            Some(_) => Session::Handshake,
            None => Session::Established(shown.unwrap_or_else(|| self.anonymous.clone())),
        }
    }

    /// The names of the mechanisms that are served.
    pub(crate) fn mechanisms(&self) -> impl Iterator<Item = &'static str> {
        let served = self.sasl.iter().flat_map(|sasl| &sasl.mechanisms);
        served.map(|mechanism| mechanism.name())
    }

    /// See [`Session::handshake`].
    pub(crate) fn handshake(
        &self,
        session: &mut Session,
        version: i16,
        mechanism: &str,
    ) -> Result<bool, IllegalState> {
        let sasl = self.sasl.as_ref().ok_or(IllegalState)?;
        session.handshake(sasl, version, mechanism)
    }

    /// See [`Session::authenticate`]; `None` where there is nothing to authenticate.
    pub(crate) fn authenticate(
        &self,
        session: &mut Session,
        token: &[u8],
    ) -> Option<Result<Vec<u8>, Refused>> {
        let sasl = self.sasl.as_ref()?;
        if session.principal().is_some() {
            return None;
        }
        let nonce = Uuid::new_v4().simple().to_string();
        Some(session.authenticate(sasl, token, &nonce))
    }

    /// Whether `principal`, coming from `host`, may do this.
    pub(crate) fn allows(
        &self,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        let Some(acls) = &self.acls else {
            return true;
        };
        let principal = principal.as_str();
        let asking = Asking {
            principal,
            host,
            operation,
        };
        let allowed = sync::read(acls).allows(&asking, resource);
        if !allowed {
            tracing::debug!(principal, %host, ?operation, ?resource, "denied");
        }
        allowed
    }

    /// Whether they may do this with some resource of the type.
    pub(crate) fn allows_some(
        &self,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        let asking = Asking {
            principal: principal.as_str(),
            host,
            operation,
        };
        let Some(acls) = &self.acls else {
            return true;
        };
        sync::read(acls).allows_some(&asking, resource)
    }

    pub(crate) fn add_acl(&self, acl: Acl) -> Result<(), AclError> {
        let acls = self.acls.as_ref().ok_or(AclError::Off)?;
        if sync::write(acls).add(acl) {
            Ok(())
        } else {
            Err(AclError::Full)
        }
    }

    /// Takes out the rules that are meant and returns them.
    pub(crate) fn remove_acls(&self, meant: impl Fn(&Acl) -> bool) -> Result<Vec<Acl>, AclError> {
        let acls = self.acls.as_ref().ok_or(AclError::Off)?;
        Ok(sync::write(acls).remove(meant))
    }

    pub(crate) fn find_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, AclError> {
        let acls = self.acls.as_ref().ok_or(AclError::Off)?;
        Ok(sync::read(acls).find(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let security = Security {
            tls: Some(Tls {
                certificate_chain_pem: "chain".to_owned(),
                private_key_pem: Password::new("hidden-key"),
                client_ca_pem: None,
            }),
            sasl: Some(Sasl::users([("app", "hidden-password")])),
            ..Security::default()
        };
        let guard = Guard::new(&security);
        let printed = format!("{security:?} {guard:?}");
        assert!(
            printed.contains("app") && !printed.contains("hidden"),
            "{printed}"
        );
        assert_eq!(security.protocol(), "SASL_SSL");
    }

    #[test]
    fn without_rules_everything_is_allowed_and_no_rule_can_be_added() {
        let guard = Guard::new(&Security::default());
        let host = [127, 0, 0, 1].into();
        let anonymous = Principal::anonymous();
        assert!(guard.allows(&anonymous, host, Operation::Alter, Resource::Cluster));
        assert!(guard.allows_some(&anonymous, host, Operation::Write, ResourceType::Topic));
        let acl = Acl::allow("User:app", Operation::Read, ResourcePattern::cluster());
        assert_eq!(guard.add_acl(acl), Err(AclError::Off));
    }
}
