//! A connection that can be made to fail, between two parts that know nothing of it.
//!
//! Owns: forwarding bytes, and cutting, delaying, holding and losing them. Never: changes a byte, or puts bytes in another order. Invariant:
//! a proxy without a fault is only a little slower than the wire.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// What ails the line.
#[derive(Default)]
struct Ailment {
    /// Added to every piece, each way.
    delay_ms: AtomicU64,
    /// So many answers reach the proxy and go no further: the connection is closed instead.
    answers_to_lose: AtomicU64,
    lost: AtomicU64,
}

pub(crate) struct Proxy {
    ailment: Arc<Ailment>,
    /// Connections of an older number are closed.
    generation: watch::Sender<u64>,
    /// While true, nothing is forwarded and nothing is closed.
    held: watch::Sender<bool>,
    /// Its end ends the listener.
    _listening: watch::Sender<()>,
}

impl Proxy {
    /// Forwards a port of 127.0.0.1 to another; answers the port.
    pub(crate) async fn tcp(to: u16) -> (Proxy, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (proxy, line, mut end) = Proxy::make();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = end.changed() => return,
                };
                let (client, _) = accepted.expect("the listener is open");
                let _ = client.set_nodelay(true);
                let line = line.clone();
                tokio::spawn(async move {
                    // A dead server refuses: so does its proxy, by closing.
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await {
                        let _ = server.set_nodelay(true);
                        line.carry(client.into_split(), server.into_split()).await;
                    }
                });
            }
        });
        (proxy, port)
    }

    /// Forwards a new Unix socket to another.
    pub(crate) fn unix(at: &Path, to: &Path) -> Proxy {
        let listener = UnixListener::bind(at).expect("the socket can be made");
        let to = to.to_owned();
        let (proxy, line, mut end) = Proxy::make();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = end.changed() => return,
                };
                let (client, _) = accepted.expect("the listener is open");
                let (line, to) = (line.clone(), to.clone());
                tokio::spawn(async move {
                    if let Ok(server) = UnixStream::connect(&to).await {
                        line.carry(client.into_split(), server.into_split()).await;
                    }
                });
            }
        });
        proxy
    }

    fn make() -> (Proxy, Line, watch::Receiver<()>) {
        let ailment = Arc::new(Ailment::default());
        let (generation, generations) = watch::channel(0);
        let (held, holds) = watch::channel(false);
        let (_listening, end) = watch::channel(());
        let line = Line {
            ailment: Arc::clone(&ailment),
            generations,
            holds,
        };
        let proxy = Proxy {
            ailment,
            generation,
            held,
            _listening,
        };
        (proxy, line, end)
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|number| *number += 1);
    }

    pub(crate) fn delay(&self, by: Duration) {
        self.ailment.delay_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Forwards nothing, as a network that swallows everything.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// The next answers are lost after the server has given them.
    pub(crate) fn lose_answers(&self, count: u64) {
        self.ailment.answers_to_lose.fetch_add(count, Ordering::Relaxed);
    }

    /// Answers lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.ailment.lost.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Line {
    ailment: Arc<Ailment>,
    generations: watch::Receiver<u64>,
    holds: watch::Receiver<bool>,
}

impl Line {
    /// Carries bytes both ways until one side ends or the line is cut.
    async fn carry<R, W, S, T>(mut self, client: (R, W), server: (S, T))
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let never = AtomicBool::new(false);
        let losing = AtomicBool::new(true);
        let (up, down) = (self.clone(), self.clone());
        self.generations.mark_unchanged();
        tokio::select! {
            () = up.one_way(client.0, server.1, &never) => {}
            () = down.one_way(server.0, client.1, &losing) => {}
            _ = self.generations.changed() => {}
        }
    }

    async fn one_way(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, loses: &AtomicBool) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let delay_ms = self.ailment.delay_ms.load(Ordering::Relaxed);
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            if self.holds.wait_for(|held| !held).await.is_err() || (loses.load(Ordering::Relaxed) && self.loses()) {
                return;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Is this answer one of those to be lost?
    fn loses(&self) -> bool {
        let less_one = |count: u64| count.checked_sub(1);
        let (order, ailment) = (Ordering::Relaxed, &self.ailment);
        let lost = ailment.answers_to_lose.fetch_update(order, order, less_one).is_ok();
        ailment.lost.fetch_add(u64::from(lost), order);
        lost
    }
}
