//! How the journal's bytes look: segment headers, frames, operations, and finding them again.
//!
//! A segment is a header and then frames. A frame is one atomic step: a head, and operations each
//! with a head of their own. The frame's checksum covers its place, the store's nonce and the heads
//! of its operations; each operation's checksum covers its bytes. So a frame is whole or nothing,
//! one operation can be read and verified alone, and no message can carry text that passes for a
//! frame: its author knows neither nonce nor place.
//!
//! Pure. All numbers are little-endian.

use bytes::Bytes;
use memchr::memmem;

use super::format;

/// Octets of a segment's header.
pub(super) const HEADER: usize = 64;
/// Octets of a frame's head.
pub(super) const FRAME_HEAD: usize = 28;
/// Octets of an operation's head.
pub(super) const OP_HEAD: usize = 12;

const HEADER_MAGIC: &[u8; 16] = b"stsrelay journal";
const FRAME_MAGIC: &[u8; 4] = b"\xf5SRJ";

/// Random per store.
pub(super) type Nonce = [u8; 16];

/// The first octets of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The format of what follows; only [`format::JOURNAL`] is written.
    pub version: u32,
    pub segment: u32,
    pub nonce: Nonce,
    /// Queue ids from here on were not given out when the segment was begun.
    pub ids_below: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Not a header, or a damaged one.
    Damaged,
    /// Written by a newer stsrelay.
    Newer(u32),
}

impl Header {
    pub(super) fn render(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..16].copy_from_slice(HEADER_MAGIC);
        bytes[16..20].copy_from_slice(&self.version.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.nonce);
        bytes[40..48].copy_from_slice(&self.ids_below.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..HEADER).ok_or(HeaderError::Damaged)?;
        if &bytes[..16] != HEADER_MAGIC || crc32fast::hash(&bytes[..48]) != u32_at(bytes, 48) {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(bytes, 16);
        if version > format::JOURNAL {
            return Err(HeaderError::Newer(version));
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[24..40]);
        let ids_below = u64::from(u32_at(bytes, 40)) | u64::from(u32_at(bytes, 44)) << 32;
        Ok(Self { version, segment: u32_at(bytes, 20), nonce, ids_below })
    }
}

/// What an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message's envelope; its body follows as the next operation unless it is a file.
    Enqueue = 1,
    /// A message's content.
    Body = 2,
    /// An item's recipients after an attempt.
    State = 3,
    /// An item held, released, made due or condemned by an operator.
    Mark = 4,
    /// An item that left the queue.
    Done = 5,
    /// Queue ids below this number may be in use.
    Reserve = 6,
    /// How an attempt travelled; in the frame that settles it, moved to the evidence log.
    Evidence = 7,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        use Kind::{Body, Done, Enqueue, Evidence, Mark, Reserve, State};
        [Enqueue, Body, State, Mark, Done, Reserve, Evidence].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// An operation about to be written, its checksum already taken by the caller.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub kind: Kind,
    pub bytes: Bytes,
    sum: u32,
}

impl Op {
    pub(super) fn new(kind: Kind, bytes: Bytes) -> Self {
        let sum = crc32fast::hash(&bytes);
        Self { kind, bytes, sum }
    }

    /// Octets with its head.
    pub(super) fn len(&self) -> usize {
        OP_HEAD + self.bytes.len()
    }

    pub(super) fn head(&self) -> [u8; OP_HEAD] {
        let mut head = [0; OP_HEAD];
        head[0] = self.kind as u8;
        head[4..8].copy_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&self.sum.to_le_bytes());
        head
    }
}

/// Octets of a frame with these operations.
pub(super) fn frame_len(ops: &[Op]) -> usize {
    FRAME_HEAD + ops.iter().map(Op::len).sum::<usize>()
}

/// The head of a frame at `offset` of `segment`.
pub(super) fn frame_head(nonce: &Nonce, segment: u32, offset: u32, ops: &[Op]) -> [u8; FRAME_HEAD] {
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(FRAME_MAGIC);
    head[4..8].copy_from_slice(&segment.to_le_bytes());
    head[8..12].copy_from_slice(&offset.to_le_bytes());
    head[12..16].copy_from_slice(&(frame_len(ops) as u32).to_le_bytes());
    head[16..20].copy_from_slice(&(ops.len() as u32).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(nonce);
    sum.update(&head[..24]);
    for op in ops {
        sum.update(&op.head());
    }
    head[24..28].copy_from_slice(&sum.finalize().to_le_bytes());
    head
}

/// An operation found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundOp<'a> {
    pub kind: Kind,
    /// Where its head begins.
    pub offset: u32,
    pub bytes: &'a [u8],
}

/// What scanning a segment meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole frame: its operations.
    Frame {
        /// Where the next one begins.
        end: usize,
        ops: Vec<FoundOp<'a>>,
    },
    /// Octets `from..to` are no valid frame. `ops` holds those operations of a damaged frame that
    /// are whole themselves, only good for telling whose it was.
    Gap { from: usize, to: usize, ops: Vec<FoundOp<'a>> },
}

/// Walks the frames of a segment from `at` on; after damage it goes on at the next valid frame.
pub(super) struct Scan<'a> {
    pub bytes: &'a [u8],
    pub segment: u32,
    pub nonce: Nonce,
    pub at: usize,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let from = self.at;
        let mut rest = Vec::new();
        match self.frame(from) {
            Frame::Whole { end, ops } => {
                self.at = end;
                return Some(Found::Frame { end, ops });
            }
            Frame::Damaged { ops } => rest = ops,
            Frame::None => {}
        }
        let mut at = from + 1;
        self.at = loop {
            let Some(found) = self.bytes.get(at..).and_then(|tail| memmem::find(tail, FRAME_MAGIC)) else {
                break self.bytes.len();
            };
            at += found;
            // A damaged frame ends a gap too: its own gap names whose it was.
            if !matches!(self.frame(at), Frame::None) {
                break at;
            }
            at += 1;
        };
        Some(Found::Gap { from, to: self.at, ops: rest })
    }
}

enum Frame<'a> {
    Whole {
        end: usize,
        ops: Vec<FoundOp<'a>>,
    },
    /// The heads are right, some bytes are not.
    Damaged {
        ops: Vec<FoundOp<'a>>,
    },
    None,
}

impl<'a> Scan<'a> {
    fn frame(&self, at: usize) -> Frame<'a> {
        self.heads(at).unwrap_or(Frame::None)
    }

    fn heads(&self, at: usize) -> Option<Frame<'a>> {
        let bytes = self.bytes;
        let head = bytes.get(at..at.checked_add(FRAME_HEAD)?)?;
        let (length, count) = (u32_at(head, 12) as usize, u32_at(head, 16) as usize);
        let placed = &head[..4] == FRAME_MAGIC
            && u32_at(head, 4) == self.segment
            && u32_at(head, 8) as usize == at
            && length >= FRAME_HEAD
            && count <= length / OP_HEAD;
        if !placed {
            return None;
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.nonce);
        sum.update(&head[..24]);
        let end = at.checked_add(length)?;
        let mut offset = at + FRAME_HEAD;
        let (mut ops, mut whole) = (Vec::with_capacity(count.min(1024)), true);
        for _ in 0..count {
            let op_head = bytes.get(offset..offset.checked_add(OP_HEAD)?)?;
            sum.update(op_head);
            let (begin, len) = (offset + OP_HEAD, u32_at(op_head, 4) as usize);
            let after = begin.checked_add(len).filter(|after| *after <= end)?;
            match (Kind::parse(op_head[0]), bytes.get(begin..after)) {
                (Some(kind), Some(content)) if crc32fast::hash(content) == u32_at(op_head, 8) => {
                    ops.push(FoundOp { kind, offset: offset as u32, bytes: content });
                }
                _ => whole = false,
            }
            offset = after;
        }
        if offset != end || sum.finalize() != u32_at(head, 24) {
            return None;
        }
        Some(if whole && end <= bytes.len() { Frame::Whole { end, ops } } else { Frame::Damaged { ops } })
    }
}

/// Reads one operation out of `bytes` that begin with its head; `None` when it is damaged or cut.
pub(super) fn read_op(bytes: &Bytes, kind: Kind) -> Option<Bytes> {
    let head = bytes.get(..OP_HEAD)?;
    let content = OP_HEAD..OP_HEAD.checked_add(u32_at(head, 4) as usize)?;
    let whole = head[0] == kind as u8 && crc32fast::hash(bytes.get(content.clone())?) == u32_at(head, 8);
    whole.then(|| bytes.slice(content))
}

/// Octets of the operation whose head begins `bytes`.
pub(super) fn op_len(bytes: &[u8]) -> Option<usize> {
    Some(OP_HEAD + u32_at(bytes.get(..OP_HEAD)?, 4) as usize)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map(u32::from_le_bytes)
        .expect("callers have checked the length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = [7; 16];

    fn segment(frames: &[&[(Kind, &[u8])]]) -> Vec<u8> {
        let mut bytes =
            Header { version: format::JOURNAL, segment: 3, nonce: NONCE, ids_below: 9 }.render().to_vec();
        for frame in frames {
            let ops: Vec<Op> =
                frame.iter().map(|(kind, bytes)| Op::new(*kind, Bytes::copy_from_slice(bytes))).collect();
            let at = bytes.len() as u32;
            bytes.extend_from_slice(&frame_head(&NONCE, 3, at, &ops));
            for op in &ops {
                bytes.extend_from_slice(&op.head());
                bytes.extend_from_slice(&op.bytes);
            }
        }
        bytes
    }

    type Frames = Vec<Vec<Vec<u8>>>;

    fn scan(bytes: &[u8]) -> (Frames, Vec<(usize, usize)>) {
        let (mut frames, mut gaps) = (Vec::new(), Vec::new());
        for found in (Scan { bytes, segment: 3, nonce: NONCE, at: HEADER }) {
            match found {
                Found::Frame { ops, .. } => frames.push(ops.iter().map(|op| op.bytes.to_vec()).collect()),
                Found::Gap { from, to, .. } => gaps.push((from, to)),
            }
        }
        (frames, gaps)
    }

    #[test]
    fn headers_round_trip_and_newer_or_damaged_ones_are_told_apart() {
        let header = Header { version: format::JOURNAL, segment: 3, nonce: NONCE, ids_below: u64::MAX - 1 };
        let mut bytes = header.render();
        assert_eq!(Header::parse(&bytes), Ok(header));
        assert_eq!(Header::parse(&bytes[..63]), Err(HeaderError::Damaged));
        bytes[16] = 222;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Damaged));
        let sum = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Newer(222)));
    }

    #[test]
    fn every_single_damaged_octet_loses_one_frame_and_no_other() {
        let first: &[(Kind, &[u8])] = &[(Kind::Enqueue, b"one"), (Kind::Body, b"body")];
        let second: &[(Kind, &[u8])] = &[(Kind::Done, b"two"), (Kind::Enqueue, b"born")];
        let third: &[(Kind, &[u8])] = &[(Kind::Reserve, b"3")];
        let good = segment(&[first, second, third]);
        let begin = segment(&[first]).len();
        let end = segment(&[first, second]).len();
        for at in begin..end {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            let (frames, gaps) = scan(&bytes);
            assert_eq!(frames.len(), 2, "octet {at}");
            assert_eq!(frames[1], [b"3".to_vec()], "octet {at}");
            assert_eq!(gaps.first().map(|gap| gap.0), Some(begin), "octet {at}");
            assert_eq!(gaps.last().map(|gap| gap.1), Some(end), "octet {at}");
        }
        for len in begin..end {
            assert_eq!(scan(&good[..len]).0.len(), 1, "cut at {len}");
        }
    }

    #[test]
    fn a_frame_inside_a_message_is_never_taken_for_one() {
        // The attacker knows everything but the nonce.
        let ops = [Op::new(Kind::Done, Bytes::from_static(b"victim"))];
        let outer_head = HEADER + FRAME_HEAD + OP_HEAD;
        let mut forged = frame_head(&[0; 16], 3, outer_head as u32, &ops).to_vec();
        forged.extend_from_slice(&ops[0].head());
        forged.extend_from_slice(b"victim");
        let mut bytes = segment(&[&[(Kind::Body, &forged)], &[(Kind::Reserve, b"9")]]);
        bytes[HEADER] ^= 1;
        let (frames, gaps) = scan(&bytes);
        assert_eq!(frames, [[b"9".to_vec()]]);
        assert_eq!(gaps.len(), 1);
    }

    #[test]
    fn a_damaged_body_still_tells_whose_it_was() {
        let mut bytes = segment(&[&[(Kind::Enqueue, b"name"), (Kind::Body, b"text")]]);
        *bytes.last_mut().unwrap() ^= 1;
        let found: Vec<_> = Scan { bytes: &bytes, segment: 3, nonce: NONCE, at: HEADER }.collect();
        let [Found::Gap { ops, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(ops[0].bytes, b"name");
    }
}
