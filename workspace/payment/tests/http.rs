//! The client alone: what it sends, what it follows, what it trusts, and when it stops waiting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::sync::Arc;
use std::time::Duration;

use domain::{Currency, Money, OrderId, Secret};
use payment::config::GatewaySettings;
use payment::gateway::{Charge, Found, GatewayError, PaymentGateway, Settled};
use payment::http_gateway::HttpGateway;
use testkit::{FakeGateway, GatewayFaults};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

fn client(url: &str, change: impl FnOnce(&mut GatewaySettings)) -> HttpGateway {
    let mut settings = GatewaySettings {
        url: Some(url.to_owned()),
        ..GatewaySettings::default()
    };
    change(&mut settings);
    HttpGateway::new(&settings).expect("a client")
}

fn payment_id() -> String {
    domain::ids::payment_id("7")
}

async fn charge(gateway: &HttpGateway) -> Result<Settled, GatewayError> {
    let order_id = OrderId::integer(7);
    let payment_id = payment_id();
    let charge = Charge {
        payment_id: &payment_id,
        order_id: &order_id,
        money: Money::parse("249.99", Currency::USD).unwrap(),
    };
    let answered = tokio::time::timeout(Duration::from_secs(60), gateway.charge(charge));
    answered.await.expect("it does not wait for ever")
}

/// Reads a request to the end of its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if count == 0 || text.ends_with('}') || text.starts_with("GET") && text.ends_with("\r\n\r\n") {
            return text;
        }
    }
}

/// Answers every connection with these bytes, and tells what was asked. It never hangs up by itself.
async fn answering(bytes: String) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/charges", listener.local_addr().unwrap());
    let (asked, requests) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_request(&mut stream).await;
            asked.send(request).await.ok();
            stream.write_all(bytes.as_bytes()).await.ok();
            open.push(stream);
        }
    });
    (url, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_sent_as_documented() {
    let answer = "HTTP/1.1 201 Created\r\nContent-Length: 21\r\n\r\n{\"status\":\"DECLINED\"}".to_owned();
    let (url, mut requests) = answering(answer).await;
    let gateway = client(&url, |settings| {
        settings.bearer_token = Some(Secret::new("hunter2"))
    });
    assert_eq!(charge(&gateway).await, Ok(Settled::Declined));
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /charges HTTP/1.1\r\n"), "{request}");
    for line in [
        &format!("idempotency-key: {}", payment_id()),
        "authorization: Bearer hunter2",
        "content-type: application/json",
        "accept: application/json",
    ] {
        assert!(request.lines().any(|found| found == line), "{line} in {request}");
    }
    let body = request.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        body,
        format!(
            r#"{{"order_id":7,"amount":249.99,"currency":"USD","payment_id":"{}"}}"#,
            payment_id()
        )
    );
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/charge.schema.json"
    );
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    for charge in schema["examples"].as_array().unwrap().iter().chain([&body]) {
        let problems: Vec<_> = validator
            .iter_errors(charge)
            .map(|problem| problem.to_string())
            .collect();
        assert_eq!(problems, [""; 0], "{charge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let (elsewhere, mut visits) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n");
        let (url, _requests) = answering(answer).await;
        let answer = charge(&client(&url, |_| ())).await;
        assert!(
            matches!(answer, Err(GatewayError::Misconfigured { .. })),
            "{status}: {answer:?}"
        );
    }
    assert!(visits.try_recv().is_err(), "nobody went there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_in_time_or_at_such_length_is_no_answer() {
    let long = 64 * 1024 + 1;
    let table = [
        // Nothing at all, a head without an end, a body that stops, and one that is too long.
        (String::new(), "not in time"),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), "not in time"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"sta".to_owned(),
            "ended early",
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {long}\r\n\r\n{}",
                " ".repeat(long)
            ),
            "longer than 65536 bytes",
        ),
    ];
    for (bytes, wanted) in table {
        let (url, _requests) = answering(bytes).await;
        let gateway = client(&url, |settings| settings.request_timeout_ms = 300);
        let answer = charge(&gateway).await;
        assert!(
            matches!(&answer, Err(GatewayError::NoAnswer { message }) if message.contains(wanted)),
            "{wanted}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_gives_no_answer() {
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    let client = client(&gateway.url(), |_| ());
    assert_eq!(client.lookup(&payment_id()).await, Ok(Found::Nothing));
    assert_eq!(charge(&client).await, Ok(Settled::Paid));
    assert_eq!(
        client.lookup(&payment_id()).await,
        Ok(Found::Settled(Settled::Paid))
    );
    drop(gateway);
    let answer = charge(&client).await;
    assert!(matches!(answer, Err(GatewayError::NoAnswer { .. })), "{answer:?}");
}

/// A gateway with a certificate of an authority that nobody knows, and that authority's PEM.
async fn protected() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/charges",
        listener.local_addr().unwrap().port()
    );
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                pay(stream).await;
            }
        }
    });
    (url, pem)
}

async fn pay(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    read_request(&mut stream).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.ok();
    stream.flush().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_refused_and_one_of_ours_is_not() {
    let (url, pem) = protected().await;
    let answer = charge(&client(&url, |_| ())).await;
    assert!(
        matches!(&answer, Err(GatewayError::NoAnswer { message }) if message.contains("certificate")),
        "{answer:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let ours = client(&url, |settings| settings.ca_file = Some(file.clone()));
    assert_eq!(charge(&ours).await, Ok(Settled::Paid));
    // The right authority for another host.
    let elsewhere = url.replace("localhost", "127.0.0.1");
    let answer = charge(&client(&elsewhere, |settings| settings.ca_file = Some(file))).await;
    assert!(matches!(answer, Err(GatewayError::NoAnswer { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "no certificate\n").unwrap();
    let settings = GatewaySettings {
        url: Some("https://localhost".to_owned()),
        ca_file: Some(file),
        ..GatewaySettings::default()
    };
    let error = HttpGateway::new(&settings).expect_err("refused");
    assert!(error.to_string().contains("gives no certificates"), "{error}");
}
