//! Message contents: written in pieces, kept in memory or in a file, read in pieces.
//!
//! Up to 1 MB a content is memory and later part of its journal record; a larger one is a file in
//! `spool/` until `Queue::enqueue` syncs it and moves it to `bodies/`. Nothing here makes a message
//! durable. Used by `submission` (writing) and `delivery` (reading).

use std::fs;
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{DiskFile, is_full, is_read_only, remedy, sync_parent};
use super::notions::QueueError;
use super::shared::{Shared, blocking};
use crate::queue::QueueId;

/// Contents up to this are kept in memory and in the journal itself.
pub const BODY_MEMORY_BYTES: usize = 1 << 20;
/// Octets gathered before a spool file is written to, and read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A message's content. Small ones are in memory, large ones in a file. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Body {
    /// At most 1 MB when a [`BodyWriter`] made it.
    Memory(Bytes),
    /// A finished file of the store's own, durable before the message is.
    File {
        /// Where.
        path: PathBuf,
        /// Octets.
        len: u64,
    },
}

/// Takes a body in pieces while a transaction runs; memory first, a spool file beyond 1 MB.
/// Dropping it unfinished leaves nothing behind.
pub struct BodyWriter {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// Octets already in the file.
    spooled: u64,
    file: Option<Box<dyn DiskFile>>,
    path: Option<PathBuf>,
}

/// Reads a stored body in pieces.
pub struct BodyReader {
    source: Source,
}

enum Source {
    Memory(Bytes),
    File { file: Arc<fs::File>, path: PathBuf, at: u64, left: u64 },
}

impl Body {
    /// Octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens it for reading in pieces.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the file is gone or unreadable.
    pub async fn reader(&self) -> Result<BodyReader, QueueError> {
        let source = match self {
            Self::Memory(bytes) => Source::Memory(bytes.clone()),
            Self::File { path, len } => {
                let (path, left) = (path.clone(), *len);
                blocking(move || {
                    let file = fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
                    Ok(Source::File { file: Arc::new(file), path, at: 0, left })
                })
                .await?
            }
        };
        Ok(BodyReader { source })
    }

    /// The first octets, at most `max`: for headers in a DSN.
    ///
    /// # Errors
    /// As for [`Body::reader`].
    pub async fn head(&self, max: usize) -> Result<Bytes, QueueError> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(max))),
            Self::File { path, .. } => {
                let path = path.clone();
                blocking(move || {
                    let mut head = Vec::new();
                    let file = fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
                    let read = file.take(max as u64).read_to_end(&mut head);
                    read.map_err(|error| unreadable(&path, &error))?;
                    Ok(Bytes::from(head))
                })
                .await
            }
        }
    }
}

impl BodyReader {
    /// The next piece (some 64 KB), or `None` at the end.
    ///
    /// # Errors
    /// [`QueueError::Storage`], also when the file is shorter than the message was.
    pub async fn next(&mut self) -> Result<Option<Bytes>, QueueError> {
        match &mut self.source {
            Source::Memory(rest) if rest.is_empty() => Ok(None),
            Source::Memory(rest) => Ok(Some(rest.split_to(rest.len().min(PIECE_BYTES)))),
            Source::File { left: 0, .. } => Ok(None),
            Source::File { file, path, at, left } => {
                let wanted = PIECE_BYTES.min(usize::try_from(*left).unwrap_or(usize::MAX));
                let (file, path, from) = (Arc::clone(file), path.clone(), *at);
                let piece = blocking(move || {
                    let mut piece = vec![0; wanted];
                    let read = file.read_exact_at(&mut piece, from);
                    read.map(|()| piece).map_err(|error| unreadable(&path, &error))
                })
                .await?;
                *at += wanted as u64;
                *left -= wanted as u64;
                Ok(Some(piece.into()))
            }
        }
    }
}

impl BodyWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: Vec::new(), spooled: 0, file: None, path: None }
    }

    /// Appends.
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        self.buffer.extend_from_slice(bytes);
        let bound = if self.path.is_some() { PIECE_BYTES } else { BODY_MEMORY_BYTES };
        if self.buffer.len() > bound {
            self.spool().await?;
        }
        Ok(())
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.spooled + self.buffer.len() as u64
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the body. A file is synced by `Queue::enqueue` at the latest.
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`].
    pub async fn finish(mut self) -> Result<Body, QueueError> {
        if self.path.is_none() {
            return Ok(Body::Memory(std::mem::take(&mut self.buffer).into()));
        }
        self.spool().await?;
        let len = self.len();
        let path = self.path.take();
        Ok(path.map_or(Body::Memory(Bytes::new()), |path| Body::File { path, len }))
    }

    /// Moves the buffer to the file.
    async fn spool(&mut self) -> Result<(), QueueError> {
        let path = self.path.get_or_insert_with(|| self.shared.spool_path()).clone();
        let (buffer, file) = (std::mem::take(&mut self.buffer), self.file.take());
        let disk = Arc::clone(&self.shared.disk);
        let (mut buffer, file) = blocking(move || {
            let trouble = |error: io::Error| troubled("cannot write", &path, &error);
            let mut file = match file {
                Some(file) => file,
                None => disk.create(&path).map_err(trouble)?,
            };
            file.write(&mut [IoSlice::new(&buffer)]).map_err(trouble)?;
            Ok((buffer, file))
        })
        .await?;
        self.spooled += buffer.len() as u64;
        buffer.clear();
        (self.buffer, self.file) = (buffer, Some(file));
        Ok(())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Best effort: what is left in `spool/` is removed at the next start.
            let _ = self.shared.disk.remove(path);
        }
    }
}

/// Makes a content durable under its message's name. Blocking.
pub(super) fn keep(shared: &Shared, id: QueueId, body: &Body) -> Result<(), QueueError> {
    let path = shared.body_path(id);
    let trouble = |error: io::Error| troubled("cannot keep", &path, &error);
    let disk = shared.disk.as_ref();
    let spooled = match body {
        Body::File { path, .. } if path.parent() == Some(shared.spool_dir().as_path()) => path.clone(),
        // A file of someone else stays theirs.
        Body::File { path, .. } => {
            let content = fs::read(path).map_err(|error| unreadable(path, &error))?;
            write(shared, &content).map_err(trouble)?
        }
        Body::Memory(bytes) => write(shared, bytes).map_err(trouble)?,
    };
    let kept = disk
        .sync_file(&spooled)
        .and_then(|()| disk.rename(&spooled, &path))
        .and_then(|()| sync_parent(disk, &path));
    kept.map_err(|error| {
        let _ = disk.remove(&spooled);
        let _ = disk.remove(&path);
        trouble(error)
    })
}

fn write(shared: &Shared, content: &[u8]) -> io::Result<PathBuf> {
    let path = shared.spool_path();
    shared.disk.create(&path)?.write(&mut [IoSlice::new(content)]).inspect_err(|_| {
        let _ = shared.disk.remove(&path);
    })?;
    Ok(path)
}

fn unreadable(path: &Path, error: &io::Error) -> QueueError {
    QueueError::Storage(format!("cannot read {}: {error}{}", path.display(), remedy(error)))
}

/// The error of a write that failed.
pub(super) fn troubled(what: &str, path: &Path, error: &io::Error) -> QueueError {
    let text = format!("{what} {}: {error}{}", path.display(), remedy(error));
    match () {
        () if is_full(error) => QueueError::Full(text),
        () if is_read_only(error) => QueueError::ReadOnly(text),
        () => QueueError::Storage(text),
    }
}
