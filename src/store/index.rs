//! The index: sled keeps a copy of the table so that a start need not read the whole journal.
//!
//! It is never trusted for durability: whatever is doubtful about it, it is removed and the journal
//! is read instead. The only file that names sled. One tree, one writer (the keeper), small batches,
//! values of a kilobyte: sled 0.34 never syncs the blob files it makes of pages beyond 128 KB, needs
//! gigabytes for large batches, and its `flush_async` deadlocks. It splits a page at 17 entries and
//! keeps something in memory of each page, so neighbours share an entry, a [`Block`]: a sixteenth of
//! the pages to hold, to find again at start and to read. Every call is guarded against the panics
//! that damaged files cause in it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::format;
use super::frame::Nonce;
use super::segments::{Location, Position};
use super::table::{DOOMED, HELD, IN_FILE, INDEXED, MARKED, Slot, TRIED, Table};
use crate::mail::Destination;
use crate::queue::{ItemId, QueueId};

/// Blocks per batch: some 50 KB.
pub(super) const BATCH_BLOCKS: usize = 50;
/// Messages of a block, as a power of two.
const BLOCK_BITS: u32 = 4;
/// sled's page cache: the index is written, and read only at start.
const CACHE_BYTES: u64 = 16 << 20;
const FLUSH_EVERY_MS: u64 = 500;
const CHECKPOINT_KEY: &[u8] = b"c";
const BLOCK_KEY: u8 = b'b';
/// Octets of a row before its destination's name.
const ROW_HEAD: usize = 56;
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

/// Items that share an entry: neighbours by queue id, of the same part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    node: u16,
    high: u64,
    part: u32,
}

impl Block {
    pub(super) fn of(id: ItemId) -> Self {
        let QueueId { node, sequence } = id.queue_id;
        Self { node, high: sequence >> BLOCK_BITS, part: id.part }
    }

    /// The names of all items that may be in it, in order.
    pub(super) fn ids(self) -> impl Iterator<Item = ItemId> {
        let (begin, Self { node, part, .. }) = (self.high << BLOCK_BITS, self);
        let id = move |low| ItemId { queue_id: QueueId { node, sequence: begin | low }, part };
        (0..1 << BLOCK_BITS).map(id)
    }
}

/// Changes to be made in one step.
#[derive(Default)]
pub(super) struct Batch {
    batch: sled::Batch,
}

impl Batch {
    /// Keeps the items of a block, and forgets those not among them.
    pub(super) fn put<'a>(
        &mut self,
        block: Block,
        items: impl Iterator<Item = (ItemId, Slot, &'a Destination)>,
    ) {
        let mut value = Vec::with_capacity(ROW_HEAD << (BLOCK_BITS + 1));
        items.for_each(|(id, slot, destination)| render_row(&mut value, id, &slot, destination));
        if value.is_empty() {
            self.batch.remove(&block_key(block)[..]);
        } else {
            self.batch.insert(&block_key(block)[..], value);
        }
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
        // By name as written: most items go to few destinations.
        let mut destinations: HashMap<Vec<u8>, Destination> = HashMap::new();
        let mut blocks = self.db.scan_prefix([BLOCK_KEY]);
        while let Some((key, value)) = guarded(|| blocks.next().transpose())? {
            let block = parse_block_key(&key).ok_or("a key is damaged")?;
            let mut rest = &value[..];
            while !rest.is_empty() {
                let row = parse_row(block, &mut rest).ok_or("a value is damaged")?;
                let (id, mut slot, name) = row;
                if !destinations.contains_key(name) {
                    let destination = parse_destination(name).ok_or("a destination is damaged")?;
                    destinations.insert(name.to_vec(), destination);
                }
                let known = |at: &Location| {
                    let end = u64::from(at.offset) + u64::from(at.length);
                    table.segments.len(at.segment).is_some_and(|len| end <= len)
                };
                if ![Some(slot.enqueue), slot.state].iter().flatten().all(known) {
                    strays.insert(id.queue_id);
                    continue;
                }
                slot.destination = table.destinations.add(&destinations[name]);
                table.restore(id, slot);
            }
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

fn block_key(block: Block) -> [u8; 15] {
    let mut key = [BLOCK_KEY; 15];
    key[1..3].copy_from_slice(&block.node.to_be_bytes());
    key[3..11].copy_from_slice(&block.high.to_be_bytes());
    key[11..].copy_from_slice(&block.part.to_be_bytes());
    key
}

fn parse_block_key(key: &[u8]) -> Option<Block> {
    let key: &[u8; 15] = key.try_into().ok()?;
    let node = u16::from_be_bytes(key[1..3].try_into().ok()?);
    let high = u64::from_be_bytes(key[3..11].try_into().ok()?);
    let part = u32::from_be_bytes(key[11..].try_into().ok()?);
    (high <= u64::MAX >> BLOCK_BITS).then_some(Block { node, high, part })
}

fn render_row(bytes: &mut Vec<u8>, id: ItemId, slot: &Slot, destination: &Destination) {
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
    let low = id.queue_id.sequence & ((1 << BLOCK_BITS) - 1);
    bytes.push(low as u8);
    let name = destination.to_string();
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
}

/// The first of the rows in `rest`, which it leaves; the destination as its name.
fn parse_row<'a>(block: Block, rest: &mut &'a [u8]) -> Option<(ItemId, Slot, &'a [u8])> {
    let bytes = *rest;
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let time = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let place =
        |at: usize| Some(Location { segment: number(at)?, offset: number(at + 4)?, length: number(at + 8)? });
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
    let low = *bytes.get(53)?;
    let id = block.ids().nth(usize::from(low))?;
    let len = usize::from(u16::from_le_bytes(bytes.get(54..ROW_HEAD)?.try_into().ok()?));
    let name = bytes.get(ROW_HEAD..ROW_HEAD + len)?;
    *rest = &bytes[ROW_HEAD + len..];
    Some((id, slot, name))
}

fn parse_destination(name: &[u8]) -> Option<Destination> {
    Destination::parse(std::str::from_utf8(name).ok()?).ok()
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
        let id = ItemId { queue_id: QueueId { node: 300, sequence: (1 << 40) + 21 }, part: 70_000 };
        let block = Block::of(id);
        let mut bytes = Vec::new();
        let rows = [(id, slot), (block.ids().last().unwrap(), Slot { state: None, ..slot })];
        rows.iter().for_each(|(id, slot)| render_row(&mut bytes, *id, slot, &destination));
        let mut rest = &bytes[..];
        for (id, slot) in rows {
            let (read, found, name) = parse_row(block, &mut rest).unwrap();
            assert_eq!((read, found, parse_destination(name)), (id, slot, Some(destination.clone())));
        }
        assert!(rest.is_empty());
        let row = bytes.len() / 2;
        assert!((0..row).all(|cut| parse_row(block, &mut &bytes[..cut]).is_none()));
        assert!(block.ids().any(|one| one == id) && block.ids().all(|one| Block::of(one) == block));
        assert_eq!(parse_block_key(&block_key(block)), Some(block));
        assert_eq!(parse_block_key(b"b"), None);
    }
}
