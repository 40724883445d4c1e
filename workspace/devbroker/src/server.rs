//! Connections: accept, read a request, answer it, read the next.
//!
//! As in Kafka, a connection has one request at a time in work, and answers come in the order of
//! the requests. What is not a Kafka request closes its connection with one WARN line that says
//! what was wrong; it never reaches another connection.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::api::{self, Answer, RequestContext};
use crate::core::Core;
use crate::faults;
use crate::frame::{Frame, FrameBudget, FrameBuilder, FrameError};
use crate::security::{Principal, Session, tls};
use crate::shape::{self, ShapeError};
use crate::versions::is_supported;

/// One system call fetches the length and a small request together; large ones bypass it.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Pause after a failed accept: the usual cause is that the process has no file handles left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The largest request of a connection that is not known yet: `sasl.server.max.receive.size`.
const MAX_UNKNOWN_FRAME_BYTES: u32 = 524_288;

/// Why a connection was closed by the broker.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("request key `{0}` is not known")]
    UnknownKey(i16),
    #[error("version `{version}` of {key:?} is not supported")]
    UnsupportedVersion { key: ApiKey, version: i16 },
    #[error("the request header can not be read: {0}")]
    Header(String),
    #[error("the body is not a request of {key:?} version {version}: {error}")]
    Shape {
        key: ApiKey,
        version: i16,
        error: ShapeError,
    },
    #[error("the body is not a request of {key:?} version {version}: {error}")]
    Body {
        key: ApiKey,
        version: i16,
        error: String,
    },
    #[error("the answer to {key:?} version {version} can not be encoded: {error}")]
    Answer {
        key: ApiKey,
        version: i16,
        error: String,
    },
    #[error("nothing was heard for {0:?}")]
    Idle(Duration),
    #[error("the TLS handshake failed: {error}; {}", tls::remedy(error))]
    Tls { error: std::io::Error },
    #[error("the client did not make itself known within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("{0:?} came before the client had authenticated; it must use SASL (`security.protocol`)")]
    Unknown(ApiKey),
    #[error("authentication failed: {0}")]
    Unauthenticated(String),
    #[error("a request failed, and closing the connection is the only way to say so: {0}")]
    Unacknowledged(String),
    #[error("an injected fault: {0}")]
    Fault(&'static str),
}

/// What every connection goes through.
#[derive(Clone)]
struct Entrance {
    tls: Option<TlsAcceptor>,
    budget: FrameBudget,
    /// The same memory, for connections that are not known yet.
    unknown_budget: FrameBudget,
}

pub(crate) async fn accept(core: Arc<Core>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let budget = FrameBudget::new(
        core.options.max_frame_bytes,
        core.options.max_request_memory_bytes,
    );
    let entrance = Entrance {
        tls,
        unknown_budget: budget.limited_to(MAX_UNKNOWN_FRAME_BYTES),
        budget,
    };
    loop {
        let accepted = tokio::select! {
            () = core.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&core, &entrance, stream, peer),
            Err(error) => {
                tracing::error!(%error, "can not accept connections; is the limit of open files reached?");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit(core: &Arc<Core>, entrance: &Entrance, stream: TcpStream, peer: SocketAddr) {
    let open = core.counters.connections_open.get();
    let limit = core.options.max_connections;
    if open >= limit as u64 {
        core.counters.connections_refused.add(1);
        // One line for each doubling: who is refused usually comes again at once.
        let refused = core.counters.connections_refused.get();
        if refused.is_power_of_two() {
            tracing::warn!(%peer, limit, refused, "connection refused: as many as allowed are open");
        }
        return;
    }
    core.counters.connections.add(1);
    core.counters.connections_open.add(1);
    let open = OpenConnection(Arc::clone(core));
    let entrance = entrance.clone();
    core.tasks.spawn(async move {
        let core = &open.0;
        tokio::select! {
            () = core.stopping.cancelled() => {}
            ended = greet(core, &entrance, stream, peer) => report(core, peer, ended),
        }
    });
}

/// Counts the connection as open for as long as it lives, however it ends.
struct OpenConnection(Arc<Core>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters.connections_open.subtract(1);
    }
}

fn report(core: &Core, peer: SocketAddr, ended: Result<(), Closed>) {
    match ended {
        Ok(()) => tracing::debug!(%peer, "connection closed by the client"),
        Err(Closed::Frame(FrameError::Socket(error))) => {
            tracing::debug!(%peer, %error, "connection broke");
        }
        Err(reason @ (Closed::Idle(_) | Closed::Fault(_))) => {
            tracing::info!(%peer, %reason, "connection closed")
        }
        Err(reason @ Closed::Answer { .. }) => tracing::error!(%peer, %reason, "connection closed"),
        Err(
            reason @ (Closed::Unacknowledged(_)
            | Closed::Tls { .. }
            | Closed::HandshakeTimeout(_)
            | Closed::Unknown(_)
            | Closed::Unauthenticated(_)),
        ) => tracing::warn!(%peer, %reason, "connection closed"),
        Err(reason) => {
            core.counters.malformed.add(1);
            tracing::warn!(%peer, %reason, "connection closed: this is not a request that can be answered");
        }
    }
}

/// Makes the connection a stream of plain bytes, and serves what is in it.
async fn greet(
    core: &Arc<Core>,
    entrance: &Entrance,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), Closed> {
    stream.set_nodelay(true).map_err(FrameError::from)?;
    let local = stream.local_addr().map_err(FrameError::from)?;
    let limit = core.options.security.handshake_timeout;
    let known_until = Instant::now() + limit;
    let connection = |shown: Option<Principal>| Connection {
        core,
        entrance,
        local,
        peer,
        session: core.guard.session(shown),
        known_until,
    };
    let Some(acceptor) = &entrance.tls else {
        let (reader, writer) = stream.split();
        return connection(None).serve(reader, writer).await;
    };
    let accepted = timeout_at(known_until, acceptor.accept(stream)).await;
    let stream = accepted
        .map_err(|_| Closed::HandshakeTimeout(limit))?
        .map_err(|error| Closed::Tls { error })?;
    let connection = connection(tls::principal(&stream));
    let (reader, writer) = tokio::io::split(stream);
    connection.serve(reader, writer).await
}

/// A connection that is served.
struct Connection<'a> {
    core: &'a Arc<Core>,
    entrance: &'a Entrance,
    local: SocketAddr,
    peer: SocketAddr,
    session: Session,
    /// When the connection is closed if it is not known by then.
    known_until: Instant,
}

impl Connection<'_> {
    async fn serve<R, W>(mut self, reader: R, mut writer: W) -> Result<(), Closed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
        loop {
            let budget = match self.session.principal() {
                Some(_) => &self.entrance.budget,
                None => &self.entrance.unknown_budget,
            };
            let Some(length) = self.in_time(budget.read_length(&mut reader)).await?? else {
                return Ok(());
            };
            let request = self.in_time(budget.read_body(&mut reader, length)).await??;
            self.core.counters.requests.add(1);
            let answer = if self.session.expects_bare_token() {
                self.take_token(&request.bytes)?
            } else {
                self.handle(request.bytes.clone()).await?
            };
            if let Some(mut frame) = answer {
                let written = async {
                    writer.write_all_buf(&mut frame).await?;
                    writer.flush().await
                };
                self.in_time(written).await?.map_err(FrameError::from)?;
            }
            if let Session::Refused(reason) = &self.session {
                // Over TLS the client hears that this end was meant. It may be gone already.
                drop(self.in_time(writer.shutdown()).await);
                return Err(Closed::Unauthenticated(reason.clone()));
            }
        }
    }

    /// Waits no longer than a connection may be silent, or may stay unknown.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let options = &self.core.options;
        if self.session.principal().is_some() {
            let idle = options.connection_idle_timeout;
            return timeout(idle, work).await.map_err(|_| Closed::Idle(idle));
        }
        let limit = options.security.handshake_timeout;
        let done = timeout_at(self.known_until, work).await;
        done.map_err(|_| Closed::HandshakeTimeout(limit))
    }

    /// A token without a request around it, as it follows version 0 of SaslHandshake. Kafka has no
    /// words for a refusal here: the connection just ends.
    fn take_token(&mut self, token: &[u8]) -> Result<Option<Frame>, Closed> {
        match self.core.guard.authenticate(&mut self.session, token) {
            Some(Ok(answer)) => {
                let mut builder = FrameBuilder::default();
                builder.head().extend_from_slice(&answer);
                Ok(builder.finish())
            }
            Some(Err(refused)) => Err(Closed::Unauthenticated(refused.reason)),
            None => Err(Closed::Unauthenticated("a token came out of turn".to_owned())),
        }
    }

    /// One request. `None` where the client wants no answer.
    async fn handle(&mut self, mut bytes: Bytes) -> Result<Option<Frame>, Closed> {
        let short = || Closed::Header("it is shorter than key and version".to_owned());
        let (key, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
        let version = i16::from_be_bytes(*rest.first_chunk::<2>().ok_or_else(short)?);
        let number = i16::from_be_bytes(*key);
        let key = ApiKey::try_from(number).map_err(|()| Closed::UnknownKey(number))?;
        if !self.session.admits(key) {
            return Err(Closed::Unknown(key));
        }
        let supported = is_supported(key, version);
        if !supported && !matches!(key, ApiKey::ApiVersions) {
            return Err(Closed::UnsupportedVersion { key, version });
        }
        // A client asks for the versions before it knows any: a version that is too new is answered
        // in the oldest form (KIP-511), and only the correlation id of its header is certain.
        let header_version = if supported {
            key.request_header_version(version)
        } else {
            1
        };
        let header = RequestHeader::decode(&mut bytes, header_version)
            .map_err(|error| Closed::Header(error.to_string()))?;
        let principal = self.session.principal().cloned();
        let context = RequestContext {
            key,
            version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
            local: self.local,
            peer: self.peer,
            principal: principal.unwrap_or_else(Principal::anonymous),
        };
        if !supported {
            return encoded(&context, api::versions::unsupported(&context));
        }
        shape::check(key, version, &bytes).map_err(|error| Closed::Shape { key, version, error })?;
        let answer = faults::answer(self.core, &context, &mut self.session, bytes).await;
        match answer.map_err(|error| Closed::Body {
            key,
            version,
            error: error.to_string(),
        })? {
            Answer::Silence => Ok(None),
            Answer::Close(reason) => Err(Closed::Unacknowledged(reason)),
            Answer::Drop(fault) => Err(Closed::Fault(fault)),
            Answer::Frame(frame) => encoded(&context, frame),
        }
    }
}

fn encoded(context: &RequestContext, frame: Result<Frame, String>) -> Result<Option<Frame>, Closed> {
    let (key, version) = (context.key, context.version);
    frame
        .map(Some)
        .map_err(|error| Closed::Answer { key, version, error })
}

/// One request, which may be any bytes, as a new connection without a socket would answer it.
#[cfg(test)]
pub(crate) async fn handle(
    core: &Arc<Core>,
    bytes: Bytes,
    address: SocketAddr,
) -> Result<Option<Frame>, String> {
    let budget = FrameBudget::new(core.options.max_frame_bytes, 0);
    let entrance = Entrance {
        tls: None,
        unknown_budget: budget.limited_to(MAX_UNKNOWN_FRAME_BYTES),
        budget,
    };
    let mut connection = Connection {
        core,
        entrance: &entrance,
        local: address,
        peer: address,
        session: core.guard.session(None),
        known_until: Instant::now() + core.options.security.handshake_timeout,
    };
    let answer = connection.handle(bytes).await;
    answer.map_err(|closed| closed.to_string())
}
