//! Whose cryptography TLS stands on in this process.

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

/// Chooses `ring` for all TLS of this process. An HTTP client can not be made before, not even one that
/// speaks no TLS; whoever makes one calls this first. Safe to repeat.
pub fn prepare_tls() {
    if CryptoProvider::get_default().is_none() {
        // Whoever was first meanwhile chose the same.
        let _installed = ring::default_provider().install_default().is_ok();
    }
}
