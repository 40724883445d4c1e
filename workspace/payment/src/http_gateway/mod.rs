//! A gateway behind HTTP.
//!
//! `POST <url>` with the header `Idempotency-Key` charges (docs/schemas/charge.schema.json), and
//! `GET <url>/<payment_id>` asks what became of a payment. What the answers mean is in [`answer`].
//!
//! Everything is bounded: the time to connect, the time until the answer is read to its end, and its
//! bytes. Redirects are not followed, since they would carry money orders and credentials to somebody
//! else, and no proxy of the environment is used. Certificates are always checked.

pub mod answer;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use domain::json::write_string;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, RequestBuilder, Response, Url};

use self::answer::{Answer, Body};
use crate::config::GatewaySettings;
use crate::gateway::{Charge, Found, GatewayError, PaymentGateway, Settled};

/// Longer answers are not read to their end.
const MOST_BODY_BYTES: usize = 64 * 1024;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// A client that can not be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address, which the configuration should have refused.
    #[error("`payment.gateway.url` is not set or no URL")]
    Url,
    /// The token has characters that no header may have.
    #[error("`payment.gateway.bearer_token` has characters that a header can not have")]
    Token,
    /// The authorities to trust.
    #[error("`payment.gateway.ca_file` is `{}`, which gives no certificates: {cause}", path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The client itself.
    #[error("no HTTP client: {0}")]
    Client(reqwest::Error),
}

/// The gateway at a URL.
#[derive(Clone, Debug)]
pub struct HttpGateway {
    client: Client,
    url: Url,
}

impl HttpGateway {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// What of the settings can not be used.
    pub fn new(settings: &GatewaySettings) -> Result<Self, OpenError> {
        let url = settings.parsed_url().ok_or(OpenError::Url)?;
        service::prepare_tls();
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .timeout(Duration::from_millis(settings.request_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(settings.max_in_flight)
            .user_agent(concat!("orderflow/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(settings)?);
        if let Some(path) = &settings.ca_file {
            builder = builder.tls_certs_only(authorities(path)?);
        } else if url.scheme() == "http" {
            // Nobody has to be trusted, and the system's authorities may not be installed.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(OpenError::Client)?;
        Ok(Self { client, url })
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, GatewayError> {
        let response = request.send().await.map_err(|error| no_answer(&error))?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| answer::retry_after(value, SystemTime::now()));
        Ok(Answer {
            status,
            retry_after,
            body: read_body(response).await,
        })
    }

    fn lookup_url(&self, payment_id: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(payment_id);
        }
        url
    }
}

impl PaymentGateway for HttpGateway {
    async fn charge(&self, charge: Charge<'_>) -> Result<Settled, GatewayError> {
        let request = self
            .client
            .post(self.url.clone())
            .header(IDEMPOTENCY_KEY, charge.payment_id)
            .header(CONTENT_TYPE, "application/json")
            .body(body_of(&charge));
        answer::of_charge(&self.answer(request).await?)
    }

    async fn lookup(&self, payment_id: &str) -> Result<Found, GatewayError> {
        let request = self.client.get(self.lookup_url(payment_id));
        answer::of_lookup(&self.answer(request).await?)
    }
}

fn headers(settings: &GatewaySettings) -> Result<HeaderMap, OpenError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = settings.bearer_token.as_ref().filter(|token| !token.is_empty()) {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| OpenError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// The authorities of a PEM file. With a file of our own, nobody else is trusted.
fn authorities(path: &PathBuf) -> Result<Vec<Certificate>, OpenError> {
    let refused = |cause: String| OpenError::Authorities {
        path: path.clone(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| refused(causes(&error)))?;
    if found.is_empty() {
        return Err(refused("it has none".to_owned()));
    }
    Ok(found)
}

/// The body of a charge. The amount is an exact decimal number of major units.
fn body_of(charge: &Charge<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(160);
    body.extend_from_slice(b"{\"order_id\":");
    charge.order_id.write_json(&mut body);
    body.extend_from_slice(b",\"amount\":");
    charge.money.write_json(&mut body);
    body.extend_from_slice(b",\"currency\":");
    write_string(&mut body, charge.money.currency.as_str());
    body.extend_from_slice(b",\"payment_id\":");
    write_string(&mut body, charge.payment_id);
    body.push(b'}');
    body
}

async fn read_body(mut response: Response) -> Body {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MOST_BODY_BYTES => {
                return Body::Broken(format!("its body is longer than {MOST_BODY_BYTES} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Body::Whole(body),
            Err(error) => return Body::Broken(format!("its body ended early: {}", causes(&error))),
        }
    }
}

fn no_answer(error: &reqwest::Error) -> GatewayError {
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "not in time"
    } else {
        "the request ended early"
    };
    GatewayError::NoAnswer {
        message: format!("{what}: {}", causes(error)),
    }
}

/// The innermost cause says what happened; the outer ones repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use domain::{Currency, Money, OrderId, Secret};

    use super::*;

    fn settings(url: &str) -> GatewaySettings {
        GatewaySettings {
            url: Some(url.to_owned()),
            ..GatewaySettings::default()
        }
    }

    #[test]
    fn the_body_of_a_charge_is_exact() {
        for (order_id, amount, currency, wanted) in [
            (
                OrderId::integer(1),
                "249.90",
                "USD",
                r#"{"order_id":1,"amount":249.9,"currency":"USD","payment_id":"pay_1"}"#,
            ),
            (
                OrderId::from_text("A\"7").unwrap(),
                "90071992547409.93",
                "EUR",
                r#"{"order_id":"A\"7","amount":90071992547409.93,"currency":"EUR","payment_id":"pay_1"}"#,
            ),
            (
                OrderId::integer(-3),
                "12000",
                "JPY",
                r#"{"order_id":-3,"amount":12000,"currency":"JPY","payment_id":"pay_1"}"#,
            ),
        ] {
            let charge = Charge {
                payment_id: "pay_1",
                order_id: &order_id,
                money: Money::parse(amount, Currency::parse(currency).unwrap()).unwrap(),
            };
            assert_eq!(String::from_utf8(body_of(&charge)).unwrap(), wanted);
        }
    }

    #[test]
    fn a_payment_is_looked_up_below_the_address() {
        for url in ["http://localhost:1/charges", "http://localhost:1/charges/"] {
            let gateway = HttpGateway::new(&settings(url)).unwrap();
            assert_eq!(
                gateway.lookup_url("pay_1").as_str(),
                "http://localhost:1/charges/pay_1"
            );
        }
    }

    #[test]
    fn the_token_is_shown_nowhere() {
        let settings = GatewaySettings {
            bearer_token: Some(Secret::new("hunter2")),
            ..settings("https://localhost:1")
        };
        let gateway = HttpGateway::new(&settings).unwrap();
        let shown = format!("{gateway:?} {settings:?} {:?}", headers(&settings).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
