//! The index: sled keeps a copy of the table so that a start need not read the whole journal.
//!
//! It is never trusted for durability: whatever is doubtful about it, it is removed and the journal
//! is read instead. The only file that names sled. One tree, one writer (the keeper), batches of at
//! most 200, values far below 4 KB: sled 0.34 never syncs the blob files it makes of larger ones,
//! needs gigabytes for larger batches, and its `flush_async` deadlocks. Every call is guarded
//! against the panics that damaged files cause in it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::format;
use super::frame::Nonce;
use super::segments::{Location, Position};
use super::table::{DOOMED, HELD, IN_FILE, INDEXED, MARKED, Slot, TRIED, Table};
use crate::mail::Destination;
use crate::queue::{ItemId, QueueId};

/// Items per batch.
pub(super) const BATCH_ITEMS: usize = 200;
/// sled's page cache: the index is written, and read only at start.
const CACHE_BYTES: u64 = 16 << 20;
const FLUSH_EVERY_MS: u64 = 500;
const CHECKPOINT_KEY: &[u8] = b"c";
const ITEM_KEY: u8 = b'i';
/// Flags that mean something to a later process.
const KEPT_FLAGS: u8 = HELD | DOOMED | TRIED | MARKED | IN_FILE;

/// The open index.
pub(super) struct Index {
    db: sled::Db,
    dir: PathBuf,
}

/// Up to where the journal is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub position: Position,
    pub ids_below: u64,
}

/// Changes to be made in one step.
#[derive(Default)]
pub(super) struct Batch {
    batch: sled::Batch,
}

impl Batch {
    /// Keeps an item.
    pub(super) fn put(&mut self, id: ItemId, slot: &Slot, destination: &Destination) {
        self.batch.insert(&item_key(id)[..], render_slot(slot, destination));
    }

    /// Forgets an item.
    pub(super) fn remove(&mut self, id: ItemId) {
        self.batch.remove(&item_key(id)[..]);
    }

    /// Everything before the checkpoint is in the index with this batch.
    pub(super) fn checkpoint(&mut self, nonce: &Nonce, checkpoint: Checkpoint) {
        let mut bytes = vec![format::INDEX];
        bytes.extend_from_slice(nonce);
        bytes.extend_from_slice(&checkpoint.position.segment.to_le_bytes());
        bytes.extend_from_slice(&checkpoint.position.offset.to_le_bytes());
        bytes.extend_from_slice(&checkpoint.ids_below.to_le_bytes());
        self.batch.insert(CHECKPOINT_KEY, bytes);
    }
}

impl Index {
    /// Opens or creates the index. Blocking, as everything here.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let db = guarded(|| {
            sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_EVERY_MS))
                .open()
        })?;
        Ok(Self { db, dir: dir.to_owned() })
    }

    /// Fills an empty table; from where the journal must be replayed.
    /// `strays` gets all messages it knows when the journal does not have
    /// the place of one of them.
    pub(super) fn load(
        &self,
        nonce: &Nonce,
        table: &mut Table,
        strays: &mut BTreeSet<QueueId>,
    ) -> Result<Checkpoint, String> {
        let bytes = guarded(|| self.db.get(CHECKPOINT_KEY))?.ok_or("it has no checkpoint")?;
        let checkpoint = parse_checkpoint(&bytes, nonce).ok_or("its checkpoint is not of this journal")?;
        let mut rows = self.db.scan_prefix([ITEM_KEY]);
        while let Some((key, value)) = guarded(|| rows.next().transpose())? {
            let id = parse_item_key(&key).ok_or("a key is damaged")?;
            let (mut slot, destination) = parse_slot(&value).ok_or("a value is damaged")?;
            let places = [Some(slot.enqueue), slot.state];
            let known = |at: &Location| {
                let end = u64::from(at.offset) + u64::from(at.length);
                table.segments.len(at.segment).is_some_and(|len| end <= len)
            };
            if !places.iter().flatten().all(known) {
                strays.insert(id.queue_id);
                continue;
            }
            slot.destination = table.destinations.add(&destination);
            table.restore(id, slot);
        }
        if strays.is_empty() {
            return Ok(checkpoint);
        }
        // Whoever rebuilds it finds out which of all these there still are.
        strays.extend(table.ids());
        Err("it names a place that the journal does not have".into())
    }

    /// Makes changes, all or none.
    pub(super) fn apply(&self, batch: Batch) -> Result<(), String> {
        guarded(|| self.db.apply_batch(batch.batch))
    }

    /// Makes everything applied so far durable.
    pub(super) fn sync(&self) -> Result<(), String> {
        guarded(|| self.db.flush())?;
        // sled's own flush ends before the disk has it.
        sync_files(&self.dir).map_err(|error| error.to_string())
    }
}

/// Removes the index.
pub(super) fn remove(dir: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(dir) {
        // Somebody put something else there.
        Ok(metadata) if !metadata.is_dir() => fs::remove_file(dir),
        _ => fs::remove_dir_all(dir),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the index's files durable as they are.
pub(super) fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_files(&path)?;
            continue;
        }
        match File::open(&path).and_then(|file| file.sync_data()) {
            // sled replaces its snapshots while we look.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(dir)?.sync_all()
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("sled panicked on its files".to_owned()),
    }
}

fn item_key(id: ItemId) -> [u8; 15] {
    let mut key = [ITEM_KEY; 15];
    key[1..3].copy_from_slice(&id.queue_id.node.to_be_bytes());
    key[3..11].copy_from_slice(&id.queue_id.sequence.to_be_bytes());
    key[11..].copy_from_slice(&id.part.to_be_bytes());
    key
}

fn parse_item_key(key: &[u8]) -> Option<ItemId> {
    let key: &[u8; 15] = key.try_into().ok()?;
    let node = u16::from_be_bytes(key[1..3].try_into().ok()?);
    let sequence = u64::from_be_bytes(key[3..11].try_into().ok()?);
    let part = u32::from_be_bytes(key[11..].try_into().ok()?);
    Some(ItemId { queue_id: QueueId { node, sequence }, part })
}

fn render_slot(slot: &Slot, destination: &Destination) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    // An item that was not tried has a state of length 0.
    let state = slot.state.unwrap_or(Location { segment: 0, offset: 0, length: 0 });
    for place in [slot.enqueue, state] {
        for number in [place.segment, place.offset, place.length] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    for time in [slot.due, slot.since, slot.received] {
        bytes.extend_from_slice(&time.to_le_bytes());
    }
    bytes.extend_from_slice(&slot.sender.to_le_bytes());
    bytes.push(slot.flags & KEPT_FLAGS);
    bytes.extend_from_slice(destination.to_string().as_bytes());
    bytes
}

fn parse_slot(bytes: &[u8]) -> Option<(Slot, Destination)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let time = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let place =
        |at: usize| Some(Location { segment: number(at)?, offset: number(at + 4)?, length: number(at + 8)? });
    let destination = Destination::parse(std::str::from_utf8(bytes.get(53..)?).ok()?).ok()?;
    let slot = Slot {
        enqueue: place(0)?,
        state: place(12).filter(|state| state.length > 0),
        due: time(24)?,
        since: time(32)?,
        received: time(40)?,
        sender: number(48)?,
        destination: 0,
        flags: bytes.get(52)? & KEPT_FLAGS | INDEXED,
    };
    Some((slot, destination))
}

fn parse_checkpoint(bytes: &[u8], nonce: &Nonce) -> Option<Checkpoint> {
    let bytes: &[u8; 33] = bytes.try_into().ok()?;
    (bytes[0] == format::INDEX && bytes[1..17] == nonce[..]).then_some(())?;
    let segment = u32::from_le_bytes(bytes[17..21].try_into().ok()?);
    let offset = u32::from_le_bytes(bytes[21..25].try_into().ok()?);
    let ids_below = u64::from_le_bytes(bytes[25..].try_into().ok()?);
    Some(Checkpoint { position: Position { segment, offset }, ids_below })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keys_and_checkpoints_round_trip() {
        let enqueue = Location { segment: 1, offset: 2, length: 3 };
        let slot = Slot {
            enqueue,
            state: Some(Location { segment: 4, offset: 5, length: 6 }),
            due: -7,
            since: 8,
            received: i64::MAX,
            sender: 9,
            destination: 0,
            flags: HELD | TRIED | INDEXED,
        };
        let destination = Destination::parse("[IPv6:2001:db8::1]").unwrap();
        for slot in [slot, Slot { state: None, ..slot }] {
            let bytes = render_slot(&slot, &destination);
            assert_eq!(parse_slot(&bytes), Some((slot, destination.clone())));
            assert_eq!(parse_slot(&bytes[..52]), None);
        }
        let id = ItemId { queue_id: QueueId { node: 300, sequence: 1 << 40 }, part: 70_000 };
        assert_eq!(parse_item_key(&item_key(id)), Some(id));
        assert_eq!(parse_item_key(b"i"), None);
    }
}
