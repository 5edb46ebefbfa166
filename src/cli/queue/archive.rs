//! An exported queue as files: `messages.jsonl` and a file per content, in a folder.
//!
//! `messages.jsonl` is JSON, one object a line: a head (`stsrelay_export`, the format), a
//! [`Portable`] per message with the SHA-256 of its content, and an end with their number. Contents
//! are `content/QUEUE-ID.eml`, octet by octet as they will be sent. The folder is written under
//! another name, synced, and gets its own name last: what has it is complete. Reading verifies
//! everything before the first message is used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::queue::QueueId;
use crate::store::Portable;

/// The format written; a newer one is refused.
const FORMAT: u32 = 1;
/// Octets of a content read at a time.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    stsrelay_export: u32,
    version: String,
    made_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Row {
    content: String,
    sha256: String,
    message: Portable,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: bool,
    messages: u64,
}

fn content_name(id: QueueId) -> String {
    format!("content/{id}.eml")
}

fn trouble(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let text = format!("cannot {what} {}", path.display());
    move |error| format!("{text}: {error}")
}

fn hex(digest: &digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive being written; dropped unfinished it is gone.
pub(super) struct Writer {
    dir: PathBuf,
    partial: PathBuf,
    list: BufWriter<File>,
    messages: u64,
    finished: bool,
}

impl Writer {
    pub(super) fn create(dir: &Path, now: Timestamp) -> Result<Self, String> {
        if dir.exists() {
            return Err(format!("{} is there already; give a folder that is not", dir.display()));
        }
        let mut name = dir.file_name().ok_or("the folder needs a name")?.to_owned();
        name.push(".partial");
        let partial = dir.with_file_name(name);
        // Mail is nobody else's business.
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path).map_err(trouble("make", path));
        make(&partial)?;
        make(&partial.join("content"))?;
        let path = partial.join("messages.jsonl");
        let list = new_file(&path)?;
        let mut writer =
            Self { dir: dir.to_owned(), partial, list: BufWriter::new(list), messages: 0, finished: false };
        writer.line(&Head {
            stsrelay_export: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            made_at: now,
        })?;
        Ok(writer)
    }

    /// Adds a message whose content comes in pieces, an empty one last.
    pub(super) fn add<E: From<String>>(
        &mut self,
        message: Portable,
        mut next: impl FnMut(u64) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let name = content_name(message.id);
        let path = self.partial.join(&name);
        let mut file = new_file(&path).map_err(E::from)?;
        let (mut context, mut len) = (digest::Context::new(&digest::SHA256), 0);
        while len < message.size {
            let piece = next(len)?;
            if piece.is_empty() {
                break;
            }
            context.update(&piece);
            file.write_all(&piece).map_err(trouble("write", &path)).map_err(E::from)?;
            len += piece.len() as u64;
        }
        if len != message.size {
            return Err(E::from(format!(
                "the content of {} has {len} octets instead of {}",
                message.id, message.size
            )));
        }
        file.sync_all().map_err(trouble("sync", &path)).map_err(E::from)?;
        self.messages += 1;
        self.line(&Row { content: name, sha256: hex(&context.finish()), message }).map_err(E::from)
    }

    /// Makes it durable and gives it its name.
    pub(super) fn finish(mut self) -> Result<u64, String> {
        self.line(&End { end: true, messages: self.messages })?;
        let path = self.partial.join("messages.jsonl");
        self.list.flush().and_then(|()| self.list.get_ref().sync_all()).map_err(trouble("sync", &path))?;
        sync_dir(&self.partial.join("content"))?;
        sync_dir(&self.partial)?;
        fs::rename(&self.partial, &self.dir).map_err(trouble("rename", &self.partial))?;
        self.finished = true;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(self.messages)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), String> {
        let mut line = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let path = self.partial.join("messages.jsonl");
        self.list.write_all(&line).map_err(trouble("write", &path))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

fn new_file(path: &Path) -> Result<File, String> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(trouble("make", path))
}

fn sync_dir(path: &Path) -> Result<(), String> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(trouble("sync", path))
}

/// A message of a verified archive.
pub(super) struct Entry {
    pub message: Portable,
    path: PathBuf,
}

impl Entry {
    /// Calls `each` with the content, piece by piece.
    pub(super) fn content<E: From<String>>(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = |error| E::from(trouble("read", &self.path)(error));
        let mut file = File::open(&self.path).map_err(read)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = file.read(&mut piece).map_err(|error| E::from(trouble("read", &self.path)(error)))?;
            if count == 0 {
                return Ok(());
            }
            each(&piece[..count])?;
        }
    }
}

/// Reads and verifies a whole archive; messages in order.
pub(super) fn read(dir: &Path) -> Result<Vec<Entry>, String> {
    let path = dir.join("messages.jsonl");
    if !path.exists() {
        return Err(format!("{} is no export of stsrelay: {} is missing", dir.display(), path.display()));
    }
    let file = File::open(&path).map_err(trouble("read", &path))?;
    let partial = |what: &str| format!("{} is not complete: {what}; nothing was imported", dir.display());
    let (mut entries, mut end, mut head) = (Vec::new(), None, false);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(trouble("read", &path))?;
        let bad = |error: serde_json::Error| {
            partial(&format!("line {} of messages.jsonl cannot be understood ({error})", index + 1))
        };
        if index == 0 {
            let found: Head = serde_json::from_str(&line).map_err(bad)?;
            if found.stsrelay_export > FORMAT {
                return Err(format!(
                    "{} is of format {}, which stsrelay {} wrote; this one knows formats up to {FORMAT}; nothing was \
                     imported: use the newer release",
                    dir.display(),
                    found.stsrelay_export,
                    found.version
                ));
            }
            head = true;
        } else if end.is_some() {
            return Err(partial("something follows its end"));
        } else if let Ok(last) = serde_json::from_str::<End>(&line) {
            end = Some(last.messages);
        } else {
            let row: Row = serde_json::from_str(&line).map_err(bad)?;
            entries.push(verified(dir, row).map_err(|text| partial(&text))?);
        }
    }
    match end {
        Some(count) if head && count == entries.len() as u64 => Ok(entries),
        Some(count) => Err(partial(&format!("it has {} messages of {count}", entries.len()))),
        None => Err(partial("its end is missing")),
    }
}

fn verified(dir: &Path, row: Row) -> Result<Entry, String> {
    row.message.check()?;
    // Never a name from the file: it could lead anywhere.
    let path = dir.join(content_name(row.message.id));
    let entry = Entry { message: row.message, path };
    let (mut context, mut len) = (digest::Context::new(&digest::SHA256), 0);
    entry.content::<String>(|piece| {
        context.update(piece);
        len += piece.len() as u64;
        Ok(())
    })?;
    if len != entry.message.size || hex(&context.finish()) != row.sha256 {
        return Err(format!("{} is not as it was exported", entry.path.display()));
    }
    Ok(entry)
}
