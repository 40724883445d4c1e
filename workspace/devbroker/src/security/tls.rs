//! TLS: what the broker shows, whom it trusts, and what its owner can do when a handshake fails.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, AlertDescription, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::{Principal, Tls, subject};

/// Why there can be no TLS with these settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsSettingsError {
    #[error("`{field}` is not PEM: {reason}")]
    Pem { field: &'static str, reason: String },
    #[error("`{0}` holds no certificate")]
    Empty(&'static str),
    #[error("a certificate of `client_ca_pem` can not be trusted: {0}")]
    ClientCa(String),
    #[error("certificate chain and key do not go together: {0}")]
    Pair(String),
}

/// Reads the PEM texts. TLS 1.2 and 1.3 are spoken.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsSettingsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("certificate_chain_pem", &tls.certificate_chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(tls.private_key_pem.expose().as_bytes());
    let key = key.map_err(|error| TlsSettingsError::Pem {
        field: "private_key_pem",
        reason: error.to_string(),
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsSettingsError::Pair(error.to_string()))?;
    let builder = match &tls.client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => builder.with_client_cert_verifier(verifier(pem, provider)?),
    };
    let config = builder.with_single_cert(chain, key);
    let config = config.map_err(|error| TlsSettingsError::Pair(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(field: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| TlsSettingsError::Pem {
        field,
        reason: error.to_string(),
    })?;
    if read.is_empty() {
        return Err(TlsSettingsError::Empty(field));
    }
    Ok(read)
}

fn verifier(
    pem: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsSettingsError> {
    let failed = |error: &dyn std::fmt::Display| TlsSettingsError::ClientCa(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_pem", pem)? {
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| failed(&error))
}

/// The principal of a client that showed a certificate: `User:` and its subject.
pub(crate) fn principal(stream: &TlsStream<TcpStream>) -> Option<Principal> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates()?.first()?;
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    subject::written(certificate.subject()).map(|subject| Principal::user(&subject))
}

/// What the owner of the client can do about a handshake that failed.
pub(crate) fn remedy(error: &std::io::Error) -> &'static str {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            "the client does not speak TLS: set its `security.protocol` to `SSL` or `SASL_SSL`"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        )) => {
            "the client does not trust the broker's certificate: give it the CA (`ssl.ca.location`), and reach \
             the broker by a name that stands in the certificate"
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            "this broker wants a certificate of each client: set `ssl.certificate.location` and \
             `ssl.key.location`"
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            "the client's certificate is not accepted: it must be valid, and signed by the client CA of the \
             broker"
        }
        Some(rustls::Error::PeerIncompatible(_)) => "client and broker must both speak TLS 1.2 or 1.3",
        _ => "the client broke off; its own log says why",
    }
}
