//! Reading the journal by place: envelopes, states and contents of what waits.
//!
//! Blocking. Everything read is verified by its checksum; a place that moved meanwhile is looked up
//! again. Never changes anything.

use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::body::{Body, troubled};
use super::frame::{Kind, OP_HEAD, op_len, read_op};
use super::notions::QueueError;
use super::record::{Change, Message, State};
use super::segments::Location;
use super::shared::Shared;
use super::table::Slot;
use crate::queue::{ItemId, QueueId, QueueItem};

/// Octets read at first where the length of an envelope is not known.
const ENVELOPE_BYTES: usize = 1024;
/// Compaction may move a message while it is looked for, but hardly this often.
const TRIES: usize = 4;

/// A message as it is at a place, with its content unless that is in a file or there is none.
pub(super) fn message_at(shared: &Shared, at: Location) -> Result<(Message, Option<Bytes>), QueueError> {
    let bytes = Bytes::from(place(shared, at, at.length as usize)?);
    let message = parse_message(&bytes).ok_or_else(|| damaged(shared, at))?;
    let begin = op_len(&bytes).filter(|begin| *begin < bytes.len() && !message.in_file);
    let Some(begin) = begin else { return Ok((message, None)) };
    let body = read_op(&bytes.slice(begin..), Kind::Body).ok_or_else(|| damaged(shared, at))?;
    Ok((message, Some(body)))
}

/// An item as it stands; `None` when it left the queue.
pub(super) fn item(shared: &Shared, id: ItemId) -> Result<Option<QueueItem>, QueueError> {
    retry(shared, id.queue_id, |shared| {
        let Some((slot, fresh)) = look(shared, id) else { return Ok(None) };
        let message = match fresh {
            Some(message) => message,
            None => message(shared, slot.enqueue)?.into(),
        };
        let state = slot.state.map(|at| state(shared, at)).transpose()?;
        let item = message.item(id.part, state);
        item.map(Some).ok_or_else(|| damaged(shared, slot.enqueue))
    })
}

/// A message's content.
pub(super) fn body(shared: &Shared, id: QueueId) -> Result<Body, QueueError> {
    retry(shared, id, |shared| {
        let slot = shared.table().parts(id).next().map(|(_, slot)| slot);
        let slot = slot.ok_or_else(|| QueueError::Unknown(id.to_string()))?;
        let bytes = Bytes::from(place(shared, slot.enqueue, slot.enqueue.length as usize)?);
        let message = parse_message(&bytes).ok_or_else(|| damaged(shared, slot.enqueue))?;
        if message.in_file {
            return Ok(Body::File { path: shared.body_path(id), len: message.size });
        }
        let begin = op_len(&bytes).filter(|begin| *begin <= bytes.len());
        let body = begin.and_then(|begin| read_op(&bytes.slice(begin..), Kind::Body));
        body.map(Body::Memory).ok_or_else(|| damaged(shared, slot.enqueue))
    })
}

/// An operation's bytes.
pub(super) fn op(shared: &Shared, at: Location, kind: Kind) -> Result<Bytes, QueueError> {
    let bytes = Bytes::from(place(shared, at, at.length as usize)?);
    read_op(&bytes, kind).ok_or_else(|| damaged(shared, at))
}

type Known = (Slot, Option<std::sync::Arc<Message>>);

fn look(shared: &Shared, id: ItemId) -> Option<Known> {
    let table = shared.table();
    let slot = table.slot(id)?;
    let fresh = table.fresh(id.queue_id).map(|fresh| std::sync::Arc::clone(&fresh.message));
    Some((slot, fresh))
}

fn message(shared: &Shared, at: Location) -> Result<Message, QueueError> {
    let mut bytes = place(shared, at, ENVELOPE_BYTES)?;
    let len = op_len(&bytes).ok_or_else(|| damaged(shared, at))?;
    if len > bytes.len() && len <= at.length as usize {
        bytes = place(shared, at, len)?;
    }
    parse_message(&bytes.into()).ok_or_else(|| damaged(shared, at))
}

fn parse_message(bytes: &Bytes) -> Option<Message> {
    let bytes = read_op(bytes, Kind::Enqueue)?;
    serde_json::from_slice(&bytes).ok()
}

fn state(shared: &Shared, at: Location) -> Result<State, QueueError> {
    match Change::parse(Kind::State, &op(shared, at, Kind::State)?) {
        Ok(Some(Change::State(state))) => Ok(state),
        _ => Err(damaged(shared, at)),
    }
}

/// The first `max` octets of a place.
fn place(shared: &Shared, at: Location, max: usize) -> Result<Vec<u8>, QueueError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; max.clamp(OP_HEAD, (at.length as usize).max(OP_HEAD))];
        shared.reader(at.segment)?.read_exact_at(&mut bytes, u64::from(at.offset))?;
        Ok(bytes)
    };
    read().map_err(|error| troubled("cannot read", &shared.segment_path(at.segment), &error))
}

fn damaged(shared: &Shared, at: Location) -> QueueError {
    let path = shared.segment_path(at.segment);
    QueueError::Storage(format!("the record at octet {} of {} is damaged", at.offset, path.display()))
}

/// Repeats a read whose message moved meanwhile.
fn retry<T>(
    shared: &Shared,
    id: QueueId,
    read: impl Fn(&Shared) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    let places = || shared.table().parts(id).map(|(_, slot)| (slot.enqueue, slot.state)).collect::<Vec<_>>();
    // Hardly anything moves: only a read that failed is worth a look at whether it did.
    if let Ok(found) = read(shared) {
        return Ok(found);
    }
    let mut tries = TRIES;
    loop {
        let before = places();
        let result = read(shared);
        tries -= 1;
        if result.is_ok() || tries == 0 || places() == before {
            return result;
        }
    }
}
