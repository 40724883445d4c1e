//! The line to a gateway, which can be cut: one connection, or all of them and the port as well.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Between two attempts to get the port back.
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// A listener that gives its port back while it is down.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddr,
    listener: Option<TcpListener>,
    is_down: watch::Receiver<bool>,
}

impl Line {
    pub async fn bind(address: SocketAddr, is_down: watch::Receiver<bool>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            is_down,
        })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listener for Line {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            if *self.is_down.borrow_and_update() {
                self.listener = None;
                if self.is_down.changed().await.is_err() {
                    // The gateway is gone, and its server ends with it.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let Some(listener) = &self.listener else {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => self.listener = Some(listener),
                    Err(_) => tokio::time::sleep(PORT_PAUSE).await,
                }
                continue;
            };
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, peer)) = accepted {
                    let wire = Wire {
                        stream,
                        is_cut: Connection::default(),
                        is_down: self.is_down.clone(),
                    };
                    return (wire, peer);
                },
                changed = self.is_down.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// What a request knows of its connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection(Arc<AtomicBool>);

impl Connection {
    /// Ends the connection. The answer that this returns reaches nobody.
    pub fn cut(&self) -> Response {
        self.0.store(true, Ordering::SeqCst);
        ().into_response()
    }
}

impl Connected<IncomingStream<'_, Line>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Line>) -> Self {
        stream.io().is_cut.clone()
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    is_cut: Connection,
    is_down: watch::Receiver<bool>,
}

impl Wire {
    fn check(&self) -> io::Result<()> {
        if self.is_cut.0.load(Ordering::SeqCst) || *self.is_down.borrow() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Err(error) = self.check() {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Err(error) = self.check() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
