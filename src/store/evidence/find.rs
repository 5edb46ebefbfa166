//! Looking evidence up: by message, Message-ID or destination, within a time, page by page.
//!
//! Reads files that are only ever appended to, beside whoever writes them. A segment whose filter or
//! span says no is passed over; the others are read one at a time. Bounded: a page ends when it is
//! full or enough was read, and says from where to go on.

use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::log::{Log, Segment, filter_name, segment_name};
use super::segment::{Keys, Kind, Scan, destination_key, frame_at, key, keys, queue_id_key, resolve};
use crate::queue::evidence::plain_message_id;
use crate::queue::{Evidence, ItemId, QueueId};
use crate::store::body::troubled;
use crate::store::notions::QueueError;

/// Octets of segments read for one page.
const READ_MAX: u64 = 256 << 20;

/// Which attempts; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EvidenceFilter {
    /// Of this message.
    #[serde(default)]
    pub id: Option<QueueId>,
    /// Of this item.
    #[serde(default)]
    pub item: Option<ItemId>,
    /// Of messages with this Message-ID, with or without angle brackets.
    #[serde(default)]
    pub message_id: Option<String>,
    /// To this domain or address literal.
    #[serde(default)]
    pub destination: Option<String>,
    /// Not before this.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Before this.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceCursor {
    segment: u32,
    offset: u64,
}

/// A page of attempts, in the order they were settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvidencePage {
    /// The attempts.
    pub attempts: Vec<Evidence>,
    /// For the next page; `None` at the end. A page that is not full, even empty, may have one.
    pub cursor: Option<EvidenceCursor>,
}

/// What is asked, ready to be compared.
struct Wanted<'a> {
    filter: &'a EvidenceFilter,
    message_id: Option<(String, u64)>,
    destination: Option<u64>,
    since: i64,
    until: i64,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a EvidenceFilter) -> Self {
        let message_id = filter.message_id.as_deref().map(plain_message_id);
        Self {
            filter,
            message_id: message_id.map(|text| {
                let key = key(&text);
                (text, key)
            }),
            destination: filter.destination.as_deref().map(destination_key),
            since: filter.since.map_or(i64::MIN, |at| at.as_microsecond()),
            until: filter.until.map_or(i64::MAX, |at| at.as_microsecond()),
        }
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        let item = self.filter.item.map(|item| item.queue_id);
        let ids = [self.filter.id, item].into_iter().flatten().map(queue_id_key);
        ids.chain(self.message_id.as_ref().map(|(_, key)| *key)).chain(self.destination)
    }

    fn may_be_in(&self, segment: &Segment) -> bool {
        segment.span.last >= self.since && segment.span.first < self.until
    }

    fn fits(&self, keys: &Keys) -> bool {
        (self.since..self.until).contains(&keys.at)
            && self.filter.id.is_none_or(|id| keys.item.queue_id == id)
            && self.filter.item.is_none_or(|item| keys.item == item)
            && self.message_id.as_ref().is_none_or(|(_, key)| keys.message_id == *key)
            && self.destination.is_none_or(|key| keys.destination == key)
    }

    /// Numbers may be equal where texts are not.
    fn is(&self, evidence: &Evidence) -> bool {
        let own = &evidence.message;
        self.message_id.as_ref().is_none_or(|(text, _)| own.message_id.as_ref() == Some(text))
            && self
                .filter
                .destination
                .as_ref()
                .is_none_or(|wanted| own.destination.eq_ignore_ascii_case(wanted))
    }
}

impl Log {
    /// Where everything is that may be asked for; see [`Files::find`].
    pub(in crate::store) fn files(&self) -> Files {
        Files { dir: self.dir().to_owned(), segments: self.segments() }
    }
}

/// The log's files at an instant.
pub(in crate::store) struct Files {
    dir: std::path::PathBuf,
    segments: Vec<(u32, Segment)>,
}

impl Files {
    /// A page of at most `max` attempts. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when a file cannot be read.
    pub(in crate::store) fn find(
        &self,
        filter: &EvidenceFilter,
        from: Option<EvidenceCursor>,
        max: usize,
    ) -> Result<EvidencePage, QueueError> {
        let wanted = Wanted::new(filter);
        let (mut page, mut read) = (EvidencePage::default(), 0);
        let begin = from.map_or(0, |cursor| cursor.segment);
        for (number, segment) in self.segments.iter().filter(|(number, _)| *number >= begin) {
            if !wanted.may_be_in(segment) || !self.may_hold(*number, &wanted) {
                continue;
            }
            let at = from.filter(|cursor| cursor.segment == *number).map(|cursor| cursor.offset as usize);
            if read >= READ_MAX || page.attempts.len() >= max {
                page.cursor =
                    Some(EvidenceCursor { segment: *number, offset: at.unwrap_or_default() as u64 });
                return Ok(page);
            }
            let path = self.dir.join(segment_name(*number));
            let bytes = match fs::read(&path) {
                // Dropped meanwhile: its time was over.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(|error| troubled("cannot read", &path, &error))?,
            };
            read += bytes.len() as u64;
            if let Some(offset) = search(&bytes, at, &wanted, max, &mut page.attempts) {
                page.cursor = Some(EvidenceCursor { segment: *number, offset });
                return Ok(page);
            }
        }
        Ok(page)
    }

    fn may_hold(&self, number: u32, wanted: &Wanted<'_>) -> bool {
        let mut keys = wanted.keys().peekable();
        if keys.peek().is_none() {
            return true;
        }
        // Without a filter everything is possible.
        let Ok(bytes) = fs::read(self.dir.join(filter_name(number))) else { return true };
        Filter::parse(&bytes).is_none_or(|filter| keys.all(|key| filter.may_hold(key)))
    }
}

/// Searches a segment; where to go on when the page is full.
fn search(
    bytes: &[u8],
    from: Option<usize>,
    wanted: &Wanted<'_>,
    max: usize,
    out: &mut Vec<Evidence>,
) -> Option<u64> {
    let mut scan = Scan::new(bytes);
    // A cursor that names no frame is of another file: begin anew.
    scan.at = from.filter(|at| frame_at(bytes, *at).is_some()).unwrap_or(scan.at);
    for found in scan {
        if found.kind != Kind::Attempt || !keys(found.content).is_some_and(|keys| wanted.fits(&keys)) {
            continue;
        }
        if out.len() >= max {
            return Some(found.offset as u64);
        }
        out.extend(resolve(bytes, found.content).filter(|evidence| wanted.is(evidence)));
    }
    None
}
