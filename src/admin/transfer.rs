//! Moving messages out of the queue and into it, for `queue export` and `queue import`.
//!
//! The same answers are given by the daemon over its socket and by the command line itself when it has
//! the queue of a stopped daemon open. Contents go in pieces. Bounded: uploads at a time, octets of a
//! piece.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::protocol::transfer::{HeldItem, TransferAnswer, TransferRequest};
use super::protocol::{Answer, PAGE_MAX};
use crate::net::Clock;
use crate::store::{
    AdminAction, Body, BodyWriter, EntryState, Export, Filter, Moves, Portable, Queue, QueueError,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Contents coming in at the same time; one more drops the oldest, whose import fails.
const UPLOADS_MAX: usize = 8;
/// Octets of a content in one answer.
const PIECE_BYTES: usize = 4 << 20;

/// See the file's header.
pub struct Transfer {
    clock: Arc<dyn Clock>,
    queue: Queue,
    moves: Moves,
    uploads: Mutex<Uploads>,
}

#[derive(Default)]
struct Uploads {
    next: u64,
    open: BTreeMap<u64, (Portable, BodyWriter)>,
}

impl Transfer {
    /// Moves between this queue and others.
    pub fn new(clock: Arc<dyn Clock>, queue: Queue, moves: Moves) -> Self {
        Self { clock, queue, moves, uploads: Mutex::default() }
    }

    /// Does what is asked.
    pub async fn answer(&self, request: TransferRequest) -> Answer {
        match self.act(request).await {
            Ok(answer) => Answer::Transfer(answer),
            Err(text) => Answer::Failed { text },
        }
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self, upload: u64) -> Result<(Portable, BodyWriter), String> {
        self.uploads()
            .open
            .remove(&upload)
            .ok_or_else(|| "this import was dropped, since others began; run it again".to_owned())
    }

    async fn act(&self, request: TransferRequest) -> Result<TransferAnswer, String> {
        let text = |error: QueueError| error.to_string();
        match request {
            TransferRequest::Hold { filter, cursor } => {
                let filter = super::queue::filter(&self.queue, &filter, self.clock.now())?;
                let page = self.queue.list(&filter, cursor, PAGE_MAX).await.map_err(text)?;
                let mut items = Vec::with_capacity(page.entries.len());
                for entry in page.entries {
                    let held = entry.state == EntryState::Held;
                    if !held {
                        let one = Filter { item: Some(entry.item.id), ..Filter::default() };
                        self.queue.admin(&one, AdminAction::Hold, self.clock.now()).await.map_err(text)?;
                    }
                    items.push(HeldItem { id: entry.item.id, held_before: held });
                }
                Ok(TransferAnswer::Held { items, cursor: page.cursor })
            }
            TransferRequest::Read { id, parts } => {
                match self.queue.portable(id, parts).await.map_err(text)? {
                    Export::Ready(portable) => Ok(TransferAnswer::Message(portable)),
                    Export::Busy => Ok(TransferAnswer::Busy),
                    Export::Gone => Ok(TransferAnswer::Gone),
                }
            }
            TransferRequest::Content { id, offset } => {
                let body = self.queue.body(id).await.map_err(text)?;
                let piece = piece(body, offset).await?;
                Ok(TransferAnswer::Content { data: STANDARD.encode(&piece) })
            }
            TransferRequest::Remove { items } => {
                let now = self.clock.now();
                self.moves.leaving(&self.queue, &items, now).await.map_err(text)?;
                let mut count = 0;
                for item in items {
                    let one = Filter { item: Some(item), ..Filter::default() };
                    count += self.queue.admin(&one, AdminAction::Delete, now).await.map_err(text)?;
                }
                Ok(TransferAnswer::Count { count })
            }
            TransferRequest::Release { items } => {
                let mut count = 0;
                for item in items {
                    let one = Filter { item: Some(item), ..Filter::default() };
                    count +=
                        self.queue.admin(&one, AdminAction::Release, self.clock.now()).await.map_err(text)?;
                }
                Ok(TransferAnswer::Count { count })
            }
            TransferRequest::Begin { message } => {
                message.check()?;
                let plan = self.moves.plan(&self.queue, &message, self.clock.now());
                if plan.wanted.is_empty() {
                    let (id, plan) = self
                        .moves
                        .import(&self.queue, &message, None, self.clock.now())
                        .await
                        .map_err(text)?;
                    return Ok(TransferAnswer::Imported { id, plan });
                }
                let mut uploads = self.uploads();
                while uploads.open.len() >= UPLOADS_MAX {
                    uploads.open.pop_first();
                }
                uploads.next += 1;
                let upload = uploads.next;
                uploads.open.insert(upload, (*message, self.queue.body_writer()));
                Ok(TransferAnswer::Upload { upload })
            }
            TransferRequest::Piece { upload, data } => {
                let data =
                    STANDARD.decode(data).map_err(|_| "a piece of the content is not base64".to_owned())?;
                // Not in the map meanwhile: others need not wait for our disk.
                let (message, mut writer) = self.taken(upload)?;
                writer.write(&data).await.map_err(text)?;
                let count = writer.len();
                self.uploads().open.insert(upload, (message, writer));
                Ok(TransferAnswer::Count { count })
            }
            TransferRequest::End { upload } => {
                let (message, writer) = self.taken(upload)?;
                let body = writer.finish().await.map_err(text)?;
                let (id, plan) = self
                    .moves
                    .import(&self.queue, &message, Some(body), self.clock.now())
                    .await
                    .map_err(text)?;
                tracing::info!(queue_id = %id, from = %message.id, store = message.store, "message imported");
                Ok(TransferAnswer::Imported { id, plan })
            }
        }
    }
}

async fn piece(body: Body, offset: u64) -> Result<Bytes, String> {
    match body {
        Body::Memory(bytes) => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes.slice(from..bytes.len().min(from.saturating_add(PIECE_BYTES))))
        }
        Body::File { path, len } => {
            let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; left];
                std::fs::File::open(&path)
                    .and_then(|file| file.read_exact_at(&mut piece, offset))
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                Ok(Bytes::from(piece))
            });
            read.await.map_err(|error| format!("a storage task ended early: {error}"))?
        }
    }
}
