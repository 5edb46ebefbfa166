//! How the evidence log's bytes look: a segment's header, its frames, and what a record says.
//!
//! A segment is a header and then frames, each with magic, kind, length, checksum and the place in
//! the journal it came from. A frame is a host (the same for many messages, kept once per segment)
//! or an attempt, which names its hosts by their place in the segment. In the journal an attempt
//! carries its hosts in itself. Each attempt begins with what it is looked up by, so that a search
//! reads 40 octets of those it passes. Pure. All numbers are little-endian.

use jiff::Timestamp;
use memchr::memmem;

use super::super::format;
use super::super::frame::Nonce;
use super::super::segments::Position;
use crate::queue::evidence::{EvidenceDraft, HostEvidence, MessageEvidence};
use crate::queue::{Evidence, ItemId, QueueId};

/// Octets of a segment's header.
pub(super) const HEADER: usize = 64;
/// Octets of a frame's head.
pub(super) const FRAME_HEAD: usize = 20;
/// Octets of an attempt before its text.
const HEAD: usize = 46;
/// Hosts of one attempt at most; an attempt tries far fewer.
const HOSTS_MAX: usize = 256;

const HEADER_MAGIC: &[u8; 16] = b"stsrelay evidenc";
const FRAME_MAGIC: &[u8; 3] = b"\xf5SE";
/// What an attempt's first octet says of its layout.
const LAYOUT: u8 = 1;

/// The first octets of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub segment: u32,
    /// Of the journal the attempts came from.
    pub nonce: Nonce,
    /// Where in the journal the segment before ended.
    pub after: Position,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl Header {
    pub(super) fn render(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..16].copy_from_slice(HEADER_MAGIC);
        bytes[16..20].copy_from_slice(&format::EVIDENCE.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.nonce);
        bytes[40..44].copy_from_slice(&self.after.segment.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.after.offset.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader { bytes };
        let magic = reader.take(16).ok_or(HeaderError::Damaged)?;
        let sum = bytes.get(48..52).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        if magic != HEADER_MAGIC || bytes.len() < HEADER || sum != Some(crc32fast::hash(&bytes[..48])) {
            return Err(HeaderError::Damaged);
        }
        let read = |reader: &mut Reader<'_>| -> Option<Result<Self, u32>> {
            let version = reader.u32()?;
            if version > format::EVIDENCE {
                return Some(Err(version));
            }
            let segment = reader.u32()?;
            let nonce = reader.take(16)?.try_into().ok()?;
            let after = Position { segment: reader.u32()?, offset: reader.u32()? };
            Some(Ok(Self { segment, nonce, after }))
        };
        match read(&mut reader) {
            Some(Ok(header)) => Ok(header),
            Some(Err(version)) => Err(HeaderError::Newer(version)),
            None => Err(HeaderError::Damaged),
        }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Attempt = 1,
    Host = 2,
}

/// Appends a frame.
pub(super) fn render_frame(kind: Kind, from: Position, content: &[u8], out: &mut Vec<u8>) {
    let mut head = [0; FRAME_HEAD];
    head[..3].copy_from_slice(FRAME_MAGIC);
    head[3] = kind as u8;
    head[4..8].copy_from_slice(&(content.len() as u32).to_le_bytes());
    head[8..12].copy_from_slice(&from.segment.to_le_bytes());
    head[12..16].copy_from_slice(&from.offset.to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[..16]);
    sum.update(content);
    head[16..].copy_from_slice(&sum.finalize().to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(content);
}

/// A frame found in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub kind: Kind,
    pub from: Position,
    pub offset: usize,
    pub end: usize,
    pub content: &'a [u8],
}

/// The frame at `at`, if a whole one is there.
pub(super) fn frame_at(bytes: &[u8], at: usize) -> Option<Found<'_>> {
    let mut reader = Reader { bytes: bytes.get(at..)? };
    let head = reader.bytes.get(..FRAME_HEAD)?;
    (reader.take(3)? == FRAME_MAGIC).then_some(())?;
    let kind = match reader.take(1)? {
        [1] => Kind::Attempt,
        [2] => Kind::Host,
        _ => return None,
    };
    let len = reader.u32()? as usize;
    let from = Position { segment: reader.u32()?, offset: reader.u32()? };
    let sum = reader.u32()?;
    let content = reader.take(len)?;
    let mut own = crc32fast::Hasher::new();
    own.update(&head[..16]);
    own.update(content);
    let end = at + FRAME_HEAD + len;
    (own.finalize() == sum).then_some(Found { kind, from, offset: at, end, content })
}

/// Walks the frames of a segment; damage is passed over.
pub(super) struct Scan<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// Where the last whole frame ended.
    pub end: usize,
    /// Damage was met before another whole frame.
    pub damaged: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: HEADER, end: HEADER.min(bytes.len()), damaged: false }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let begun = self.at;
        loop {
            if let Some(found) = frame_at(self.bytes, self.at) {
                self.damaged |= self.at != begun;
                (self.at, self.end) = (found.end, found.end);
                return Some(found);
            }
            let next = self.at + 1;
            self.at = next + memmem::find(self.bytes.get(next..)?, FRAME_MAGIC)?;
        }
    }
}

/// What an attempt is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    pub item: ItemId,
    pub at: i64,
    /// 0 without one.
    pub message_id: u64,
    pub destination: u64,
}

/// The attempt as the journal keeps it, hosts included.
pub(in crate::store) fn render_draft(draft: &EvidenceDraft) -> Vec<u8> {
    let hosts = &draft.hosts[..draft.hosts.len().min(HOSTS_MAX)];
    let size: usize = hosts.iter().map(|host| host.len() + 4).sum();
    let mut out = Vec::with_capacity(HEAD + 512 + size);
    let id = draft.item.queue_id;
    out.push(LAYOUT);
    out.push(0);
    out.extend_from_slice(&id.node.to_le_bytes());
    out.extend_from_slice(&draft.item.part.to_le_bytes());
    out.extend_from_slice(&id.sequence.to_le_bytes());
    out.extend_from_slice(&draft.at.as_microsecond().to_le_bytes());
    let message_id = draft.message.message_id.as_deref().map_or(0, key);
    out.extend_from_slice(&message_id.to_le_bytes());
    out.extend_from_slice(&destination_key(&draft.message.destination).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(hosts.len() as u16).to_le_bytes());
    if serde_json::to_writer(&mut out, &draft.message).is_err() {
        out.truncate(HEAD);
    }
    let len = (out.len() - HEAD) as u32;
    out[40..44].copy_from_slice(&len.to_le_bytes());
    for host in hosts {
        out.extend_from_slice(&(host.len() as u32).to_le_bytes());
        out.extend_from_slice(host);
    }
    out
}

/// Reads what an attempt is looked up by.
pub(super) fn keys(content: &[u8]) -> Option<Keys> {
    let mut reader = Reader { bytes: content };
    let ([LAYOUT, _], node, part) = (reader.take(2)?, reader.u16()?, reader.u32()?) else { return None };
    let item = ItemId { queue_id: QueueId { node, sequence: reader.u64()? }, part };
    let at = reader.u64()? as i64;
    Some(Keys { item, at, message_id: reader.u64()?, destination: reader.u64()? })
}

/// An attempt cut into the part that is its own and its hosts.
pub(super) fn cut(content: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut reader = Reader { bytes: content.get(40..)? };
    let (len, count) = (reader.u32()? as usize, reader.u16()? as usize);
    let own = content.get(..HEAD.checked_add(len)?)?;
    reader.take(len)?;
    let hosts = (0..count.min(HOSTS_MAX)).map(|_| {
        let len = reader.u32()? as usize;
        reader.take(len)
    });
    Some((own, hosts.collect::<Option<_>>()?))
}

/// The whole of an attempt, from its own part and its hosts' texts.
pub(super) fn parse(own: &[u8], hosts: &[&[u8]]) -> Option<Evidence> {
    let keys = keys(own)?;
    let message: MessageEvidence = serde_json::from_slice(own.get(HEAD..)?).ok()?;
    let hosts: Option<Vec<HostEvidence>> =
        hosts.iter().map(|host| serde_json::from_slice(host).ok()).collect();
    let at = Timestamp::from_microsecond(keys.at).ok()?;
    Some(Evidence { at, item: keys.item, message, hosts: hosts? })
}

/// The attempt as the log keeps it: its own part and where its hosts are in the segment.
pub(super) fn refer(own: &[u8], hosts: &[u32], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(own);
    hosts.iter().for_each(|host| out.extend_from_slice(&host.to_le_bytes()));
}

/// An attempt out of a segment.
pub(super) fn resolve(segment: &[u8], content: &[u8]) -> Option<Evidence> {
    let mut reader = Reader { bytes: content.get(40..)? };
    let (len, count) = (reader.u32()? as usize, reader.u16()? as usize);
    let own = content.get(..HEAD.checked_add(len)?)?;
    reader.take(len)?;
    let hosts = (0..count.min(HOSTS_MAX)).map(|_| {
        let found = frame_at(segment, reader.u32()? as usize)?;
        (found.kind == Kind::Host).then_some(found.content)
    });
    parse(own, &hosts.collect::<Option<Vec<_>>>()?)
}

/// The number a text is looked up by (FNV-1a). Texts are compared too, so equal numbers do no harm.
pub(super) fn key(text: &str) -> u64 {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// As [`key`]; domains know no case.
pub(super) fn destination_key(text: &str) -> u64 {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        key(&text.to_ascii_lowercase())
    } else {
        key(text)
    }
}

/// The number a message is looked up by in filters.
pub(super) fn queue_id_key(id: QueueId) -> u64 {
    let mixed = id.sequence ^ u64::from(id.node) << 48 ^ 0x9e37_79b9_7f4a_7c15;
    mixed.wrapping_mul(0xff51_afd7_ed55_8ccd)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
