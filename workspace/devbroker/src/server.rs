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
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, timeout};

use crate::api::{self, Answer, RequestContext};
use crate::core::Core;
use crate::frame::{Frame, FrameBudget, FrameError};
use crate::shape::{self, ShapeError};
use crate::versions::is_supported;

/// One system call fetches the length and a small request together; large ones bypass it.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Pause after a failed accept: the usual cause is that the process has no file handles left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

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
    #[error("a request with `acks=0` failed, and closing is the only way to say so: {0}")]
    Unacknowledged(String),
}

pub(crate) async fn accept(core: Arc<Core>, listener: TcpListener) {
    let budget = FrameBudget::new(
        core.options.max_frame_bytes,
        core.options.max_request_memory_bytes,
    );
    loop {
        let accepted = tokio::select! {
            () = core.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&core, &budget, stream, peer),
            Err(error) => {
                tracing::error!(%error, "can not accept connections; is the limit of open files reached?");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit(core: &Arc<Core>, budget: &FrameBudget, stream: TcpStream, peer: SocketAddr) {
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
    let budget = budget.clone();
    core.tasks.spawn(async move {
        let core = &open.0;
        tokio::select! {
            () = core.stopping.cancelled() => {}
            ended = serve(core, &budget, stream, peer) => report(core, peer, ended),
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
        Err(reason @ Closed::Idle(_)) => tracing::info!(%peer, %reason, "connection closed"),
        Err(reason @ Closed::Answer { .. }) => tracing::error!(%peer, %reason, "connection closed"),
        Err(reason @ Closed::Unacknowledged(_)) => tracing::warn!(%peer, %reason, "connection closed"),
        Err(reason) => {
            core.counters.malformed.add(1);
            tracing::warn!(%peer, %reason, "connection closed: this is not a request that can be answered");
        }
    }
}

async fn serve(
    core: &Arc<Core>,
    budget: &FrameBudget,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), Closed> {
    stream.set_nodelay(true).map_err(FrameError::from)?;
    let local = stream.local_addr().map_err(FrameError::from)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    let idle = core.options.connection_idle_timeout;
    loop {
        let length = timeout(idle, budget.read_length(&mut reader)).await;
        let Some(length) = length.map_err(|_| Closed::Idle(idle))?? else {
            return Ok(());
        };
        let request = timeout(idle, budget.read_body(&mut reader, length)).await;
        let request = request.map_err(|_| Closed::Idle(idle))??;
        core.counters.requests.add(1);
        let answer = handle(core, request.bytes.clone(), local, peer).await?;
        if let Some(mut frame) = answer {
            let written = timeout(idle, writer.write_all_buf(&mut frame)).await;
            written
                .map_err(|_| Closed::Idle(idle))?
                .map_err(FrameError::from)?;
        }
    }
}

/// One request. `None` where the client wants no answer.
async fn handle(
    core: &Arc<Core>,
    mut bytes: Bytes,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<Option<Frame>, Closed> {
    let short = || Closed::Header("it is shorter than key and version".to_owned());
    let (key, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
    let version = i16::from_be_bytes(*rest.first_chunk::<2>().ok_or_else(short)?);
    let number = i16::from_be_bytes(*key);
    let key = ApiKey::try_from(number).map_err(|()| Closed::UnknownKey(number))?;
    let supported = is_supported(key, version);
    if !supported && !matches!(key, ApiKey::ApiVersions) {
        return Err(Closed::UnsupportedVersion { key, version });
    }
    // A client asks for the versions before it knows any: a version that is too new is answered in
    // the oldest form (KIP-511), and only the correlation id of its header is certain.
    let header_version = if supported {
        key.request_header_version(version)
    } else {
        1
    };
    let header = RequestHeader::decode(&mut bytes, header_version)
        .map_err(|error| Closed::Header(error.to_string()))?;
    let context = RequestContext {
        key,
        version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
        local,
        peer,
    };
    if !supported {
        return encoded(&context, api::versions::unsupported(&context));
    }
    shape::check(key, version, &bytes).map_err(|error| Closed::Shape { key, version, error })?;
    let answer = api::answer(core, &context, bytes).await;
    match answer.map_err(|error| Closed::Body {
        key,
        version,
        error: error.to_string(),
    })? {
        Answer::Silence => Ok(None),
        Answer::Close(reason) => Err(Closed::Unacknowledged(reason)),
        Answer::Frame(frame) => encoded(&context, frame),
    }
}

fn encoded(context: &RequestContext, frame: Result<Frame, String>) -> Result<Option<Frame>, Closed> {
    let (key, version) = (context.key, context.version);
    frame
        .map(Some)
        .map_err(|error| Closed::Answer { key, version, error })
}
