//! The queue's housekeeping loop: index, compaction, files no longer needed, the reserve.
//!
//! Nothing here is needed for durability and nothing waits for it. It is the index's only writer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout};

use super::compaction;
use super::dense::Dense;
use super::disk::sync_parent;
use super::index::{self, BATCH_BLOCKS, Batch, Block, Checkpoint, Index};
use super::journal::{Draft, Journal};
use super::notions::Health;
use super::record::Change;
use super::segments::Cleaning;
use super::shared::Shared;
use crate::queue::{ItemId, QueueId};

/// Between two syncs of the index, after which segments can leave.
const SYNC_EVERY: Duration = Duration::from_secs(2);
/// Items an operator removed during an attempt, per frame.
const REAP_ITEMS: usize = 256;

/// See the file's header.
pub(super) struct Keeper {
    pub shared: Arc<Shared>,
    pub journal: Arc<Journal>,
    /// Absent when it broke; the next start makes a new one.
    pub index: Option<Index>,
    /// A segment that cannot be emptied because something in it cannot be read.
    stuck: Option<u32>,
}

/// One part in so many of the reserve may be used for moving messages on a full disk.
const COPY_PART: u64 = 4;

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, journal: Arc<Journal>, index: Option<Index>) -> Self {
        Self { shared, journal, index, stuck: None }
    }

    /// Runs until the other end of `asked` is dropped, then a last time. Whoever sends there is
    /// answered after a whole round. Whether the index is complete and durable.
    pub(super) async fn run(mut self, mut asked: UnboundedReceiver<SyncSender<()>>) -> bool {
        let (mut synced, mut busy) = (Instant::now(), false);
        loop {
            let wait = if busy { Duration::ZERO } else { self.shared.limits.round };
            let answer = match timeout(wait, asked.recv()).await {
                Ok(None) => break,
                Ok(answer) => answer,
                Err(_) => None,
            };
            if self.is_read_only().await {
                // Nothing of the rest could be done.
                let _ = answer.map(|answer| answer.send(()));
                continue;
            }
            self.refill_reserve();
            self.reap().await;
            self.empty_trash();
            if busy || answer.is_some() || synced.elapsed() >= SYNC_EVERY {
                busy = self.round().await;
                synced = Instant::now();
            } else {
                self.update_index();
            }
            if let Some(answer) = answer {
                let _ = answer.send(());
            }
        }
        self.reap().await;
        self.empty_trash();
        self.update_index();
        let complete = self.sync_evidence() && self.sync_index();
        // sled writes once more when it is dropped.
        self.index = None;
        complete && index::sync_files(&self.shared.index_dir()).is_ok()
    }

    /// Index, sync, and then cleaning; whether there is more of that to do at once.
    pub(super) async fn round(&mut self) -> bool {
        let cleaning = self.shared.table().segments.cleaning(self.shared.limits.segment_bytes);
        self.update_index();
        self.sync_index();
        if !self.sync_evidence() {
            return false;
        }
        match cleaning {
            // What made them dead is in the index now.
            Some(Cleaning::Unlink(segments)) => {
                segments.into_iter().all(|segment| self.unlink(segment));
                false
            }
            Some(Cleaning::Copy(segment)) if self.stuck != Some(segment) && self.may_copy(segment) => {
                self.copy(segment).await
            }
            _ => false,
        }
    }

    /// On a full disk only a little may be moved, in the room of the reserve: a whole segment comes
    /// free for it, where otherwise a few messages that wait for days would keep the disk full.
    fn may_copy(&self, segment: u32) -> bool {
        let table = self.shared.table();
        match table.health {
            Health::Fine | Health::Low(_) => true,
            Health::Full(_) => {
                !table.starved && table.segments.live(segment) <= self.shared.limits.reserve_bytes / COPY_PART
            }
            Health::ReadOnly(_) | Health::Failed(_) => false,
        }
    }

    fn update_index(&mut self) {
        let Some(index) = &self.index else {
            self.shared.move_evidence();
            return self.shared.table().dirty = Dense::default();
        };
        let checkpoint = {
            let table = self.shared.table();
            Checkpoint { position: table.position, ids_below: table.ids_below }
        };
        // A start from this checkpoint reads no evidence from before it.
        if !self.shared.move_evidence() {
            return;
        }
        let dirty = std::mem::take(&mut self.shared.table().dirty);
        if dirty.is_empty() {
            return;
        }
        let blocks: BTreeSet<Block> = dirty.iter().map(|(key, ())| Block::of(key.into())).collect();
        let mut blocks = blocks.into_iter().peekable();
        while blocks.peek().is_some() {
            let mut batch = Batch::default();
            {
                let mut table = self.shared.table();
                for block in blocks.by_ref().take(BATCH_BLOCKS) {
                    let slots: Vec<_> = block.ids().filter_map(|id| table.mark_indexed(id)).collect();
                    let named = slots.into_iter().filter_map(|(id, slot)| {
                        Some((id, slot, table.destinations.name(slot.destination)?))
                    });
                    batch.put(block, named);
                }
            }
            // The table may be ahead of the checkpoint; replaying what it already has is harmless.
            if blocks.peek().is_none() {
                batch.checkpoint(&self.shared.nonce, checkpoint);
            }
            if let Err(error) = index.apply(batch) {
                return self.drop_index(&error);
            }
        }
    }

    fn sync_index(&mut self) -> bool {
        let Some(index) = &self.index else { return false };
        match index.sync() {
            Ok(()) => true,
            Err(error) => {
                self.drop_index(&error);
                false
            }
        }
    }

    /// Whether all evidence of the journal is in its log for good, or mail needs the room: only then
    /// may journal segments leave.
    fn sync_evidence(&self) -> bool {
        if !self.shared.move_evidence() {
            return false;
        }
        let (now, full) = {
            let table = self.shared.table();
            (table.latest_now(), matches!(table.health, Health::Full(_)))
        };
        let mut log = self.shared.evidence();
        now.into_iter().for_each(|now| log.drop_old(now));
        match log.sync() {
            Ok(()) => {
                log.note_sync(false);
                true
            }
            Err(error) => {
                if log.note_sync(true) {
                    tracing::error!(%error, "evidence cannot be synced; journal segments stay until it can");
                }
                // Mail comes first.
                full
            }
        }
    }

    fn drop_index(&mut self, error: &str) {
        tracing::error!(error, "queue index failed; going on without, the next start rebuilds it");
        self.index = None;
        if let Err(error) = index::remove(&self.shared.index_dir()) {
            // Its checkpoint gives it away: the segments it names will be gone.
            tracing::warn!(%error, "cannot remove the failed queue index");
        }
    }

    /// Whether the next one may go too.
    fn unlink(&mut self, segment: u32) -> bool {
        let path = self.shared.segment_path(segment);
        let disk = self.shared.disk.as_ref();
        let spoiled = self.shared.table().segments.is_spoiled(segment);
        let removed = if spoiled { self.set_aside(&path) } else { disk.remove(&path) };
        // The name must be gone for good before a later segment may go.
        match removed.and_then(|()| sync_parent(disk, &path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "cannot remove an old journal segment");
                false
            }
            _ => {
                self.shared.table().segments.remove(segment);
                self.shared.forget_reader(segment);
                true
            }
        }
    }

    /// What is damaged may be all that is left of a message: moved, never removed.
    fn set_aside(&self, path: &Path) -> io::Result<()> {
        let disk = self.shared.disk.as_ref();
        let dir = self.shared.dir.join("damaged");
        disk.create_dir(&dir)?;
        let Some(name) = path.file_name() else { return Ok(()) };
        disk.rename(path, &dir.join(name))?;
        disk.sync_dir(&dir)?;
        tracing::warn!(
            path = %dir.join(name).display(),
            "a damaged journal segment that no queued message needs any more is kept here; remove it when you do not \
             need it"
        );
        Ok(())
    }

    /// Whether the segment is empty now.
    async fn copy(&mut self, segment: u32) -> bool {
        if let Err(error) = self.shared.reader(segment) {
            self.stuck = Some(segment);
            let path = self.shared.segment_path(segment);
            tracing::error!(
                path = %path.display(),
                %error,
                "a segment of the queue journal cannot be read; its messages wait until it can"
            );
            return false;
        }
        let mut unreadable = Vec::new();
        for group in compaction::waiting(&self.shared, segment) {
            // One after the other, so that no more of them are in memory.
            let (moves, trouble) = compaction::gather(&self.shared, &group);
            unreadable.extend(trouble);
            if let Err(error) = self.journal.relocate(moves).await {
                tracing::warn!(%error, "compaction of the queue journal interrupted");
                return false;
            }
        }
        let still = |id: &&QueueId| self.shared.table().parts(**id).next().is_some();
        let stuck = unreadable.iter().find(still);
        if let Some(id) = stuck {
            self.stuck = Some(segment);
            let path = self.shared.segment_path(segment);
            tracing::error!(
                queue_id = %id,
                damaged = unreadable.len(),
                path = %path.display(),
                "a queued message cannot be read from the journal; restore the file from a backup or delete the message"
            );
        }
        stuck.is_none()
    }

    /// Ends items that an operator deleted while an attempt ran.
    async fn reap(&self) {
        loop {
            let mut draft = Draft::vital();
            {
                let mut table = self.shared.table();
                let ids: Vec<ItemId> = table.reap.iter().copied().take(REAP_ITEMS).collect();
                for id in ids.into_iter().filter(|id| table.seize(*id)) {
                    draft.push(Change::Done(id), None);
                }
            }
            if draft.is_empty() || self.journal.commit(draft).await.is_err() {
                return;
            }
        }
    }

    fn empty_trash(&self) {
        let trash = std::mem::take(&mut self.shared.table().trash);
        for id in trash {
            let path = self.shared.body_path(id);
            let len = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            match self.shared.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "cannot remove a delivered message's content");
                }
                _ => {
                    let mut table = self.shared.table();
                    table.file_bytes = table.file_bytes.saturating_sub(len);
                }
            }
        }
    }

    /// Whether the disk still is read-only; asks it when it was.
    async fn is_read_only(&self) -> bool {
        let was = |shared: &Shared| matches!(shared.table().health, Health::ReadOnly(_));
        if !was(&self.shared) {
            return false;
        }
        match self.journal.resume().await {
            Ok(()) => {
                tracing::info!("the disk can be written to again: messages are accepted and delivered");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "the disk still is read-only");
                was(&self.shared)
            }
        }
    }

    /// Being able to set space aside again is the sign that the disk is no longer full.
    fn refill_reserve(&self) {
        if !matches!(self.shared.table().health, Health::Full(_)) {
            return;
        }
        if make_reserve(&self.shared).is_ok() {
            let mut table = self.shared.table();
            if matches!(table.health, Health::Full(_)) {
                (table.health, table.starved) = (Health::Fine, false);
                tracing::info!("there is space again: messages are accepted");
            }
        }
    }
}

/// Sets space aside for recording deliveries on a full disk.
pub(super) fn make_reserve(shared: &Shared) -> io::Result<()> {
    let (disk, path, bytes) = (shared.disk.as_ref(), shared.reserve_path(), shared.limits.reserve_bytes);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes) {
        return Ok(());
    }
    let _ = disk.remove(&path);
    // Not zeros: some file systems would keep no space for those.
    let mut word = u64::from_le_bytes(shared.nonce[..8].try_into().expect("eight octets")) | 1;
    let piece: Vec<u8> = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    })
    .take(8192)
    .flatten()
    .collect();
    let write = || -> io::Result<()> {
        let mut file = disk.create(&path)?;
        let mut left = bytes as usize;
        while left > 0 {
            let part = left.min(piece.len());
            file.write(&mut [IoSlice::new(&piece[..part])])?;
            left -= part;
        }
        file.sync()
    };
    write().inspect_err(|_| {
        let _ = disk.remove(&path);
    })
}
