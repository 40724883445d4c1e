//! The SASL exchange of a connection, as a state machine.
//!
//! A connection that must authenticate says which mechanism it wants (SaslHandshake), then tokens
//! go back and forth until the user is known or the exchange has failed; a failed one can not go
//! on, so the connection ends with the answer that says so. Version 0 of the handshake is followed
//! by bare tokens, version 1 by SaslAuthenticate requests.
//!
//! Pure: users are looked up in what is given, and the nonce of the server is a parameter.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use kafka_protocol::messages::ApiKey;
use ring::digest;

use super::scram::{Challenge, ClientFirst, Credential, Hash, ScramError};
use super::{Mechanism, Password, Principal};

/// The iterations of a password's hash: Kafka's default, and the least that it allows.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4_095);
/// The first version of SaslHandshake whose clients wrap the tokens in requests.
const WRAPPED_SINCE: i16 = 1;

/// What is known of a user.
#[derive(Debug)]
pub(crate) struct User {
    password: Password,
    sha256: Arc<Credential>,
    sha512: Arc<Credential>,
}

impl User {
    pub(crate) fn new(password: &Password, salt: &[u8]) -> Self {
        let derived = |hash| {
            Arc::new(Credential::derive(
                hash,
                password.expose(),
                salt.to_vec(),
                ITERATIONS,
            ))
        };
        Self {
            password: password.clone(),
            sha256: derived(Hash::Sha256),
            sha512: derived(Hash::Sha512),
        }
    }

    fn credential(&self, hash: Hash) -> Arc<Credential> {
        Arc::clone(match hash {
            Hash::Sha256 => &self.sha256,
            Hash::Sha512 => &self.sha512,
        })
    }
}

/// The users and the mechanisms of a broker.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) users: HashMap<String, User>,
}

/// Why an exchange failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What the client is told, in Kafka's words; it does not say which part was wrong.
    pub(crate) message: String,
    /// What the log says.
    pub(crate) reason: String,
}

impl Refused {
    fn told(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            reason: message.to_owned(),
        }
    }

    fn credentials(mechanism: Mechanism, reason: impl ToString) -> Self {
        let message = format!(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism {}",
            mechanism.name()
        );
        Self {
            message,
            reason: reason.to_string(),
        }
    }
}

/// An exchange that waits for the client's next token.
#[derive(Debug)]
enum Exchange {
    Plain,
    ScramFirst(Mechanism, Hash),
    ScramFinal(Mechanism, String, Challenge),
}

/// What a token led to.
#[derive(Debug)]
enum Step {
    Next(Exchange, Vec<u8>),
    Done(String, Vec<u8>),
}

impl Exchange {
    fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::ScramSha256 => Self::ScramFirst(mechanism, Hash::Sha256),
            Mechanism::ScramSha512 => Self::ScramFirst(mechanism, Hash::Sha512),
        }
    }

    fn step(self, users: &HashMap<String, User>, token: &[u8], server_nonce: &str) -> Result<Step, Refused> {
        match self {
            Self::Plain => Ok(Step::Done(plain(users, token)?, Vec::new())),
            Self::ScramFirst(mechanism, hash) => {
                let refused = |error: ScramError| Refused::credentials(mechanism, error);
                let first = ClientFirst::parse(token).map_err(refused)?;
                let name = first.user.clone();
                let user = users.get(&name);
                let user = user.ok_or_else(|| Refused::credentials(mechanism, "the user is not known"))?;
                check_authorization_id(&first.authorization_id, &name)?;
                let challenge = first.challenge(user.credential(hash), server_nonce);
                let message = challenge.message().as_bytes().to_vec();
                Ok(Step::Next(Self::ScramFinal(mechanism, name, challenge), message))
            }
            Self::ScramFinal(mechanism, name, challenge) => {
                let finished = challenge.finish(token);
                let last = finished.map_err(|error| Refused::credentials(mechanism, error))?;
                Ok(Step::Done(name, last.into_bytes()))
            }
        }
    }
}

/// The user that `[ID] NUL USER NUL PASSWORD` proves (RFC 4616).
fn plain(users: &HashMap<String, User>, token: &[u8]) -> Result<String, Refused> {
    let token = String::from_utf8_lossy(token);
    let parts: Vec<&str> = token.splitn(4, '\0').collect();
    let [id, name, password] = parts[..] else {
        let message = format!(
            "Invalid SASL/PLAIN response: expected 3 tokens, got {}",
            parts.len()
        );
        return Err(Refused::told(&message));
    };
    if name.is_empty() {
        return Err(Refused::told("Authentication failed: username not specified"));
    }
    if password.is_empty() {
        return Err(Refused::told("Authentication failed: password not specified"));
    }
    let known = users.get(name);
    // Digests are compared, so the time that it takes tells nothing about the password.
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let proven =
        known.is_some_and(|user| digest(user.password.expose()).as_ref() == digest(password).as_ref());
    if !proven {
        return Err(Refused {
            reason: match known {
                Some(_) => format!("wrong password of user `{name}`"),
                None => "the user is not known".to_owned(),
            },
            ..Refused::told("Authentication failed: Invalid username or password")
        });
    }
    check_authorization_id(id, name)?;
    Ok(name.to_owned())
}

/// A user can act for nobody else.
fn check_authorization_id(id: &str, user: &str) -> Result<(), Refused> {
    if id.is_empty() || id == user {
        return Ok(());
    }
    Err(Refused::told(
        "Authentication failed: Client requested an authorization id that is different from username",
    ))
}

/// Where a connection stands.
#[derive(Debug)]
pub(crate) enum Session {
    /// It must say which mechanism it wants.
    Handshake,
    /// It must prove who it is.
    Proving(Proving),
    /// It is known. Without SASL every connection is, from the start.
    Established(Principal),
    /// It must end, for this reason.
    Refused(String),
}

/// An exchange on its way.
#[derive(Debug)]
pub(crate) struct Proving {
    exchange: Exchange,
    wrapped: bool,
}

/// SaslHandshake or SaslAuthenticate came when it must not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IllegalState;

impl Session {
    /// Whether a request may be answered now. What may not ends the connection.
    pub(crate) fn admits(&self, key: ApiKey) -> bool {
        match self {
            Self::Established(_) => true,
            Self::Handshake => matches!(key, ApiKey::ApiVersions | ApiKey::SaslHandshake),
            Self::Proving(proving) => proving.wrapped && matches!(key, ApiKey::SaslAuthenticate),
            Self::Refused(_) => false,
        }
    }

    /// Whether the next frame is a bare token instead of a request.
    pub(crate) fn expects_bare_token(&self) -> bool {
        matches!(self, Self::Proving(proving) if !proving.wrapped)
    }

    /// Who is on the other side, once that is known.
    pub(crate) fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Established(principal) => Some(principal),
            _ => None,
        }
    }

    /// The client names a mechanism; the answer is whether it is served.
    pub(crate) fn handshake(
        &mut self,
        directory: &Directory,
        version: i16,
        mechanism: &str,
    ) -> Result<bool, IllegalState> {
        if !matches!(self, Self::Handshake) {
            return Err(IllegalState);
        }
        let served = directory
            .mechanisms
            .iter()
            .find(|served| served.name() == mechanism);
        *self = match served {
            Some(mechanism) => Self::Proving(Proving {
                exchange: Exchange::new(*mechanism),
                wrapped: version >= WRAPPED_SINCE,
            }),
            None => Self::Refused("the client wants a mechanism that is not served".to_owned()),
        };
        Ok(served.is_some())
    }

    /// Takes a token and gives the one to answer with. After an `Err` the session is refused.
    pub(crate) fn authenticate(
        &mut self,
        directory: &Directory,
        token: &[u8],
        server_nonce: &str,
    ) -> Result<Vec<u8>, Refused> {
        let before = std::mem::replace(self, Self::Refused("an exchange broke off".to_owned()));
        let Self::Proving(Proving { exchange, wrapped }) = before else {
            return Err(Refused::told("SaslAuthenticate request received out of turn"));
        };
        match exchange.step(&directory.users, token, server_nonce) {
            Ok(Step::Next(exchange, answer)) => {
                *self = Self::Proving(Proving { exchange, wrapped });
                Ok(answer)
            }
            Ok(Step::Done(user, answer)) => {
                *self = Self::Established(Principal::user(&user));
                Ok(answer)
            }
            Err(refused) => {
                *self = Self::Refused(refused.reason.clone());
                Err(refused)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let user = User::new(&Password::new("app-secret"), b"salt");
        Directory {
            mechanisms: vec![Mechanism::Plain, Mechanism::ScramSha512],
            users: HashMap::from([("app".to_owned(), user)]),
        }
    }

    fn proving(directory: &Directory, version: i16, mechanism: &str) -> Session {
        let mut session = Session::Handshake;
        assert_eq!(session.handshake(directory, version, mechanism), Ok(true));
        session
    }

    #[test]
    fn before_a_connection_is_known_only_the_exchange_is_answered() {
        let directory = directory();
        let mut session = Session::Handshake;
        for (key, admitted) in [
            (ApiKey::ApiVersions, true),
            (ApiKey::SaslHandshake, true),
            (ApiKey::SaslAuthenticate, false),
            (ApiKey::Metadata, false),
            (ApiKey::Produce, false),
        ] {
            assert_eq!(session.admits(key), admitted, "{key:?}");
        }
        assert_eq!(session.handshake(&directory, 1, "PLAIN"), Ok(true));
        assert!(session.admits(ApiKey::SaslAuthenticate));
        assert!(!session.admits(ApiKey::ApiVersions) && !session.admits(ApiKey::Metadata));
        assert!(session.principal().is_none());
        session
            .authenticate(&directory, b"\0app\0app-secret", "")
            .unwrap();
        assert!(session.admits(ApiKey::Metadata));
        assert_eq!(session.principal().unwrap().as_str(), "User:app");
        assert_eq!(session.handshake(&directory, 1, "PLAIN"), Err(IllegalState));
        assert!(session.principal().is_some(), "it is known still");
    }

    #[test]
    fn version_0_of_the_handshake_is_followed_by_bare_tokens() {
        let directory = directory();
        assert!(!proving(&directory, 1, "PLAIN").expects_bare_token());
        let session = proving(&directory, 0, "PLAIN");
        assert!(session.expects_bare_token());
        assert!(!session.admits(ApiKey::SaslAuthenticate));
    }

    #[test]
    fn a_mechanism_that_is_not_served_refuses_the_connection() {
        let mut session = Session::Handshake;
        assert_eq!(session.handshake(&directory(), 1, "SCRAM-SHA-256"), Ok(false));
        assert!(matches!(session, Session::Refused(_)));
        assert!(!session.admits(ApiKey::SaslHandshake));
    }

    #[test]
    fn plain_says_in_kafkas_words_what_was_wrong_and_never_which_part() {
        let directory = directory();
        let invalid = "Authentication failed: Invalid username or password";
        for (token, message) in [
            (&b"\0app\0wrong"[..], invalid),
            (b"\0nobody\0app-secret", invalid),
            (b"\0\0app-secret", "Authentication failed: username not specified"),
            (b"\0app\0", "Authentication failed: password not specified"),
            (
                b"app\0app-secret",
                "Invalid SASL/PLAIN response: expected 3 tokens, got 2",
            ),
            (
                b"\0app\0app-secret\0x\0y",
                "Invalid SASL/PLAIN response: expected 3 tokens, got 4",
            ),
            (b"\0app\0\xff", invalid),
            (
                b"admin\0app\0app-secret",
                "Authentication failed: Client requested an authorization id that is different from username",
            ),
        ] {
            let mut session = proving(&directory, 1, "PLAIN");
            let refused = session.authenticate(&directory, token, "").unwrap_err();
            assert_eq!(refused.message, message);
            assert!(matches!(session, Session::Refused(_)));
            assert!(!format!("{session:?} {refused:?}").contains("secret"));
        }
        let mut session = proving(&directory, 1, "PLAIN");
        assert!(
            session
                .authenticate(&directory, b"app\0app\0app-secret", "")
                .is_ok()
        );
    }

    #[test]
    fn an_unknown_user_and_a_wrong_proof_of_scram_are_told_the_same() {
        let directory = directory();
        let mut session = proving(&directory, 1, "SCRAM-SHA-512");
        let unknown = session
            .authenticate(&directory, b"n,,n=nobody,r=x", "y")
            .unwrap_err();
        let mut session = proving(&directory, 1, "SCRAM-SHA-512");
        let challenge = session.authenticate(&directory, b"n,,n=app,r=x", "y").unwrap();
        assert!(challenge.starts_with(b"r=xy,s="), "{challenge:?}");
        assert!(session.principal().is_none());
        let proof = format!("c=biws,r=xy,p={}", "A".repeat(86) + "==");
        let wrong = session
            .authenticate(&directory, proof.as_bytes(), "z")
            .unwrap_err();
        assert_eq!(wrong.message, unknown.message);
        assert_ne!(wrong.reason, unknown.reason);
        assert!(session.authenticate(&directory, proof.as_bytes(), "z").is_err());
    }
}
