//! Looks at a store that nobody has open: every record, content and log, and the index beside them.
//!
//! Changes nothing and repairs nothing: the next start of the daemon does, and what it would do is
//! told here beforehand. The index is looked at in a copy, since sled writes when it opens. Called by
//! `cli` (`queue check`). Blocking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::body::troubled;
use super::format;
use super::frame::{Found, HEADER, Nonce, Scan};
use super::index::Index;
use super::lines;
use super::notions::{Filter, QueueError};
use super::open;
use super::record::Change;
use super::replay::{self, SegmentFile, about, read_segment};
use super::table::{HELD, IN_FILE, Slot, Table};
use crate::queue::{ItemId, QueueId};

/// What was looked at and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Journal segments.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Messages in the queue.
    pub messages: u64,
    /// Their items.
    pub items: u64,
    /// Octets of journal and content files.
    pub bytes: u64,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong.
    pub text: String,
    /// What that means for messages, and what to do.
    pub meaning: String,
    /// The messages concerned, as far as known.
    pub messages: BTreeSet<QueueId>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Messages are lost, unreadable, or may go out twice.
    Error,
    /// The next start repairs it, and no message is concerned.
    Warning,
    /// Worth knowing.
    Note,
}

/// Checks the store below `data_dir`.
///
/// # Errors
/// [`QueueError::Storage`] when there is none, it is in use, or may not be read;
/// [`QueueError::Newer`].
pub fn check(data_dir: &Path) -> Result<Checked, QueueError> {
    let dir = data_dir.join("queue");
    let _lock = lock(&dir)?;
    format::survey(data_dir)?;
    let mut check = Check { dir, done: Checked::default() };
    check.queue()?;
    check.logs(data_dir)?;
    check.done.findings.sort_by_key(|finding| finding.severity);
    Ok(check.done)
}

/// Keeps a daemon from starting meanwhile.
fn lock(dir: &Path) -> Result<Option<File>, QueueError> {
    if !dir.is_dir() {
        return Err(QueueError::Storage(format!("there is no queue in {}", dir.display())));
    }
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| troubled("cannot open", &path, &error))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(QueueError::Storage(format!(
            "the queue in {} is in use: stop the daemon first, it changes what would be checked",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(troubled("cannot lock", &path, &error)),
    }
}

struct Check {
    dir: PathBuf,
    done: Checked,
}

impl Check {
    fn find(
        &mut self,
        severity: Severity,
        path: &Path,
        text: impl Into<String>,
        meaning: &str,
    ) -> &mut Finding {
        let (path, text, meaning) = (path.to_owned(), text.into(), meaning.to_owned());
        self.done.findings.push(Finding { severity, path, text, meaning, messages: BTreeSet::new() });
        self.done.findings.last_mut().expect("just pushed")
    }

    fn queue(&mut self) -> Result<(), QueueError> {
        let marker = open::read_marker(&self.dir, &mut Vec::new())?;
        let state = self.dir.join("state");
        if marker.is_none() {
            self.find(
                Severity::Warning,
                &state,
                "is missing or damaged",
                "no message is concerned: the next start reads the whole journal and writes it anew",
            );
        }
        let files = open::list_segments(&self.dir.join("journal"))?;
        let nonce = files.iter().find_map(|file| file.header).map(|header| header.nonce);
        let Some(nonce) = nonce.or_else(|| marker.as_ref().and_then(open::Marker::nonce)) else {
            if !files.is_empty() {
                let journal = self.dir.join("journal");
                self.find(
                    Severity::Error,
                    &journal,
                    "no segment has a readable header, and state is missing",
                    "no record can be told from noise: restore state or one segment from a backup",
                );
            }
            return Ok(());
        };
        let mut large = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            self.segment(file, nonce, index + 1 == files.len(), &mut large)?;
        }
        for pair in files.windows(2).filter(|pair| pair[1].number - pair[0].number > 1) {
            let count = pair[1].number - pair[0].number - 1;
            self.find(
                Severity::Error,
                &pair[0].path,
                format!("{count} segments behind it are missing"),
                "the messages in them are lost unless a backup has them; messages that ended according to them may be \
                 delivered again",
            );
        }
        let mut table = Table::new();
        replay::replay(&files, nonce, None, &mut table, &mut without_evidence)?;
        let items = all(&table);
        let messages: BTreeSet<QueueId> = items.iter().map(|(id, _)| id.queue_id).collect();
        (self.done.items, self.done.messages) = (items.len() as u64, messages.len() as u64);
        self.done.bytes = files.iter().map(|file| file.len).sum();
        self.contents(&table, &large)?;
        self.index(&files, nonce, &items, marker.is_some_and(|marker| marker.clean))
    }

    fn segment(
        &mut self,
        file: &SegmentFile,
        nonce: Nonce,
        last: bool,
        large: &mut BTreeMap<QueueId, u64>,
    ) -> Result<(), QueueError> {
        self.done.segments += 1;
        if file.len < HEADER as u64 && last {
            self.find(
                Severity::Warning,
                &file.path,
                format!("has only {} octets", file.len),
                "if it was just begun, no message is concerned and the next start removes it; if somebody cut it, its \
                 messages are lost",
            );
            return Ok(());
        }
        if file.len < HEADER as u64 {
            self.find(
                Severity::Error,
                &file.path,
                format!("has only {} octets left", file.len),
                "its messages are lost unless a backup has the file",
            );
        } else if file.header.is_none() {
            self.find(
                Severity::Warning,
                &file.path,
                "its header is damaged",
                "its records can be read all the same; look after the disk",
            );
        }
        let (bytes, trouble) = read_segment(file)?;
        let readable = trouble.is_none();
        if let Some(trouble) = trouble {
            self.find(
                Severity::Error,
                &file.path,
                trouble,
                "what is in them cannot be delivered until it can be read: look after the disk, or restore the file",
            );
        }
        for found in (Scan { bytes: &bytes, segment: file.number, nonce, at: HEADER }) {
            match found {
                Found::Frame { ops, .. } => {
                    for op in &ops {
                        match Change::parse(op.kind, op.bytes) {
                            Ok(Some(change)) => {
                                self.done.records += 1;
                                if let Change::Enqueue(message) = change
                                    && message.in_file
                                {
                                    large.insert(message.id, message.size);
                                }
                            }
                            Ok(None) => {}
                            Err(error) => {
                                let text = format!(
                                    "the record at octet {} cannot be understood: {error}",
                                    op.offset
                                );
                                let meaning = "it is skipped; its message is lost, or as it was before";
                                self.find(Severity::Error, &file.path, text, meaning);
                            }
                        }
                    }
                }
                Found::Gap { from, to, .. } if last && readable && to == bytes.len() => {
                    self.find(
                        Severity::Warning,
                        &file.path,
                        format!("ends with {} octets of an unfinished write", to - from),
                        "its message was never acknowledged; the next start cuts it off",
                    );
                }
                Found::Gap { from, to, ops } => {
                    let messages = about(&ops);
                    let finding = self.find(
                        Severity::Error,
                        &file.path,
                        format!("octets {from} to {to} are damaged"),
                        "messages in them are lost unless a backup has the file; messages that ended according to them \
                         may be delivered again",
                    );
                    finding.messages = messages;
                }
            }
        }
        Ok(())
    }

    /// Content files: there, of the right length, and somebody's.
    fn contents(&mut self, table: &Table, large: &BTreeMap<QueueId, u64>) -> Result<(), QueueError> {
        let bodies = self.dir.join("bodies");
        let mut wanted = table.messages_with(IN_FILE);
        let mut orphans = 0;
        for (name, len) in files_of(&bodies)? {
            self.done.bytes += len;
            let Some(id) = name.parse::<QueueId>().ok().filter(|id| wanted.remove(id)) else {
                orphans += 1;
                continue;
            };
            let size = large.get(&id).copied();
            if size.is_some_and(|size| size != len) {
                let text = format!("has {len} octets, the message {}", size.unwrap_or_default());
                let meaning =
                    "the message cannot be delivered: it bounces; restore the file from a backup before";
                self.find(Severity::Error, &bodies.join(name), text, meaning).messages.insert(id);
            }
        }
        for id in wanted {
            let meaning =
                "the message cannot be delivered: it bounces; restore the file from a backup before";
            let path = bodies.join(id.to_string());
            self.find(Severity::Error, &path, "is missing", meaning).messages.insert(id);
        }
        if orphans > 0 {
            let meaning = "no message is concerned: they ended; the next start removes them";
            let text = format!("{orphans} files belong to no message in the queue");
            self.find(Severity::Note, &bodies, text, meaning);
        }
        let spool = self.dir.join("spool");
        let left = files_of(&spool)?.len();
        if left > 0 {
            let meaning = "they were being received and never acknowledged; the next start removes them";
            self.find(Severity::Note, &spool, format!("{left} unfinished contents"), meaning);
        }
        Ok(())
    }

    /// Whether the index, brought up to date as a start would, says what the journal says.
    fn index(
        &mut self,
        files: &[SegmentFile],
        nonce: Nonce,
        items: &[(ItemId, Slot)],
        clean: bool,
    ) -> Result<(), QueueError> {
        let dir = self.dir.join("index");
        if !dir.is_dir() {
            if !items.is_empty() {
                let meaning = "no message is concerned: the next start rebuilds it from the journal";
                self.find(Severity::Warning, &dir, "is missing", meaning);
            }
            return Ok(());
        }
        let copy = Duplicate::of(&dir)?;
        let mut table = Table::new();
        files.iter().for_each(|file| table.segments.set_len(file.number, file.len));
        let loaded = Index::open(&copy.0).and_then(|index| {
            let checkpoint = index.load(&nonce, &mut table, &mut BTreeSet::new())?;
            replay::replay(files, nonce, Some(checkpoint.position), &mut table, &mut without_evidence)
                .map_err(|error| error.to_string())
        });
        if let Err(reason) = loaded {
            let meaning = "no message is concerned: the next start rebuilds it from the journal";
            self.find(Severity::Warning, &dir, format!("cannot be used: {reason}"), meaning);
            return Ok(());
        }
        let told: BTreeMap<ItemId, Slot> = all(&table).into_iter().collect();
        let known: BTreeMap<ItemId, Slot> = items.iter().copied().collect();
        // When an item is due may be later in the index: given back without an attempt, and not recorded.
        let same = |one: &Slot, other: &Slot| {
            (one.enqueue, one.state, one.is(HELD)) == (other.enqueue, other.state, other.is(HELD))
        };
        let differ = |id: &&ItemId| match (told.get(id), known.get(id)) {
            (Some(one), Some(other)) => !same(one, other),
            _ => true,
        };
        let messages: BTreeSet<QueueId> =
            told.keys().chain(known.keys()).filter(differ).map(|id| id.queue_id).collect();
        if !messages.is_empty() {
            let severity = if clean { Severity::Error } else { Severity::Warning };
            let text = format!("disagrees with the journal about {} messages", messages.len());
            let meaning = "the journal is right: remove this folder before the next start, which rebuilds it";
            self.find(severity, &dir, text, meaning).messages = messages;
        }
        Ok(())
    }

    /// Policies, reports, results and whatever else is kept in checksummed lines.
    fn logs(&mut self, data_dir: &Path) -> Result<(), QueueError> {
        let trouble = |error: io::Error| troubled("cannot read", data_dir, &error);
        for entry in fs::read_dir(data_dir).map_err(trouble)? {
            let folder = entry.map_err(trouble)?.path();
            if !folder.is_dir() {
                continue;
            }
            for (name, _) in files_of(&folder)?.into_iter().filter(|(name, _)| name.ends_with(".log")) {
                let path = folder.join(name);
                let bytes = fs::read(&path).map_err(|error| troubled("cannot read", &path, &error))?;
                let meaning = match folder == self.dir {
                    true => {
                        "the next start drops what is damaged: those destinations are not frozen any more"
                    }
                    false => "no message is concerned: the next start drops what is damaged and goes on",
                };
                let Some((kind, _)) = lines::first_line(&bytes) else {
                    self.find(Severity::Warning, &path, "its first line is damaged or missing", meaning);
                    continue;
                };
                let Ok(lines) = lines::parse(&bytes, kind) else { continue };
                if lines.damaged > 0 {
                    self.find(
                        Severity::Warning,
                        &path,
                        format!("{} entries are damaged", lines.damaged),
                        meaning,
                    );
                }
                if lines.torn {
                    self.find(Severity::Note, &path, "ends with an unfinished entry", meaning);
                }
            }
        }
        Ok(())
    }
}

fn all(table: &Table) -> Vec<(ItemId, Slot)> {
    table.find(&Filter::default(), None, usize::MAX, usize::MAX).0
}

fn files_of(dir: &Path) -> Result<Vec<(String, u64)>, QueueError> {
    let trouble = |error: io::Error| troubled("cannot read", dir, &error);
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(trouble)?,
    };
    for entry in entries {
        let entry = entry.map_err(trouble)?;
        let metadata = entry.metadata().map_err(trouble)?;
        if metadata.is_file() {
            found.extend(entry.file_name().into_string().ok().map(|name| (name, metadata.len())));
        }
    }
    found.sort();
    Ok(found)
}

/// A copy of a folder in the system's place for such, gone when dropped.
struct Duplicate(PathBuf);

impl Duplicate {
    fn of(dir: &Path) -> Result<Self, QueueError> {
        let name = format!("stsrelay-check-{}-{:x}", std::process::id(), rand::random::<u64>());
        let copy = Self(std::env::temp_dir().join(name));
        copy_all(dir, &copy.0).map_err(|error| troubled("cannot copy the index to", &copy.0, &error))?;
        Ok(copy)
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Evidence is no part of what is checked; nothing of it is kept in memory.
fn without_evidence(table: &mut Table) {
    table.evidence.done(usize::MAX);
}
