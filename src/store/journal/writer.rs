//! The journal's writing loop; see the parent for what it promises.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::body::troubled;
use super::super::compaction::{Move, Moved};
use super::super::disk::{DiskFile, is_full, is_read_only, sync_parent};
use super::super::format;
use super::super::frame::{FRAME_HEAD, HEADER, Header, Kind, Op, frame_head, frame_len};
use super::super::notions::{Health, QueueError};
use super::super::record::Change;
use super::super::segments::{Location, Position};
use super::super::shared::Shared;
use super::{Draft, Submission, Work};

/// On a full disk a segment ends at one part in so many of its size.
const FULL_PART: u64 = 8;
/// Frames in one group at most: more would make the first wait for the last.
const GROUP_FRAMES: usize = 256;
/// Octets in one group at most, for the same reason.
const GROUP_BYTES: usize = 8 << 20;
/// Operations smaller than this are copied into the group's buffer rather than listed by place.
const COPY_BYTES: usize = 2048;
/// Queue ids reserved at a time. Used up twice a minute at full load, so that a reservation is
/// always durable before it is needed.
const IDS_RESERVED: u64 = 1 << 20;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) segment: u32,
    pub(super) len: u64,
    pub(super) file: Option<Box<dyn DiskFile>>,
    pub(super) scratch: Vec<u8>,
    /// Durable promise: ids below are never given out by a later start.
    pub(super) ids_below: u64,
}

impl Writer {
    pub(super) async fn run(mut self, mut receiver: UnboundedReceiver<Work>) {
        let mut next = None;
        loop {
            let taken = match next.take() {
                None => receiver.recv().await,
                work => work,
            };
            let Some(work) = taken else { return };
            match work {
                Work::Move(moves, reply) => {
                    // Alone in its group, so that nothing can change between check and write.
                    let _ = reply.send(self.relocate(moves));
                }
                Work::Resume(reply) => {
                    let _ = reply.send(self.resume());
                }
                Work::Commit(first) => {
                    let mut bytes = frame_len(&first.ops);
                    let mut group = vec![first];
                    while group.len() < GROUP_FRAMES && bytes < GROUP_BYTES {
                        match receiver.try_recv() {
                            Ok(Work::Commit(more)) => {
                                bytes += frame_len(&more.ops);
                                group.push(more);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(group);
                }
            }
        }
    }

    pub(super) fn commit(&mut self, mut group: Vec<Submission>) {
        self.reserve_ids(&mut group);
        let health = self.shared.table().health.clone();
        match health {
            Health::Failed(text) => return self.refuse(group, &QueueError::Storage(text)),
            Health::ReadOnly(text) => return self.refuse(group, &QueueError::ReadOnly(text)),
            Health::Full(text) => group = self.only_vital(group, &text),
            Health::Fine | Health::Low(_) => {}
        }
        if group.is_empty() {
            return;
        }
        match self.write_group(&group) {
            Err(Trouble::Full(text)) => self.commit_full(group, &text),
            Err(trouble) => self.give_up(group, trouble),
            Ok(places) => self.acknowledge(group, places),
        }
    }

    /// Goes on without messages, in the room that was kept for it.
    fn commit_full(&mut self, group: Vec<Submission>, text: &str) {
        tracing::error!(
            error = text,
            "queue disk full: refusing messages, and keeping no evidence of deliveries, until there is space"
        );
        self.shared.table().health = Health::Full(text.to_owned());
        let group = self.only_vital(group, text);
        let _ = self.shared.disk.remove(&self.shared.reserve_path());
        if group.is_empty() {
            return;
        }
        match self.write_group(&group) {
            Ok(places) => self.acknowledge(group, places),
            Err(trouble) => {
                self.shared.table().starved = matches!(trouble, Trouble::Full(_));
                self.give_up(group, trouble);
            }
        }
    }

    fn only_vital(&self, group: Vec<Submission>, text: &str) -> Vec<Submission> {
        let (vital, other): (Vec<_>, Vec<_>) = group.into_iter().partition(|frame| frame.vital);
        self.refuse(other, &QueueError::Full(text.to_owned()));
        vital
    }

    fn give_up(&mut self, group: Vec<Submission>, trouble: Trouble) {
        let error = self.consequence(trouble);
        self.refuse(group, &error);
    }

    fn consequence(&mut self, trouble: Trouble) -> QueueError {
        match trouble {
            Trouble::Full(text) => QueueError::Full(text),
            Trouble::Passing(text) => QueueError::Storage(text),
            Trouble::ReadOnly(text) => self.read_only(text),
            Trouble::Fatal(text) => QueueError::Storage(self.fail(&text)),
        }
    }

    /// Applies a group that is durable, then tells its clients.
    fn acknowledge(&mut self, group: Vec<Submission>, places: Vec<Vec<Location>>) {
        let mut replies = Vec::with_capacity(group.len());
        {
            let mut table = self.shared.table();
            let due = table.next_due();
            table.segments.set_len(self.segment, self.len);
            for (frame, places) in group.into_iter().zip(places) {
                let evidence = frame.ops.iter().zip(&places).filter(|(op, _)| op.kind == Kind::Evidence);
                for (op, place) in evidence {
                    let at = Position { segment: place.segment, offset: place.offset };
                    table.evidence.push(at, op.bytes.clone());
                }
                for planned in frame.changes {
                    if let Change::Reserve(below) = planned.change {
                        self.ids_below = self.ids_below.max(below);
                    }
                    let place = places[planned.op];
                    let place = match planned.body {
                        Some(_) => Location { length: place.length + places[planned.op + 1].length, ..place },
                        None => place,
                    };
                    table.apply(planned.change, place, planned.body);
                }
                replies.push(frame.reply);
            }
            table.position = Position { segment: self.segment, offset: self.len as u32 };
            table.starved = false;
            let earlier = match (table.next_due(), due) {
                (Some(now), Some(before)) => now < before,
                (now, None) => now.is_some(),
                (None, _) => false,
            };
            if earlier {
                self.shared.wake.notify_one();
            }
        }
        for reply in replies {
            // Who no longer waits has its message queued all the same.
            let _ = reply.send(Ok(()));
        }
    }

    fn refuse(&self, group: Vec<Submission>, error: &QueueError) {
        for frame in group {
            {
                let mut table = self.shared.table();
                for item in frame.changes.iter().filter_map(|planned| planned.change.leased_item()) {
                    table.abort_settle(item);
                }
            }
            let _ = frame.reply.send(Err(error.clone()));
        }
    }

    /// Puts a reservation of ids in front of a group that comes near the end of the last one.
    fn reserve_ids(&self, group: &mut Vec<Submission>) {
        let in_use = self.shared.next_id();
        if in_use.saturating_add(IDS_RESERVED / 2) < self.ids_below {
            return;
        }
        let mut draft = Draft::vital();
        draft.push(Change::Reserve(in_use.saturating_add(IDS_RESERVED)), None);
        // The first frame after opening is empty for this.
        if let Some(empty) = group.iter_mut().find(|frame| frame.ops.is_empty()) {
            (empty.ops, empty.changes) = (draft.ops, draft.changes);
            return;
        }
        let (reply, _) = oneshot::channel();
        group.insert(0, draft.submit(reply));
    }

    fn read_only(&mut self, text: String) -> QueueError {
        let text = format!(
            "{text}; nothing is accepted or delivered until it is mounted writable again; the kernel's log says why it is not"
        );
        tracing::error!(error = text, "queue disk read-only");
        self.shared.table().health = Health::ReadOnly(text.clone());
        self.file = None;
        QueueError::ReadOnly(text)
    }

    /// Goes on after the disk was read-only: what was not acknowledged is cut off first.
    fn resume(&mut self) -> Result<(), QueueError> {
        if !matches!(self.shared.table().health, Health::ReadOnly(_)) {
            return Ok(());
        }
        if self.segment > 0 {
            let path = self.shared.segment_path(self.segment);
            let file = self.shared.disk.append(&path, self.len);
            let mut file = file.map_err(|error| troubled("cannot open", &path, &error))?;
            if let Err(error) = file.sync() {
                let text = self.fail(&format!("cannot sync {}: {error}", path.display()));
                return Err(QueueError::Storage(text));
            }
            self.file = Some(file);
        }
        self.shared.table().health = Health::Fine;
        self.shared.wake.notify_one();
        Ok(())
    }

    fn fail(&mut self, error: &str) -> String {
        let text = format!(
            "{error}; nothing is accepted or delivered until the disk is sound and the daemon is restarted"
        );
        tracing::error!(error = text, "queue journal failed");
        self.shared.table().health = Health::Failed(text.clone());
        self.file = None;
        self.shared.wake.notify_one();
        text
    }

    fn write_group(&mut self, group: &[Submission]) -> Result<Vec<Vec<Location>>, Trouble> {
        let frames: Vec<&[Op]> = group.iter().map(|frame| frame.ops.as_slice()).collect();
        let begun = Instant::now();
        let written = self.write(&frames)?;
        self.shared.metrics.flushed(begun.elapsed(), group.len() as u64);
        Ok(written)
    }

    /// Writes and syncs frames; where each one's operations are. After trouble other than fatal the
    /// journal is as it was before.
    fn write(&mut self, frames: &[&[Op]]) -> Result<Vec<Vec<Location>>, Trouble> {
        let whole = self.shared.limits.segment_bytes;
        if self.file.is_none() || self.len >= whole {
            self.begin_segment()?;
        } else if self.len >= whole / FULL_PART && matches!(self.shared.table().health, Health::Full(_)) {
            // Only a segment that is not written any more can be removed when all of it is delivered;
            // where there is no room for another, this one does.
            if let Err(Trouble::Fatal(text)) = self.begin_segment() {
                return Err(Trouble::Fatal(text));
            }
        }
        self.write_frames(frames)
    }

    fn write_frames(&mut self, frames: &[&[Op]]) -> Result<Vec<Vec<Location>>, Trouble> {
        let (mut places, mut offset) = (Vec::with_capacity(frames.len()), self.len);
        // Small things go into one buffer, large contents stay where they are.
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        self.scratch.clear();
        let mut begun = 0;
        for ops in frames {
            let head = frame_head(&self.shared.nonce, self.segment, offset as u32, ops);
            self.scratch.extend_from_slice(&head);
            let mut at = offset + FRAME_HEAD as u64;
            let mut frame = Vec::with_capacity(ops.len());
            for op in *ops {
                let length = op.len() as u32;
                frame.push(Location { segment: self.segment, offset: at as u32, length });
                at += u64::from(length);
                self.scratch.extend_from_slice(&op.head());
                if op.bytes.len() < COPY_BYTES {
                    self.scratch.extend_from_slice(&op.bytes);
                } else {
                    pieces.push(Piece::Scratch(begun, self.scratch.len()));
                    pieces.push(Piece::Content(&op.bytes));
                    begun = self.scratch.len();
                }
            }
            places.push(frame);
            offset = at;
        }
        pieces.push(Piece::Scratch(begun, self.scratch.len()));
        let mut slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Scratch(from, to) => IoSlice::new(&self.scratch[*from..*to]),
                Piece::Content(bytes) => IoSlice::new(bytes),
            })
            .collect();
        let path = self.shared.segment_path(self.segment);
        let tell = |error: io::Error| format!("cannot write {}: {error}", path.display());
        let Some(file) = self.file.as_mut() else {
            return Err(Trouble::Passing(tell(io::ErrorKind::NotFound.into())));
        };
        if let Err(error) = file.write(&mut slices) {
            let cut = file.cut(self.len);
            if is_read_only(&error) && cut.as_ref().map_or_else(is_read_only, |()| true) {
                // Everything up to here was synced before; what is behind it is cut off by `resume`.
                return Err(Trouble::ReadOnly(tell(error)));
            }
            cut.map_err(|error| Trouble::Fatal(tell(error)))?;
            return Err(if is_full(&error) {
                Trouble::Full(tell(error))
            } else {
                Trouble::Fatal(tell(error))
            });
        }
        file.sync().map_err(|error| Trouble::Fatal(tell(error)))?;
        self.len = offset;
        Ok(places)
    }

    /// Goes on in a new segment. Trouble here is never fatal: the old one is as it was.
    fn begin_segment(&mut self) -> Result<(), Trouble> {
        let segment = self.segment.saturating_add(1);
        let path = self.shared.segment_path(segment);
        let (file, ids_below) = self.create_segment(segment, &path).map_err(|error| {
            let _ = self.shared.disk.remove(&path);
            let text = format!("cannot begin {}: {error}", path.display());
            match () {
                () if is_full(&error) => Trouble::Full(text),
                () if is_read_only(&error) => Trouble::ReadOnly(text),
                () => Trouble::Passing(text),
            }
        })?;
        (self.file, self.segment, self.len) = (Some(file), segment, HEADER as u64);
        self.ids_below = self.ids_below.max(ids_below);
        let mut table = self.shared.table();
        table.segments.set_len(segment, self.len);
        table.position = Position { segment, offset: HEADER as u32 };
        Ok(())
    }

    fn create_segment(&self, segment: u32, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let disk = self.shared.disk.as_ref();
        match disk.remove(path) {
            // Begun when the disk became read-only, and never used.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let ids_below = self.ids_below.max(self.shared.next_id().saturating_add(IDS_RESERVED));
        let mut file = disk.create(path)?;
        let nonce = self.shared.nonce;
        let header = Header { version: format::JOURNAL, segment, nonce, ids_below }.render();
        file.write(&mut [IoSlice::new(&header)])?;
        file.sync()?;
        sync_parent(disk, path)?;
        Ok((file, ids_below))
    }

    fn relocate(&mut self, moves: Vec<Move>) -> Result<Moved, QueueError> {
        self.shared.refusal()?;
        if let Health::ReadOnly(text) = self.shared.table().health.clone() {
            return Err(QueueError::ReadOnly(text));
        }
        let plans = {
            let table = self.shared.table();
            moves.into_iter().filter_map(|one| one.plan(&table)).collect::<Vec<_>>()
        };
        if plans.is_empty() {
            return Ok(Moved::default());
        }
        let frames: Vec<&[Op]> = plans.iter().map(|plan| plan.ops.as_slice()).collect();
        let places = self.write(&frames).map_err(|trouble| self.consequence(trouble))?;
        let mut table = self.shared.table();
        table.segments.set_len(self.segment, self.len);
        for (plan, places) in plans.iter().zip(&places) {
            plan.apply(&mut table, places);
        }
        table.position = Position { segment: self.segment, offset: self.len as u32 };
        Ok(Moved { messages: plans.len() })
    }
}

enum Piece<'a> {
    Scratch(usize, usize),
    Content(&'a Bytes),
}

/// What a write that did not succeed means.
enum Trouble {
    /// No room; the journal is as it was.
    Full(String),
    /// Not now; the journal is as it was.
    Passing(String),
    /// The disk may not be written to. The journal is as it was up to its length.
    ReadOnly(String),
    /// What is on disk is unknown from here on.
    Fatal(String),
}
