//! What the broker logs of a peer that can not come in: one line, with what its owner can do.
//!
//! A test binary of its own: the library that logs decides per process what it looks at, so all that
//! runs here must have a subscriber.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/certificates.rs"]
mod certificates;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certificates::Authority;
use devbroker::security::{Sasl, Security};
use devbroker::{Broker, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that any single step of a test may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where log lines of a test go.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        let log = self.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || log.clone())
            .finish()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What the broker logs while a peer sends this and is closed for it.
async fn logged(security: Security, sent: &[u8]) -> String {
    let log = Log::default();
    // Each test has one thread, which all tasks of its broker share.
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let options = Options {
        security,
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    let mut peer = TcpStream::connect(broker.address()).await.unwrap();
    peer.write_all(sent).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, peer.read_to_end(&mut rest)).await;
    // A reset is as good as an end.
    drop(closed.expect("the broker closes the connection"));
    // The line is written after the connection is closed, and before the broker has stopped.
    broker.stop().await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// ApiVersions version 0, correlation id 1, client `x`.
const API_VERSIONS: &[u8] = &[0, 0, 0, 11, 0, 18, 0, 0, 0, 0, 0, 1, 0, 1, b'x'];
/// Metadata version 1 of all topics.
const METADATA: &[u8] = &[
    0, 0, 0, 15, 0, 3, 0, 1, 0, 0, 0, 1, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff,
];
/// The first bytes of a ClientHello.
const CLIENT_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00];

#[tokio::test]
async fn a_peer_that_speaks_the_wrong_protocol_is_one_line_with_the_remedy() {
    let tls = || Some(Authority::new("test authority").broker());
    let only_tls = Security {
        tls: tls(),
        ..Security::default()
    };
    let text = logged(only_tls, API_VERSIONS).await;
    assert!(text.contains("the client does not speak TLS"), "{text}");
    let text = logged(Security::default(), CLIENT_HELLO).await;
    assert!(
        text.contains("the client speaks TLS, and this port does not"),
        "{text}"
    );
    let only_sasl = Security {
        sasl: Some(Sasl::users([("app", "topsecret")])),
        ..Security::default()
    };
    let text = logged(only_sasl, METADATA).await;
    assert!(
        text.contains("Metadata came before the client had authenticated"),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_one_line_that_does_not_show_it() {
    // SaslHandshake version 0 with PLAIN, then the token alone.
    let mut sent = vec![0, 0, 0, 18, 0, 17, 0, 0, 0, 0, 0, 1, 0, 1, b'x', 0, 5];
    sent.extend(b"PLAIN");
    sent.extend([0, 0, 0, 14]);
    sent.extend(b"\0app\0wrong-one");
    let security = Security {
        sasl: Some(Sasl::users([("app", "topsecret")])),
        ..Security::default()
    };
    let text = logged(security, &sent).await;
    assert!(text.contains("wrong password of user `app`"), "{text}");
    assert!(!text.contains("wrong-one") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_in_time() {
    for (tls, sasl) in [
        (Some(Authority::new("test authority").broker()), None),
        (None, Some(Sasl::users([("app", "topsecret")]))),
    ] {
        let security = Security {
            tls,
            sasl,
            handshake_timeout: Duration::from_millis(100),
            ..Security::default()
        };
        let text = logged(security, &[]).await;
        assert!(text.contains("did not make itself known within 100ms"), "{text}");
    }
}
