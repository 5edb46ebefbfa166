//! Reading the journal at start: every whole record applied in order, damage skipped and told.
//!
//! A frame is whole or it is not applied, so what was written in one step appears in one step. The
//! caller decides from where to read and cuts the torn end off.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;

use super::body::troubled;
use super::frame::{Found, FoundOp, HEADER, Header, Kind, Nonce, OP_HEAD, Scan};
use super::notions::QueueError;
use super::open::names;
use super::record::Change;
use super::segments::{Location, Position};
use super::table::Table;
use crate::queue::QueueId;

/// What a disk loses at once, at least.
const PAGE_BYTES: usize = 4096;

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
    /// The last segment could not be read to its end: it must be left as it is.
    pub last_unreadable: bool,
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
        let path = file.path.display();
        if file.len < HEADER as u64 {
            done.damaged = true;
            table.segments.spoil(file.number);
            done.notes.push(format!(
                "{path} has only {} octets left: the messages in it are lost unless a backup has them",
                file.len
            ));
        } else if file.header.is_none() {
            done.damaged = true;
            table.segments.spoil(file.number);
            done.notes.push(format!("the header of {path} is damaged; its records were read"));
        }
        let (bytes, trouble) = read_segment(file)?;
        if let Some(trouble) = &trouble {
            done.damaged = true;
            done.last_unreadable = last;
            table.segments.spoil(file.number);
            done.notes.push(format!(
                "{trouble}; the others go on, and messages that ended according to what cannot be read may be \
                 delivered again"
            ));
        }
        let at = at.max(HEADER);
        done.end = at.min(bytes.len()) as u64;
        segment(
            file,
            &bytes,
            Scan { bytes: &bytes, segment: file.number, nonce, at },
            last && trouble.is_none(),
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
                table.segments.spoil(file.number);
                done.notes.push(gap(file, from, to, &ops));
            }
        }
    }
}

fn gap(file: &SegmentFile, from: usize, to: usize, ops: &[FoundOp<'_>]) -> String {
    let mut text = format!(
        "octets {from} to {to} of {} are damaged and were skipped; the file is kept, in the folder damaged once its messages are gone",
        file.path.display()
    );
    let whose = about(ops);
    if !whose.is_empty() {
        text.push_str(&format!("; they were about {}", names(whose.iter())));
    }
    text
}

/// The messages that operations are about.
pub(super) fn about(ops: &[FoundOp<'_>]) -> BTreeSet<QueueId> {
    ops.iter()
        .filter_map(|op| match Change::parse(op.kind, op.bytes).ok()?? {
            Change::Enqueue(message) => Some(message.id),
            Change::State(state) => Some(state.item.queue_id),
            Change::Mark(mark) => Some(mark.item.queue_id),
            Change::Done(item) => Some(item.queue_id),
            Change::Reserve(_) => None,
        })
        .collect()
}

/// A segment's octets, and what of them the disk does not give: zeros stand there, which no record
/// is made of. Blocking.
///
/// # Errors
/// When we may not read it: that is for an operator to put right, not damage.
pub(super) fn read_segment(file: &SegmentFile) -> Result<(Vec<u8>, Option<String>), QueueError> {
    let error = match fs::read(&file.path) {
        Ok(bytes) => return Ok((bytes, None)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(troubled("cannot read", &file.path, &error));
        }
        Err(error) => error,
    };
    let opened = File::open(&file.path).ok();
    let (bytes, lost) = salvage(file.len as usize, |at, piece| match &opened {
        Some(opened) => opened.read_exact_at(piece, at),
        None => Err(io::ErrorKind::NotFound.into()),
    });
    Ok((bytes, Some(format!("{lost} octets of {} cannot be read ({error})", file.path.display()))))
}

/// Reads page by page; those that fail stay zeros and are counted.
fn salvage(len: usize, read: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> (Vec<u8>, usize) {
    let (mut bytes, mut lost) = (vec![0; len], 0);
    for (index, piece) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        if read((index * PAGE_BYTES) as u64, piece).is_err() {
            piece.fill(0);
            lost += piece.len();
        }
    }
    (bytes, lost)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_does_not_give_is_zeros_and_all_the_rest_is_there() {
        let good: Vec<u8> = (0..3 * PAGE_BYTES + 100).map(|at| (at % 251) as u8 + 1).collect();
        let bad = PAGE_BYTES..2 * PAGE_BYTES;
        let (bytes, lost) = salvage(good.len(), |at, piece| {
            let at = at as usize;
            piece.copy_from_slice(&good[at..at + piece.len()]);
            if bad.contains(&at) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        });
        assert_eq!(lost, PAGE_BYTES);
        assert!(bytes[bad.clone()].iter().all(|byte| *byte == 0));
        assert_eq!((&bytes[..bad.start], &bytes[bad.end..]), (&good[..bad.start], &good[bad.end..]));
    }
}
