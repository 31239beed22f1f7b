//! Databases between members: `POST /raft/snapshot`, for followers that the log no longer reaches.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use node::member::{self, Outgoing};
use node::peer::{self, PeerError};
use node::raft::Message;
use storage::bolt::Image;
use storage::datadir::DataDir;
use storage::fs::{Fs, RealFs};
use storage::log::LogIndex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::client::{Client, Upload, head};
use super::link::Link;
use super::serve::Visitor;
use super::{Net, pipeline, routes};
use crate::drive::core::ToCore;
use crate::http::{self as plain, Answer};
use crate::metrics::Metrics;

/// Pieces of a database between a disk and a socket.
const PIECES: usize = 4;
/// Databases that may arrive at a time; a leader sends one.
pub(super) const ARRIVING_MAX: usize = 2;
/// Time without a byte after which a database that arrives is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time for the answer once the whole database was sent: the other side syncs and checks it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The database behind its envelope, as a body.
struct Sending {
    envelope: Option<Bytes>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Dropped with the last piece.
    unfinished: Option<oneshot::Sender<()>>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(envelope) = self.envelope.take() {
            return Poll::Ready(Some(Ok(Frame::data(envelope))));
        }
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        if piece.is_none() {
            self.unfinished = None;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Reads an image where reading may wait for the disk.
fn read(image: Image, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    for piece in image {
        let piece = piece.map_err(io::Error::other);
        let failed = piece.is_err();
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

/// Sends a database and tells the core what became of it.
pub(super) async fn send(net: Arc<Net>, outgoing: Outgoing) {
    let peer = outgoing.message.to;
    let begin = Instant::now();
    let to = peer.to_string();
    let bytes = outgoing.image.size();
    net.metrics.snapshot_sending.with([&to]).add(1);
    tracing::info!("remote-peer-id" = %peer, bytes, "sending database snapshot");
    let sent = match net.peer(peer) {
        Some(link) => attempt(&net, &link, outgoing).await,
        None => Err("no such member".to_owned()),
    };
    net.metrics.snapshot_sending.with([&to]).add(-1);
    match &sent {
        Ok(()) => {
            net.metrics.snapshot_send_success.with([&to]).inc();
            let took = net.metrics.snapshot_send_time.with([&to]);
            took.observe_seconds(begin.elapsed());
            tracing::info!("remote-peer-id" = %peer, bytes, "sent database snapshot");
        }
        Err(error) => {
            net.metrics.snapshot_send_failures.with([&to]).inc();
            net.report_unreachable(peer);
            tracing::warn!(
                "remote-peer-id" = %peer,
                bytes,
                error,
                "failed to send database snapshot"
            );
        }
    }
    let arrived = sent.is_ok();
    net.shared.core.push(ToCore::SnapshotSent { peer, arrived });
}

async fn attempt(net: &Net, link: &Link, outgoing: Outgoing) -> Result<(), String> {
    let url = link.url().ok_or("no URL is known")?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let (unfinished, finished) = oneshot::channel();
    let body = Sending {
        envelope: Some(peer::envelope(&outgoing.message).into()),
        pieces,
        unfinished: Some(unfinished),
    };
    tokio::task::spawn_blocking(move || read(outgoing.image, &sender));
    let body: Upload = body.boxed_unsync();
    let request = net
        .identity
        .sign(head(Method::POST, &url, "/raft/snapshot"))
        .header(http::header::CONTENT_TYPE, "application/octet-stream")
        .body(body)
        .map_err(|error| error.to_string())?;
    let mut client = Client::new(Arc::clone(&net.dialer));
    let answered = tokio::select! {
        answered = client.ask(&url, request, Duration::MAX) => answered,
        () = async {
            // Resolves when the sender is dropped, which it is with the last piece.
            let _ = finished.await;
            sleep(ANSWER_LIMIT).await;
        } => Err(super::client::Error::TimedOut),
    };
    let answer = answered.map_err(|error| {
        link.unreachable(&url);
        error.to_string()
    })?;
    pipeline::check(net, answer.status, &answer.text())
}

/// Why a database was not taken in.
enum Refused {
    Head(PeerError),
    Kind,
    Removed(&'static str),
    Save(io::Error),
}

/// `POST /raft/snapshot`
pub(super) async fn receive(
    net: &Arc<Net>,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Answer {
    if let Some(refusal) = routes::only(request.method(), &Method::POST) {
        return refusal;
    }
    if let Err(why) = routes::check(net, request.headers(), visitor) {
        return plain::error(StatusCode::PRECONDITION_FAILED, why.text());
    }
    routes::remember(net, request.headers());
    let from = routes::sender(net, request.headers());
    let from = from.as_str();
    let Ok(_place) = net.arriving.try_acquire() else {
        let text = "other snapshots are arriving";
        return plain::error(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let begin = Instant::now();
    net.metrics.snapshot_receiving.with([from]).add(1);
    let taken = take(net, request.into_body()).await;
    net.metrics.snapshot_receiving.with([from]).add(-1);
    let refused = match taken {
        Ok(()) => {
            net.metrics.snapshot_receive_success.with([from]).inc();
            let took = net.metrics.snapshot_receive_time.with([from]);
            took.observe_seconds(begin.elapsed());
            return plain::respond(StatusCode::NO_CONTENT, None, "");
        }
        Err(refused) => refused,
    };
    net.metrics.snapshot_receive_failures.with([from]).inc();
    match refused {
        Refused::Head(error) => {
            let text = format!("failed to decode raft message ({error})");
            plain::error(StatusCode::BAD_REQUEST, &text)
        }
        Refused::Kind => plain::error(StatusCode::BAD_REQUEST, "wrong raft message type"),
        Refused::Removed(why) => routes::forbidden(why),
        Refused::Save(error) => {
            tracing::warn!(
                %error,
                from,
                "remote-addr" = &*visitor.address,
                "failed to save incoming database snapshot"
            );
            let text = format!("failed to save KV snapshot ({error})");
            plain::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
        }
    }
}

/// The next piece of a body; `None` at its end.
async fn next(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        let frame = timeout(SILENCE_MAX, body.frame())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(io::Error::other(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn take(net: &Arc<Net>, mut body: Incoming) -> Result<(), Refused> {
    let mut buffer = BytesMut::new();
    let mut opened = Opened::default();
    while opened.message.is_none() {
        let Some(data) = next(&mut body).await.map_err(Refused::Save)? else {
            return Err(Refused::Save(io::ErrorKind::UnexpectedEof.into()));
        };
        buffer.extend_from_slice(&data);
        opened.look(&mut buffer)?;
    }
    let Some(message) = opened.message else {
        return Err(Refused::Kind);
    };
    routes::admit(net, &message).map_err(Refused::Removed)?;
    let saved = save(net, &message, buffer.freeze(), body)
        .await
        .map_err(Refused::Save)?;
    // Two that arrive at once may get the same name: nobody removes what the other has named.
    let _naming = net.naming.lock().await;
    let path = blocking(move || saved.name())
        .await
        .map_err(Refused::Save)?;
    let (handled, done) = oneshot::channel();
    net.shared.core.push(ToCore::Received(message, handled));
    // The core is gone only when the process ends.
    if let Ok(false) = done.await {
        tracing::info!(path = %path.display(), "nobody needs the received database snapshot");
        if let Err(error) = blocking(move || std::fs::remove_file(path)).await {
            tracing::warn!(%error, "failed to remove a received database snapshot");
        }
    }
    Ok(())
}

/// Waits for what a disk may hold up, which no message of raft's is to wait for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// The head of a post, looked at again only when all of it can be there.
#[derive(Default)]
struct Opened {
    message: Option<Box<Message>>,
}

impl Opened {
    fn look(&mut self, buffer: &mut BytesMut) -> Result<(), Refused> {
        let Some(length) = buffer.first_chunk::<8>() else {
            return Ok(());
        };
        let length = u64::from_be_bytes(*length);
        if length <= peer::ENVELOPE_BYTES_MAX && (buffer.len() as u64) < 8 + length {
            return Ok(());
        }
        let mut rest = std::mem::take(buffer).freeze();
        self.message = match peer::open_envelope(&mut rest) {
            Ok(message) => message,
            Err(PeerError::Kind(_)) => return Err(Refused::Kind),
            Err(error) => return Err(Refused::Head(error)),
        };
        *buffer = BytesMut::from(rest);
        Ok(())
    }
}

/// Makes the database durable, if it is sound.
async fn save(
    net: &Arc<Net>,
    message: &Message,
    begin: Bytes,
    mut body: Incoming,
) -> io::Result<Saved> {
    let Some(snapshot) = &message.snapshot else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let meta = snapshot.meta.clone();
    tracing::info!(
        "remote-peer-id" = %message.from,
        "incoming-snapshot-index" = meta.index.0,
        "receiving database snapshot"
    );
    let (sender, pieces) = mpsc::channel(PIECES);
    let dir = net.dir.clone();
    let metrics = Arc::clone(&net.metrics);
    let writer = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let file = Unnamed(write(&dir.snap(), pieces, &metrics)?);
        let fs: Arc<dyn Fs> = Arc::new(RealFs);
        // Before it has the name: one that was received before it is not to be lost for it.
        member::verify(&fs, &file.0, &meta).map_err(io::Error::other)?;
        let index = meta.index;
        metrics.snap_db_save.observe_seconds(begin.elapsed());
        Ok(Saved { file, dir, index })
    });
    let mut piece = Some(begin);
    let fed = loop {
        let next_piece = match piece.take() {
            Some(piece) => Ok(Some(piece)),
            None => next(&mut body).await,
        };
        match next_piece {
            Ok(None) => break Ok(()),
            // Sending fails when the writer failed, which says why.
            Ok(Some(piece)) => match sender.send(Ok(piece)).await {
                Ok(()) => {}
                Err(_) => break Ok(()),
            },
            Err(error) => {
                let _ = sender.send(Err(error.kind().into())).await;
                break Err(error);
            }
        }
    };
    drop(sender);
    let written = writer.await.map_err(io::Error::other)?;
    fed.and(written)
}

/// A sound database without the name that its snapshot gives it.
struct Saved {
    file: Unnamed,
    dir: DataDir,
    index: LogIndex,
}

impl Saved {
    /// Makes the name durable; gives the path.
    fn name(self) -> io::Result<PathBuf> {
        let named = self.dir.received_database(self.index);
        std::fs::rename(&self.file.0, &named)?;
        RealFs.sync_dir(&self.dir.snap())?;
        Ok(named)
    }
}

/// A file that is removed when it gets no other name.
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        // It was renamed, as a rule; otherwise the next start removes it at the latest.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the pieces into a file of its own and syncs it; nothing is left of it after a failure.
fn write(
    dir: &std::path::Path,
    mut pieces: mpsc::Receiver<io::Result<Bytes>>,
    metrics: &Metrics,
) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = dir.join(format!("tmp{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut fill = || {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        while let Some(piece) = pieces.blocking_recv() {
            file.write_all(&piece?)?;
        }
        let begin = Instant::now();
        file.sync_all()?;
        metrics.snap_db_fsync.observe_seconds(begin.elapsed());
        Ok(())
    };
    match fill() {
        Ok(()) => Ok(path),
        Err(error) => {
            // Removed at the next start at the latest.
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
}
