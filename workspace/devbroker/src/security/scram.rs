//! SCRAM, the server's side: RFC 5802 with SHA-256 (RFC 7677) and with SHA-512.
//!
//! The two messages of the client are two types, so that they can not come in another order: a
//! [`ClientFirst`] is challenged, and only a [`Challenge`] can be finished. The server proves itself
//! too: its last message is signed with a key that only a holder of the password can know.
//!
//! Pure: salt and nonces are parameters.

use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message)
    }

    fn digest(self, bytes: &[u8]) -> digest::Digest {
        match self {
            Self::Sha256 => digest::digest(&digest::SHA256, bytes),
            Self::Sha512 => digest::digest(&digest::SHA512, bytes),
        }
    }

    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// What the server knows of a password.
#[derive(Clone)]
pub(crate) struct Credential {
    hash: Hash,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

// The keys stand for the password.
impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut formatter = formatter.debug_struct("Credential");
        formatter.field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Credential {
    /// As slow as `iterations` are many: 4,096 take some milliseconds.
    pub(crate) fn derive(hash: Hash, password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let salted = hash.salted(password, &salt, iterations);
        let client_key = hash.hmac(&salted, b"Client Key");
        let stored_key = hash.digest(client_key.as_ref()).as_ref().to_vec();
        let server_key = hash.hmac(&salted, b"Server Key").as_ref().to_vec();
        Self {
            hash,
            salt,
            iterations,
            stored_key,
            server_key,
        }
    }
}

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    #[error("the message is not one of SCRAM")]
    Malformed,
    #[error("the client wants a channel binding, which Kafka does not have")]
    ChannelBinding,
    #[error("the message belongs to another exchange")]
    OtherExchange,
    #[error("the proof is not one of this user's password")]
    Proof,
}

/// The client's first message: who it wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub(crate) user: String,
    /// Whom it wants to act for; empty is the user itself.
    pub(crate) authorization_id: String,
    header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads `n,[a=ID],n=USER,r=NONCE[,EXTENSIONS]`.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let message = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (binding, rest) = message.split_once(',').ok_or(ScramError::Malformed)?;
        if binding != "n" {
            return Err(ScramError::ChannelBinding);
        }
        let (authorization, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let authorization_id = match authorization {
            "" => String::new(),
            given => unescaped(given.strip_prefix("a=").ok_or(ScramError::Malformed)?)?,
        };
        let mut fields = bare.split(',');
        let mut field = |name: &str| {
            let value = fields.next().and_then(|field| field.strip_prefix(name));
            value
                .filter(|value| !value.is_empty())
                .ok_or(ScramError::Malformed)
        };
        let user = unescaped(field("n=")?)?;
        let nonce = field("r=")?.to_owned();
        Ok(Self {
            user,
            authorization_id,
            header: format!("{binding},{authorization},"),
            bare: bare.to_owned(),
            nonce,
        })
    }

    /// Asks for a proof. `server_nonce` must be fresh, printable and without a comma.
    pub(crate) fn challenge(self, credential: Arc<Credential>, server_nonce: &str) -> Challenge {
        let nonce = format!("{}{server_nonce}", self.nonce);
        let salt = STANDARD.encode(&credential.salt);
        let message = format!("r={nonce},s={salt},i={}", credential.iterations);
        Challenge {
            first: self,
            credential,
            nonce,
            message,
        }
    }
}

/// The server's first message, and what is needed to judge the answer to it.
#[derive(Debug)]
pub(crate) struct Challenge {
    first: ClientFirst,
    credential: Arc<Credential>,
    nonce: String,
    message: String,
}

impl Challenge {
    /// What is sent to the client.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Judges `c=HEADER,r=NONCE[,EXTENSIONS],p=PROOF`; gives the server's last message.
    pub(crate) fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let message = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = without_proof.split(',');
        let mut is = |name: &str, expected: &str| {
            fields.next().and_then(|field| field.strip_prefix(name)) == Some(expected)
        };
        if !is("c=", &STANDARD.encode(&self.first.header)) || !is("r=", &self.nonce) {
            return Err(ScramError::OtherExchange);
        }
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let hash = self.credential.hash;
        let signed = format!("{},{},{without_proof}", self.first.bare, self.message);
        let signature = hash.hmac(&self.credential.stored_key, signed.as_bytes());
        if proof.len() != signature.as_ref().len() {
            return Err(ScramError::Malformed);
        }
        let pairs = proof.iter().zip(signature.as_ref());
        let client_key: Vec<u8> = pairs.map(|(proof, signature)| proof ^ signature).collect();
        // Digests are compared, so the time that it takes tells nothing about the key.
        if hash.digest(&client_key).as_ref() != self.credential.stored_key {
            return Err(ScramError::Proof);
        }
        let verifier = hash.hmac(&self.credential.server_key, signed.as_bytes());
        Ok(format!("v={}", STANDARD.encode(verifier)))
    }
}

/// A name as it was before `,` and `=` were written as `=2C` and `=3D`.
fn unescaped(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else {
            ('=', part.strip_prefix("3D").ok_or(ScramError::Malformed)?)
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677, section 3: user `user`, password `pencil`.
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn challenge(password: &str) -> Challenge {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = NonZeroU32::new(4_096).unwrap();
        let credential = Credential::derive(Hash::Sha256, password, salt, iterations);
        let first = ClientFirst::parse(FIRST).unwrap();
        assert_eq!(first.user, "user");
        first.challenge(Arc::new(credential), SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677_goes_through_word_by_word() {
        let challenge = challenge("pencil");
        assert_eq!(challenge.message(), SERVER_FIRST);
        assert_eq!(challenge.finish(FINAL.as_bytes()).as_deref(), Ok(SERVER_FINAL));
    }

    #[test]
    fn another_password_another_nonce_and_another_header_are_refused() {
        let refused = |password: &str, message: String| challenge(password).finish(message.as_bytes());
        assert_eq!(refused("pencils", FINAL.to_owned()), Err(ScramError::Proof));
        assert_eq!(
            refused("pencil", FINAL.replace("p=dHz", "p=dHy")),
            Err(ScramError::Proof)
        );
        assert_eq!(
            refused("pencil", FINAL.replace("r=rO", "r=rP")),
            Err(ScramError::OtherExchange)
        );
        // `y,,`: the client says that the server has no channel binding.
        assert_eq!(
            refused("pencil", FINAL.replace("biws", "eSws")),
            Err(ScramError::OtherExchange)
        );
        assert_eq!(
            refused("pencil", FINAL.replace("ndVQ=", "")),
            Err(ScramError::Malformed)
        );
    }

    #[test]
    fn names_lose_their_escapes() {
        let first = ClientFirst::parse(b"n,a=x=3Dy,n=a=2Cb=3Dc,r=nonce,ext=1").unwrap();
        assert_eq!(first.user, "a,b=c");
        assert_eq!(first.authorization_id, "x=y");
    }

    #[test]
    fn what_is_no_first_message_is_refused() {
        for message in [
            "",
            "n",
            "n,,",
            "n,,n=user",
            "n,,r=nonce,n=user",
            "n,,n=,r=x",
            "n,,n=u=41,r=x",
            "n,u,n=u,r=x",
        ] {
            let parsed = ClientFirst::parse(message.as_bytes());
            assert_eq!(parsed, Err(ScramError::Malformed), "{message}");
        }
        assert_eq!(
            ClientFirst::parse(b"p=tls-unique,,n=u,r=x"),
            Err(ScramError::ChannelBinding)
        );
        assert_eq!(ClientFirst::parse(&[0xff]), Err(ScramError::Malformed));
    }
}
