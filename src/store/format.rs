//! The formats of the data directory: which are written, which are read, and what is refused.
//!
//! Each file names its own format, so a store may hold several during a migration:
//!
//! | part | names its format in | an older one | a newer one |
//! |---|---|---|---|
//! | `queue/journal/*.journal` | the segment's header | read; writing goes on in a new segment, and it leaves with its last message | refused |
//! | `queue/evidence/*.evidence` | the segment's header | there is none | refused |
//! | `queue/state` | `format` | read; written anew at every start | refused |
//! | `policies/`, `changes/`, `guards/`, `reports/`, `report-targets/`, `report-mails/`, `digests/`, `results/`, `moves/`, `suppressions/` `*.log`, `queue/frozen.log` | the first line | read; written anew at once | refused |
//! | `queue/index` | its checkpoint | removed, rebuilt from the journal | removed, rebuilt from the journal |
//!
//! So going to a newer stsrelay needs nothing, and going back to an older one is refused before
//! anything is changed: [`survey`] is asked before a store is opened, and only reads. Whoever changes
//! what an older stsrelay would misread raises the number here and adds a directory of the old format
//! to `tests/fixtures/`, which must open forever. New optional keys in records need no new number.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::frame::{HEADER, Header, HeaderError};
use super::lines;
use super::notions::QueueError;

/// Of the journal's segments: frames, operations and what they say. Since 2 with evidence.
pub(super) const JOURNAL: u32 = 2;
/// Of the segments of the evidence log.
pub(super) const EVIDENCE: u32 = 1;
/// Of the marker `queue/state`.
pub(super) const MARKER: u32 = 1;
/// Of the files of checksummed lines.
pub(super) const LINES: u32 = 1;
/// Of the keys and values of the index.
pub(super) const INDEX: u8 = 2;

/// Octets of a log's first line at most.
const FIRST_LINE_MAX: u64 = 128;

/// Looks whether anything below `data_dir` is of a newer format than this stsrelay knows. Reads only
/// the first octets of each file and changes nothing. Damage is no business of this: whoever opens
/// the file tells of it. Blocking.
///
/// # Errors
/// [`QueueError::Newer`] names the first such file; [`QueueError::Storage`] when a folder cannot be
/// read.
pub fn survey(data_dir: &Path) -> Result<(), QueueError> {
    survey_queue(&data_dir.join("queue"))?;
    for folder in entries(data_dir)?.into_iter().filter(|path| path.is_dir()) {
        let logs = entries(&folder)?;
        for path in logs.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "log")) {
            let head = head(path, FIRST_LINE_MAX)?;
            newest(path, lines::first_line(&head).map(|(_, format)| format), LINES)?;
        }
    }
    Ok(())
}

/// The queue's part of [`survey`].
pub(super) fn survey_queue(dir: &Path) -> Result<(), QueueError> {
    #[derive(serde::Deserialize)]
    struct AnyMarker {
        format: u32,
    }
    let marker = dir.join("state");
    match fs::read(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => {
            let bytes = read.map_err(|error| unreadable(&marker, &error))?;
            let known = serde_json::from_slice::<AnyMarker>(&bytes).ok().map(|marker| marker.format);
            newest(&marker, known, MARKER)?;
        }
    }
    for path in entries(&dir.join("journal"))? {
        if path.extension().is_some_and(|suffix| suffix == "journal") && path.is_file() {
            // What cannot be read is damage.
            let head = head(&path, HEADER as u64).unwrap_or_default();
            if let Err(HeaderError::Newer(found)) = Header::parse(&head) {
                newest(&path, Some(found), JOURNAL)?;
            }
        }
    }
    for path in entries(&dir.join("evidence"))? {
        if path.extension().is_some_and(|suffix| suffix == "evidence") && path.is_file() {
            newest(&path, super::evidence::format_of(&head(&path, HEADER as u64)?), EVIDENCE)?;
        }
    }
    Ok(())
}

/// Refuses what is newer than `known`.
pub(super) fn newest(path: &Path, found: Option<u32>, known: u32) -> Result<(), QueueError> {
    match found {
        Some(found) if found > known => Err(QueueError::Newer { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, QueueError> {
    let listed = match fs::read_dir(dir) {
        // What is no folder is told by whoever needs one.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        listed => listed.and_then(|all| all.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let mut all = listed.map_err(|error| unreadable(dir, &error))?;
    all.sort();
    Ok(all)
}

fn head(path: &Path, max: u64) -> Result<Vec<u8>, QueueError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> QueueError {
    QueueError::Storage(format!("cannot read {}: {error}", path.display()))
}
