//! A plain HTTP client for what a test asks.

use reqwest::{Client, IntoUrl, Response};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

/// A client. `reqwest` makes none before somebody has said whose cryptography TLS stands on, not even one
/// that speaks no TLS.
pub fn http() -> Client {
    if CryptoProvider::get_default().is_none() {
        // Whoever was first in this process chose the same.
        let _installed = ring::default_provider().install_default().is_ok();
    }
    Client::new()
}

/// The answer to a GET.
///
/// # Errors
/// What the client says when no answer comes.
pub async fn fetch(url: impl IntoUrl) -> reqwest::Result<Response> {
    http().get(url).send().await
}
