//! Starting: the lock, the marker, the journal and its index, and what has to be repaired.
//!
//! The journal alone decides. The index is used when nothing speaks against it: the last process
//! closed the queue, or only the process ended and not the machine. Otherwise it is removed and the
//! whole journal is read. What was repaired is told, one sentence each.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::body::troubled;
use super::disk::{Disk, is_full, remedy, replace, sync_parent};
use super::evidence::Log;
use super::format;
use super::frame::{HEADER, Header, HeaderError, Nonce};
use super::ground::Ground;
use super::index::{self, Index};
use super::journal::Tail;
use super::keeper::make_reserve;
use super::notions::{Health, QueueError};
use super::replay::{self, Replayed, SegmentFile};
use super::segments::Position;
use super::shared::{Shared, segment_name};
use super::table::{IN_FILE, Table, micros};
use crate::queue::QueueId;

/// Where the kernel tells boots apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A segment of the evidence log is this part of one of the journal's: 16 MB are read in some
/// hundredths of a second.
const EVIDENCE_PART: u64 = 4;
/// Names listed in one sentence at most.
const NAMED_MAX: usize = 10;

/// What `state` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// The boot during which it was written.
    boot: String,
    /// The queue was closed in order.
    pub(super) clean: bool,
    nonce: String,
}

impl Marker {
    /// The nonce of the store's journal.
    pub(super) fn nonce(&self) -> Option<Nonce> {
        unhex(&self.nonce)
    }
}

/// A queue ready to run.
pub(super) struct Opened {
    pub shared: Arc<Shared>,
    pub tail: Tail,
    pub index: Option<Index>,
    pub lock: File,
    pub repaired: Vec<String>,
}

/// This boot's name; without one every unclean stop counts as one of the machine.
pub(super) fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Opens what is in `dir`, or makes it. Blocking.
pub(super) fn open(dir: &Path, ground: &Ground, now: Timestamp) -> Result<Opened, QueueError> {
    let (disk, boot) = (Arc::clone(&ground.disk), ground.boot.as_str());
    format::survey_queue(dir)?;
    let mut repaired = Vec::new();
    make_dirs(dir, disk.as_ref())?;
    let lock = lock(dir)?;
    let marker = read_marker(dir, &mut repaired)?;
    let files = list_segments(&dir.join("journal"))?;
    let (nonce, files) = settle_nonce(dir, ground, marker.as_ref(), files, &mut repaired)?;

    let end = files.last().map_or(Position::default(), |last| Position {
        segment: last.number,
        offset: u32::try_from(last.len).unwrap_or(u32::MAX),
    });
    let (folder, piece) = (Shared::evidence_dir(dir), ground.limits.segment_bytes / EVIDENCE_PART);
    let mut log = Log::open(Arc::clone(&disk), folder, nonce, piece, end, &mut repaired)?;
    let (mut table, replayed, index) = recover(dir, ground, &files, nonce, &marker, &mut log, &mut repaired)?;
    let tail = open_tail(dir, disk.as_ref(), &files, &replayed, &mut table)?;
    table.rewind(micros(now));
    let shared = Shared::new(disk, dir.to_owned(), nonce, ground.limits, table, log, ground.metrics.clone());
    sweep(&shared, replayed.damaged, &mut repaired)?;
    write_marker(&shared, boot, false)?;
    if let Err(error) = make_reserve(&shared) {
        let error = troubled("cannot write", &shared.reserve_path(), &error);
        if let QueueError::Full(text) = &error {
            shared.table().health = Health::Full(text.clone());
        }
        repaired.push(format!("no space could be set aside for a full disk: {error}"));
    }
    Ok(Opened { shared: Arc::new(shared), tail, index, lock, repaired })
}

/// Writes the marker; `clean` only when journal and index are complete and durable.
pub(super) fn write_marker(shared: &Shared, boot: &str, clean: bool) -> Result<(), QueueError> {
    let path = shared.dir.join("state");
    let nonce = hex(&shared.nonce);
    let marker = Marker { format: format::MARKER, boot: boot.to_owned(), clean, nonce };
    let text = serde_json::to_vec(&marker).expect("a struct of plain values");
    let disk = shared.disk.as_ref();
    match replace(disk, &path, &text) {
        // On a full disk no marker does as well: the next start reads the whole journal.
        Err(error) if is_full(&error) => {
            let _ = disk.remove(&path.with_extension("new"));
            match disk.remove(&path).and_then(|()| sync_parent(disk, &path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(troubled("cannot remove", &path, &error))
                }
                _ => Ok(()),
            }
        }
        written => written.map_err(|error| troubled("cannot write", &path, &error)),
    }
}

fn make_dirs(dir: &Path, disk: &dyn Disk) -> Result<(), QueueError> {
    let make = |path: &Path| -> Result<(), QueueError> {
        disk.create_dir(path)
            .and_then(|()| sync_parent(disk, path))
            .map_err(|error| storage("cannot create", path, &error))
    };
    make(dir)?;
    ["journal", "bodies", "spool"].iter().try_for_each(|name| make(&dir.join(name)))
}

fn lock(dir: &Path) -> Result<File, QueueError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| storage("cannot open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(QueueError::Storage(format!("the queue in {} is in use by another process", dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(storage("cannot lock", &path, &error)),
    }
}

pub(super) fn read_marker(dir: &Path, repaired: &mut Vec<String>) -> Result<Option<Marker>, QueueError> {
    let path = dir.join("state");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| storage("cannot read", &path, &error))?,
    };
    match serde_json::from_slice::<Marker>(&bytes) {
        Ok(marker) => Ok(Some(marker)),
        Err(_) => {
            repaired.push(format!("{} was damaged and is written anew", path.display()));
            Ok(None)
        }
    }
}

pub(super) fn list_segments(dir: &Path) -> Result<Vec<SegmentFile>, QueueError> {
    let trouble = |error: io::Error| storage("cannot read", dir, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(trouble)? {
        let entry = entry.map_err(trouble)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse::<u32>().ok());
        let Some(number) = number.filter(|number| name == *segment_name(*number)) else { continue };
        let len = entry.metadata().map_err(trouble)?.len();
        let mut head = Vec::new();
        let path = entry.path();
        let read = File::open(&path)
            .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, HEADER as u64), &mut head));
        match read {
            // Replaying tells of it and reads what can be read.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => head.clear(),
            read => drop(read.map_err(|error| storage("cannot read", &path, &error))?),
        }
        let header = match Header::parse(&head) {
            Err(HeaderError::Newer(found)) => {
                return Err(QueueError::Newer { path, found, known: format::JOURNAL });
            }
            Err(HeaderError::Damaged) => None,
            Ok(header) => Some(header),
        };
        files.push(SegmentFile { number, path, len, header });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Finds the store's nonce, or makes one for a new store; drops a segment begun and never used.
fn settle_nonce(
    dir: &Path,
    ground: &Ground,
    marker: Option<&Marker>,
    mut files: Vec<SegmentFile>,
    repaired: &mut Vec<String>,
) -> Result<(Nonce, Vec<SegmentFile>), QueueError> {
    if let Some(last) = files.pop_if(|last| last.header.is_none() && last.len <= HEADER as u64) {
        let disk = ground.disk.as_ref();
        disk.remove(&last.path)
            .and_then(|()| sync_parent(disk, &last.path))
            .map_err(|error| storage("cannot remove", &last.path, &error))?;
        repaired.push(format!("{} was begun and never used; removed", last.path.display()));
    }
    let known = files.iter().find_map(|file| file.header).map(|header| header.nonce);
    let nonce = match known.or_else(|| marker?.nonce()) {
        Some(nonce) => nonce,
        None if files.is_empty() => ground.nonce,
        None => {
            return Err(QueueError::Storage(format!(
                "no segment in {} has a readable header and {} is missing: restore one of them from a backup",
                dir.join("journal").display(),
                dir.join("state").display()
            )));
        }
    };
    Ok((nonce, files))
}

fn recover(
    dir: &Path,
    ground: &Ground,
    files: &[SegmentFile],
    nonce: Nonce,
    marker: &Option<Marker>,
    log: &mut Log,
    repaired: &mut Vec<String>,
) -> Result<(Table, Replayed, Option<Index>), QueueError> {
    if let Some(last) = files.last() {
        // A process that ended may have left octets the disk does not have yet.
        ground.disk.sync_file(&last.path).map_err(|error| storage("cannot sync", &last.path, &error))?;
    }
    let index_dir = dir.join("index");
    let clean = marker.as_ref().is_some_and(|marker| marker.clean);
    let same_boot =
        marker.as_ref().is_some_and(|marker| !ground.boot.is_empty() && marker.boot == ground.boot);
    let doubt = match marker {
        _ if clean || same_boot => None,
        Some(_) => Some("the machine stopped without closing the queue".to_owned()),
        None => Some("it is not known how the queue was closed".to_owned()),
    };
    let doubt = doubt.or_else(|| (!index_dir.exists()).then(|| "it was missing".to_owned()));
    let opening = Opening::new(dir, ground.disk.as_ref());
    let doubt =
        doubt.or_else(|| opening.is_there().then(|| "the last start ended while it opened it".to_owned()));
    let mut strays = BTreeSet::new();
    let reason = match doubt {
        Some(reason) => reason,
        None => match opening.during(|| from_index(&index_dir, files, nonce, log, &mut strays)) {
            Ok((table, replayed, index)) => {
                if !clean {
                    repaired.push(format!(
                        "the last process did not close the queue; {} journal records read again",
                        replayed.records
                    ));
                }
                repaired.extend(replayed.notes.iter().cloned());
                return Ok((table, replayed, Some(index)));
            }
            Err(reason) => reason,
        },
    };
    let mut table = Table::new();
    table.evidence.moved = log.moved();
    let replayed = replay::replay(files, nonce, None, &mut table, &mut |table| refill(log, table))?;
    repaired.extend(replayed.notes.iter().cloned());
    strays.retain(|id| table.parts(*id).next().is_none());
    if !strays.is_empty() {
        repaired.push(format!(
            "{} messages that the index knew are in no record that can be read: lost with the damaged or missing part \
             of the journal unless a backup has it, or ended in the last moments before the stop: {}",
            strays.len(),
            names(strays.iter())
        ));
    }
    index::remove(&index_dir).map_err(|error| storage("cannot remove", &index_dir, &error))?;
    opening.end();
    if !files.is_empty() || marker.is_some() {
        let items = table.len();
        repaired.push(format!("the queue index was rebuilt from the journal ({reason}): {items} items"));
    }
    if !ground.index {
        return Ok((table, replayed, None));
    }
    let index = Index::open(&index_dir).inspect_err(|error| {
        repaired.push(format!("there is no queue index until the next start: {error}"));
    });
    Ok((table, replayed, index.ok()))
}

/// A file that is there while the index is opened. Damaged files may not only make sled panic, which is
/// caught, but end the process; then the next start does not try them again.
struct Opening<'a> {
    path: PathBuf,
    disk: &'a dyn Disk,
}

impl<'a> Opening<'a> {
    fn new(dir: &Path, disk: &'a dyn Disk) -> Self {
        Self { path: dir.join("opening-index"), disk }
    }

    fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Not synced: after a power cut the index is not trusted anyway. Without it the index is opened
    /// all the same, e.g. on a full disk.
    fn during<T>(&self, open: impl FnOnce() -> T) -> T {
        let _ = self.disk.create(&self.path);
        let opened = open();
        self.end();
        opened
    }

    fn end(&self) {
        if self.is_there() {
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// Writes what the evidence log lacks; what cannot be written is tried again by the keeper.
fn refill(log: &mut Log, table: &mut Table) {
    let attempts = table.evidence.list();
    if log.append(&attempts).and_then(|()| log.sync()).is_ok() {
        table.evidence.done(attempts.len());
    }
}

fn from_index(
    dir: &Path,
    files: &[SegmentFile],
    nonce: Nonce,
    log: &mut Log,
    strays: &mut BTreeSet<QueueId>,
) -> Result<(Table, Replayed, Index), String> {
    let mut table = Table::new();
    table.evidence.moved = log.moved();
    for file in files {
        table.segments.set_len(file.number, file.len);
    }
    let index = Index::open(dir)?;
    let checkpoint = index.load(&nonce, &mut table, strays)?;
    table.ids_below = table.ids_below.max(checkpoint.ids_below);
    let position = checkpoint.position;
    let there = files.iter().find(|file| file.number == position.segment);
    if there.is_none_or(|file| file.len < u64::from(position.offset)) {
        return Err("it names a place that the journal does not have".to_owned());
    }
    let replayed = replay::replay(files, nonce, Some(position), &mut table, &mut |table| refill(log, table))
        .map_err(|error| error.to_string())?;
    Ok((table, replayed, index))
}

/// Where the journal goes on: behind the last whole record, or in a new segment after damage.
fn open_tail(
    dir: &Path,
    disk: &dyn Disk,
    files: &[SegmentFile],
    replayed: &Replayed,
    table: &mut Table,
) -> Result<Tail, QueueError> {
    let Some(last) = files.last() else { return Ok(Tail { segment: 0, len: 0, file: None }) };
    let path = dir.join("journal").join(segment_name(last.number));
    if replayed.last_unreadable {
        table.segments.set_len(last.number, last.len);
        return Ok(Tail { segment: last.number, len: last.len, file: None });
    }
    let end = replayed.end;
    let open = || -> io::Result<_> {
        let mut file = disk.append(&path, end)?;
        if end < last.len {
            file.sync()?;
        }
        Ok(file)
    };
    let file = open().map_err(|error| storage("cannot open", &path, &error))?;
    table.segments.set_len(last.number, end);
    // A segment holds records of one format: an older one is left as it is.
    let current = last.header.is_some_and(|header| header.version == format::JOURNAL);
    let whole = current && !replayed.last_damaged;
    Ok(Tail { segment: last.number, len: end, file: whole.then_some(file) })
}

/// Removes contents nobody waits for and tells of those that are missing.
fn sweep(shared: &Shared, damaged: bool, repaired: &mut Vec<String>) -> Result<(), QueueError> {
    let each = |dir: &Path| -> Result<Vec<(String, u64)>, QueueError> {
        let trouble = |error: io::Error| storage("cannot read", dir, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let len = entry.metadata().map_err(trouble)?.len();
            found.extend(entry.file_name().into_string().ok().map(|name| (name, len)));
        }
        Ok(found)
    };
    let spool = shared.spool_dir();
    for (name, _) in each(&spool)? {
        let _ = shared.disk.remove(&spool.join(name));
    }
    let mut table = shared.table();
    let mut wanted = table.messages_with(IN_FILE);
    let (mut bytes, mut kept) = (0, Vec::new());
    for (name, len) in each(&shared.dir.join("bodies"))? {
        if name.parse().is_ok_and(|id| wanted.remove(&id)) {
            bytes += len;
        } else if damaged {
            // It may be all that is left of a message whose record is damaged.
            kept.push(name);
            bytes += len;
        } else {
            let _ = shared.disk.remove(&shared.dir.join("bodies").join(name));
        }
    }
    table.file_bytes = bytes;
    if !kept.is_empty() {
        repaired.push(format!(
            "{} contents in {} belong to no readable record and are kept: {}",
            kept.len(),
            shared.dir.join("bodies").display(),
            names(kept.iter())
        ));
    }
    if !wanted.is_empty() {
        repaired.push(format!(
            "the contents of {} queued messages are missing: {}",
            wanted.len(),
            names(wanted.iter())
        ));
    }
    Ok(())
}

/// The first few of them.
pub(super) fn names<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    let more = all.len().saturating_sub(NAMED_MAX);
    let mut text = all.take(NAMED_MAX).map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn storage(what: &str, path: &Path, error: &io::Error) -> QueueError {
    QueueError::Storage(format!("{what} {}: {error}{}", path.display(), remedy(error)))
}

fn hex(nonce: &Nonce) -> String {
    nonce.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Nonce> {
    let mut nonce = Nonce::default();
    (text.len() == 32).then_some(())?;
    for (at, byte) in nonce.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(nonce)
}
