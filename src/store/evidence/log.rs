//! Writing the evidence log: appending, beginning segments, dropping the oldest.
//!
//! One owner at a time (a mutex in `shared`); the keeper writes, and whoever looks something up makes
//! it write first. A segment ends when it is full or a day old; then its filter is written beside it.
//! After a failed write the segment is left as it is and a new one begun: what is in it is found as far
//! as it is whole. After a failed sync it is written anew first (`cure`), since what a disk failed to
//! sync once it may never sync.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::EvidenceLimits;
use super::filter::{Filter, Span};
use super::segment::{
    FRAME_HEAD, HEADER, Header, HeaderError, Kind, Scan, cut, keys, queue_id_key, refer, render_frame,
};
use crate::store::disk::{Disk, DiskFile, replace, sync_parent};
use crate::store::format;
use crate::store::frame::Nonce;
use crate::store::notions::QueueError;
use crate::store::segments::Position;

/// A segment ends at this age, so that evidence leaves within a day of its time.
const SEGMENT_AGE_MICROS: i64 = 86_400 * 1_000_000;

/// What is known of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Segment {
    pub len: u64,
    pub span: Span,
}

/// See the file's header.
pub(in crate::store) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    nonce: Nonce,
    limits: EvidenceLimits,
    /// A new segment is begun beyond it.
    segment_bytes: u64,
    segments: BTreeMap<u32, Segment>,
    tail: Option<Tail>,
    /// Everything of the journal up to here is in the log.
    moved: Option<Position>,
    /// The same, of what was written and not only staged.
    written: Option<Position>,
    /// Left unsynced by an error; nothing is begun after it, and no journal segment leaves, until it is
    /// written anew.
    unsure: Option<u32>,
    /// Writing fails; told once.
    failing: bool,
    /// Syncing fails; told once.
    sync_failing: bool,
    scratch: Vec<u8>,
}

/// The segment being written.
struct Tail {
    number: u32,
    file: Box<dyn DiskFile>,
    synced: bool,
    keys: Vec<u64>,
    /// Hosts in this segment and where.
    hosts: HashMap<Box<[u8]>, u32>,
}

impl Log {
    /// Opens what is in `dir`, or makes it. `end` is where the journal ends. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`]: unreadable, or written by a newer stsrelay.
    pub(in crate::store) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        nonce: Nonce,
        segment_bytes: u64,
        end: Position,
        repaired: &mut Vec<String>,
    ) -> Result<Self, QueueError> {
        let mut log = Self {
            disk,
            dir,
            nonce,
            limits: EvidenceLimits::default(),
            segment_bytes,
            segments: BTreeMap::new(),
            tail: None,
            moved: None,
            written: None,
            unsure: None,
            failing: false,
            sync_failing: false,
            scratch: Vec::new(),
        };
        let disk = log.disk.as_ref();
        disk.create_dir(&log.dir)
            .and_then(|()| sync_parent(disk, &log.dir))
            .map_err(|error| trouble("cannot create", &log.dir, &error))?;
        let mut numbers = numbers(&log.dir).map_err(|error| trouble("cannot read", &log.dir, &error))?;
        let last = numbers.pop();
        for number in numbers {
            log.adopt(number, repaired)?;
        }
        if let Some(last) = last {
            log.reopen(last, repaired)?;
        }
        if log.moved.is_some_and(|moved| moved >= end && end > Position::default()) {
            repaired.push(format!(
                "the journal ends before the evidence in {}: it is an older one; attempts may be listed twice",
                log.dir.display()
            ));
            log.moved = None;
            log.tail = None;
        }
        log.written = log.moved;
        Ok(log)
    }

    pub(in crate::store) fn moved(&self) -> Option<Position> {
        self.moved
    }

    pub(in crate::store) fn set_limits(&mut self, limits: EvidenceLimits) {
        self.limits = limits;
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segments and what is known of them, oldest first.
    pub(super) fn segments(&self) -> Vec<(u32, Segment)> {
        self.segments.iter().map(|(number, segment)| (*number, *segment)).collect()
    }

    /// Takes in a segment that is not written any more; one without a filter is read for it.
    fn adopt(&mut self, number: u32, repaired: &mut Vec<String>) -> Result<(), QueueError> {
        let path = self.path(number);
        let len = fs::metadata(&path).map_err(|error| trouble("cannot read", &path, &error))?.len();
        let filter = fs::read(self.filter_path(number)).ok().and_then(|bytes| Filter::parse(&bytes));
        let span = match filter {
            Some(filter) => filter.span,
            None => {
                let bytes = fs::read(&path).map_err(|error| trouble("cannot read", &path, &error))?;
                self.check_header(&bytes, &path)?;
                let read = read(&bytes);
                if read.damaged {
                    repaired.push(format!("{} is damaged; what is whole of it is found", path.display()));
                }
                self.write_filter(number, &read.keys, read.span);
                read.span
            }
        };
        self.segments.insert(number, Segment { len, span });
        Ok(())
    }

    /// Takes in the latest segment and goes on writing it if it is sound.
    fn reopen(&mut self, number: u32, repaired: &mut Vec<String>) -> Result<(), QueueError> {
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(|error| trouble("cannot read", &path, &error))?;
        let header = self.check_header(&bytes, &path)?;
        let Some(header) = header else {
            if bytes.len() <= HEADER {
                // Begun and never used; the one before it is the latest.
                let _ = self.disk.remove(&path);
                let before = self.segments.pop_last().map(|(number, _)| number);
                return before.map_or(Ok(()), |before| self.reopen(before, repaired));
            }
            return self.adopt(number, repaired);
        };
        let read = read(&bytes);
        let ours = header.nonce == self.nonce;
        if ours {
            self.moved = read.moved.or(Some(header.after)).filter(|at| *at > Position::default());
        }
        if read.damaged {
            repaired.push(format!("{} is damaged; what is whole of it is found", path.display()));
        }
        let end = read.end as u64;
        self.segments.insert(number, Segment { len: end, span: read.span });
        if !ours || read.damaged {
            self.write_filter(number, &read.keys, read.span);
            return Ok(());
        }
        // A process that ended may have left octets the disk does not have yet.
        let opened = self.disk.append(&path, end).and_then(|mut file| file.sync().map(|()| file));
        match opened {
            Ok(file) => {
                self.tail = Some(Tail { number, file, synced: true, keys: read.keys, hosts: read.hosts })
            }
            Err(error) => repaired.push(format!("{} cannot be written: {error}", path.display())),
        }
        Ok(())
    }

    fn check_header(&self, bytes: &[u8], path: &Path) -> Result<Option<Header>, QueueError> {
        match Header::parse(bytes) {
            Ok(header) => Ok(Some(header)),
            Err(HeaderError::Damaged) => Ok(None),
            Err(HeaderError::Newer(found)) => {
                Err(QueueError::Newer { path: path.to_owned(), found, known: format::EVIDENCE })
            }
        }
    }

    /// Writes attempts, oldest first; those the log has are left out. What an error leaves out may be
    /// given again.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::store) fn append(&mut self, attempts: &[(Position, Bytes)]) -> io::Result<()> {
        let result = attempts
            .iter()
            .try_for_each(|(from, content)| self.stage(*from, content))
            .and_then(|()| self.write_staged());
        if result.is_err() {
            self.moved = self.written;
            self.scratch.clear();
            if let Some(tail) = &mut self.tail {
                // Some of them may not be there after all.
                tail.hosts.clear();
            }
        }
        result
    }

    fn stage(&mut self, from: Position, content: &[u8]) -> io::Result<()> {
        // What cannot be read was written like that; there is nothing to keep.
        let (Some(keys), Some((own, hosts))) = (keys(content), cut(content)) else { return Ok(()) };
        if self.moved.is_some_and(|moved| from <= moved) {
            return Ok(());
        }
        if self.is_over(keys.at) {
            self.write_staged()?;
            self.end_segment()?;
        }
        if self.tail.is_none() {
            self.begin_segment()?;
        }
        let Some(tail) = self.tail.as_mut() else { return Ok(()) };
        let Some(segment) = self.segments.get_mut(&tail.number) else { return Ok(()) };
        let mut places = Vec::with_capacity(hosts.len());
        for host in hosts {
            let known = tail.hosts.get(host).copied();
            places.push(match known {
                Some(place) => place,
                None => {
                    let place = segment.len as u32 + self.scratch.len() as u32;
                    render_frame(Kind::Host, from, host, &mut self.scratch);
                    tail.hosts.insert(host.into(), place);
                    place
                }
            });
        }
        let mut record = Vec::with_capacity(own.len() + 4 * places.len());
        refer(own, &places, &mut record);
        render_frame(Kind::Attempt, from, &record, &mut self.scratch);
        tail.keys.extend([queue_id_key(keys.item.queue_id), keys.destination]);
        tail.keys.extend((keys.message_id != 0).then_some(keys.message_id));
        segment.span.add(keys.at);
        self.moved = Some(from);
        Ok(())
    }

    fn is_over(&self, at: i64) -> bool {
        let Some(segment) = self.tail.as_ref().and_then(|tail| self.segments.get(&tail.number)) else {
            return false;
        };
        let len = segment.len + self.scratch.len() as u64;
        let old = segment.span.attempts > 0 && at.saturating_sub(segment.span.first) > SEGMENT_AGE_MICROS;
        len >= self.segment_bytes || old
    }

    fn write_staged(&mut self) -> io::Result<()> {
        let Some(tail) = self.tail.as_mut().filter(|_| !self.scratch.is_empty()) else { return Ok(()) };
        let Some(segment) = self.segments.get_mut(&tail.number) else { return Ok(()) };
        if let Err(error) = tail.file.write(&mut [IoSlice::new(&self.scratch)]) {
            // What cannot be cut off is read as far as it is whole.
            if tail.file.cut(segment.len).is_err() {
                self.abandon();
            }
            return Err(error);
        }
        self.written = self.moved;
        tail.synced = false;
        segment.len += self.scratch.len() as u64;
        self.scratch.clear();
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        // A start believes the latest segment about all before it.
        self.cure()?;
        let number = self.segments.last_key_value().map_or(1, |(number, _)| number.saturating_add(1));
        let path = self.path(number);
        let header = Header { segment: number, nonce: self.nonce, after: self.moved.unwrap_or_default() };
        let disk = self.disk.as_ref();
        let make = || -> io::Result<_> {
            let mut file = disk.create(&path)?;
            file.write(&mut [IoSlice::new(&header.render())])?;
            file.sync()?;
            sync_parent(disk, &path)?;
            Ok(file)
        };
        let file = make().inspect_err(|_| {
            let _ = disk.remove(&path);
        })?;
        self.segments.insert(number, Segment { len: HEADER as u64, span: Span::default() });
        self.tail = Some(Tail { number, file, synced: true, keys: Vec::new(), hosts: HashMap::new() });
        Ok(())
    }

    /// Closes the segment being written: synced, its filter beside it.
    fn end_segment(&mut self) -> io::Result<()> {
        self.sync()?;
        if let Some(tail) = self.tail.take()
            && let Some(segment) = self.segments.get(&tail.number)
        {
            self.write_filter(tail.number, &tail.keys, segment.span);
        }
        Ok(())
    }

    /// Leaves the segment being written; without a filter it is always looked through.
    fn abandon(&mut self) {
        if let Some(tail) = self.tail.take().filter(|tail| !tail.synced) {
            self.unsure = Some(tail.number);
        }
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// What the disk says; what was appended since the last sync may not survive a power cut and must
    /// stay in the journal. To be tried again.
    pub(in crate::store) fn sync(&mut self) -> io::Result<()> {
        if let Some(tail) = self.tail.as_mut().filter(|tail| !tail.synced) {
            match tail.file.sync() {
                Ok(()) => tail.synced = true,
                Err(error) => {
                    self.abandon();
                    return Err(error);
                }
            }
        }
        self.cure()
    }

    /// Writes the segment anew whose sync failed. A second sync of the same file would prove nothing:
    /// systems take what could not be written for written.
    fn cure(&mut self) -> io::Result<()> {
        let Some(number) = self.unsure else { return Ok(()) };
        if let Some(segment) = self.segments.get(&number).copied() {
            let path = self.path(number);
            let bytes = fs::read(&path).unwrap_or_default();
            let whole = bytes.get(..segment.len as usize).unwrap_or(&bytes);
            let read = read(whole);
            if read.damaged || read.end as u64 != segment.len {
                // What the disk does not have any more it cannot be given; the rest stays.
                tracing::error!(path = %path.display(), "evidence lost: the disk did not keep what was written");
            } else {
                replace(self.disk.as_ref(), &path, whole)?;
            }
            self.write_filter(number, &read.keys, read.span);
        }
        self.unsure = None;
        Ok(())
    }

    /// Whether syncing has just begun to fail: to be told once.
    pub(in crate::store) fn note_sync(&mut self, failing: bool) -> bool {
        let changed = failing && !self.sync_failing;
        self.sync_failing = failing;
        changed
    }

    /// Drops what is older than is kept, and the oldest beyond the size allowed. The latest segment
    /// stays: it says up to where the journal is in the log.
    pub(in crate::store) fn drop_old(&mut self, now: i64) {
        if self.is_over(now)
            && let Err(error) = self.end_segment().and_then(|()| self.begin_segment())
        {
            tracing::warn!(%error, "a new segment of the evidence log cannot be begun");
        }
        let keep = i64::try_from(self.limits.keep.as_micros()).unwrap_or(i64::MAX);
        let old =
            |segment: &Segment| segment.span.attempts == 0 || segment.span.last < now.saturating_sub(keep);
        while self.segments.len() > 1
            && let Some((number, segment)) = self.segments.first_key_value().map(|(n, s)| (*n, *s))
        {
            let total: u64 = self.segments.values().map(|segment| segment.len).sum();
            if !old(&segment) && total <= self.limits.max_bytes {
                return;
            }
            if !old(&segment) {
                tracing::warn!(
                    attempts = segment.span.attempts,
                    until = %instant(segment.span.last),
                    "evidence dropped before its time: evidence.max_size is reached"
                );
            } else if segment.span.attempts > 0 {
                let (attempts, until) = (segment.span.attempts, instant(segment.span.last));
                tracing::info!(attempts, %until, "evidence dropped: its time (evidence.keep) is over");
            }
            if !self.drop_segment(number) {
                return;
            }
        }
    }

    /// Drops the oldest segment for room; whether there was one.
    pub(in crate::store) fn drop_oldest(&mut self) -> bool {
        let oldest = self.segments.first_key_value().map(|(number, segment)| (*number, *segment));
        match oldest.filter(|_| self.segments.len() > 1) {
            Some((number, segment)) => {
                let (attempts, until) = (segment.span.attempts, instant(segment.span.last));
                tracing::warn!(attempts, %until, "evidence dropped before its time: the disk is full");
                self.drop_segment(number)
            }
            None => false,
        }
    }

    fn drop_segment(&mut self, number: u32) -> bool {
        let path = self.path(number);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "old evidence cannot be removed");
                return false;
            }
            _ => {}
        }
        let _ = self.disk.remove(&self.filter_path(number));
        self.segments.remove(&number);
        true
    }

    /// Whether writing has just begun to fail: to be told once.
    pub(in crate::store) fn note(&mut self, failing: bool) -> bool {
        let changed = failing && !self.failing;
        self.failing = failing;
        changed
    }

    fn write_filter(&self, number: u32, keys: &[u64], span: Span) {
        let path = self.filter_path(number);
        let disk = self.disk.as_ref();
        let _ = disk.remove(&path);
        let write = || disk.create(&path)?.write(&mut [IoSlice::new(&Filter::of(keys, span).render())]);
        if let Err(error) = write() {
            tracing::warn!(%error, path = %path.display(), "looking up evidence will be slower");
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    fn filter_path(&self, number: u32) -> PathBuf {
        self.dir.join(filter_name(number))
    }
}

/// What reading a whole segment finds.
struct Read {
    moved: Option<Position>,
    end: usize,
    damaged: bool,
    span: Span,
    keys: Vec<u64>,
    hosts: HashMap<Box<[u8]>, u32>,
}

fn read(bytes: &[u8]) -> Read {
    let mut scan = Scan::new(bytes);
    let mut read = Read {
        moved: None,
        end: HEADER,
        damaged: false,
        span: Span::default(),
        keys: Vec::new(),
        hosts: HashMap::new(),
    };
    for found in scan.by_ref() {
        match found.kind {
            Kind::Host => {
                read.hosts.insert(found.content.into(), found.offset as u32);
            }
            Kind::Attempt => {
                read.moved = Some(found.from);
                if let Some(keys) = keys(found.content) {
                    read.keys.extend([queue_id_key(keys.item.queue_id), keys.destination]);
                    read.keys.extend((keys.message_id != 0).then_some(keys.message_id));
                    read.span.add(keys.at);
                }
            }
        }
        debug_assert!(found.end >= found.offset + FRAME_HEAD);
    }
    (read.end, read.damaged) = (scan.end, scan.damaged);
    read
}

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:010}.evidence")
}

pub(super) fn filter_name(number: u32) -> String {
    format!("{number:010}.filter")
}

fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".evidence")?.parse::<u32>().ok());
        numbers.extend(number.filter(|number| name == *segment_name(*number)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn instant(micros: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn trouble(what: &str, path: &Path, error: &io::Error) -> QueueError {
    crate::store::body::troubled(what, path, error)
}
