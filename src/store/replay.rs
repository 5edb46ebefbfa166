//! Reading the journal at start: every whole record applied in order, damage skipped and told.
//!
//! A frame is whole or it is not applied, so what was written in one step appears in one step. The
//! caller decides from where to read and cuts the torn end off.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::body::troubled;
use super::frame::{Found, FoundOp, HEADER, Header, Kind, Nonce, OP_HEAD, Scan};
use super::notions::QueueError;
use super::open::names;
use super::record::Change;
use super::segments::{Location, Position};
use super::table::Table;

/// A segment on disk.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub number: u32,
    pub path: PathBuf,
    pub len: u64,
    /// Absent when damaged.
    pub header: Option<Header>,
}

/// What reading the journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    pub records: u64,
    /// One sentence for each thing the operator should know.
    pub notes: Vec<String>,
    /// Something other than the journal's end was damaged or missing.
    pub damaged: bool,
    /// The last segment has damage before its end.
    pub last_damaged: bool,
    /// Where the last segment's last whole record ends.
    pub end: u64,
}

/// Applies the journal to the table, from `from` on if that is given; `after_each` takes what a
/// segment left waiting, so that memory never holds more than one segment's. Blocking.
pub(super) fn replay(
    files: &[SegmentFile],
    nonce: Nonce,
    from: Option<Position>,
    table: &mut Table,
    after_each: &mut dyn FnMut(&mut Table),
) -> Result<Replayed, QueueError> {
    let mut done = Replayed::default();
    for file in files {
        table.segments.set_len(file.number, file.len);
        if let Some(header) = file.header {
            table.ids_below = table.ids_below.max(header.ids_below);
        }
    }
    // Segments leave in order, so numbers have no holes.
    for pair in files.windows(2).filter(|pair| pair[1].number - pair[0].number > 1) {
        let missing = pair[0].number + 1..pair[1].number;
        done.damaged = true;
        done.notes.push(format!(
            "{} of the journal's segments are missing, from number {} on: messages in them are lost unless a backup has them",
            missing.len(),
            missing.start
        ));
    }
    let begin = from.unwrap_or_default();
    for (index, file) in files.iter().enumerate().filter(|(_, file)| file.number >= begin.segment) {
        let at = if file.number == begin.segment { begin.offset as usize } else { HEADER };
        let last = index + 1 == files.len();
        if file.header.is_none() {
            done.damaged = true;
            done.notes
                .push(format!("the header of {} is damaged; its records were read", file.path.display()));
        }
        let bytes = fs::read(&file.path).map_err(|error| troubled("cannot read", &file.path, &error))?;
        let at = at.max(HEADER);
        done.end = at.min(bytes.len()) as u64;
        segment(
            file,
            &bytes,
            Scan { bytes: &bytes, segment: file.number, nonce, at },
            last,
            table,
            &mut done,
        );
        after_each(table);
    }
    table.position = files
        .last()
        .map_or_else(Position::default, |last| Position { segment: last.number, offset: done.end as u32 });
    Ok(done)
}

fn segment(
    file: &SegmentFile,
    bytes: &[u8],
    scan: Scan<'_>,
    last: bool,
    table: &mut Table,
    done: &mut Replayed,
) {
    for found in scan {
        match found {
            Found::Frame { end, ops } => {
                frame(file, &ops, table, done);
                done.end = end as u64;
            }
            Found::Gap { from, to, .. } if last && to == bytes.len() => {
                done.notes.push(format!(
                    "{} octets of an unfinished write cut off at the end of {}",
                    to - from,
                    file.path.display()
                ));
            }
            Found::Gap { from, to, ops } => {
                done.damaged = true;
                done.last_damaged |= last;
                done.notes.push(gap(file, from, to, &ops));
            }
        }
    }
}

fn gap(file: &SegmentFile, from: usize, to: usize, ops: &[FoundOp<'_>]) -> String {
    let mut text = format!(
        "octets {from} to {to} of {} are damaged and were skipped; the file holds them until its messages are gone",
        file.path.display()
    );
    let whose: Vec<String> = ops
        .iter()
        .filter_map(|op| match Change::parse(op.kind, op.bytes).ok()?? {
            Change::Enqueue(message) => Some(message.id.to_string()),
            Change::State(state) => Some(state.item.to_string()),
            Change::Mark(mark) => Some(mark.item.to_string()),
            Change::Done(item) => Some(item.to_string()),
            Change::Reserve(_) => None,
        })
        .collect();
    if !whose.is_empty() {
        text.push_str(&format!("; they were about {}", names(whose.iter())));
    }
    text
}

fn frame(file: &SegmentFile, ops: &[FoundOp<'_>], table: &mut Table, done: &mut Replayed) {
    for (index, op) in ops.iter().enumerate() {
        let body = ops.get(index + 1).filter(|next| op.kind == Kind::Enqueue && next.kind == Kind::Body);
        let length = OP_HEAD + op.bytes.len() + body.map_or(0, |body| OP_HEAD + body.bytes.len());
        let at = Location { segment: file.number, offset: op.offset, length: length as u32 };
        match Change::parse(op.kind, op.bytes) {
            Ok(None) if op.kind == Kind::Evidence => {
                let at = Position { segment: file.number, offset: op.offset };
                table.evidence.push(at, Bytes::copy_from_slice(op.bytes));
            }
            Ok(None) => {}
            Ok(Some(change)) => {
                done.records += 1;
                table.apply(change, at, None);
            }
            // Its checksum is right, so it was written like that.
            Err(error) => {
                done.damaged = true;
                done.notes.push(format!(
                    "the record at octet {} of {} cannot be understood and was skipped: {error}",
                    op.offset,
                    file.path.display()
                ));
            }
        }
    }
}
