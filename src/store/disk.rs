//! The store's door to the disk: everything that makes bytes or names durable.
//!
//! Reading goes through `std::fs` directly; only what writes, cuts, renames, removes or syncs passes
//! here, so that tests can hand in a disk that loses what was not synced, runs full or fails.
//! Never retries and never hides an error: what a failed sync means is the caller's decision.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Names: creating, renaming, removing, and making that durable.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file, cut to `len`, for writing at its end.
    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file only to sync it, e.g. after a crash of the writer.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Octets that may still be written to the disk of `path`; `None` from one that does not tell.
    fn free(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// A file open for writing at its end.
pub trait DiskFile: Send + Sync {
    /// Writes all slices in order; on an error any part of them may be in the file.
    fn write(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Cuts the file to `len` and goes on writing there.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.cut(len)?;
        Ok(Box::new(file))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        // Mail is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free(&self, path: &Path) -> io::Result<Option<u64>> {
        let told = rustix::fs::statvfs(path)?;
        // Without what only root may use.
        Ok(Some(told.f_bavail.saturating_mul(told.f_frsize)))
    }
}

impl DiskFile for File {
    fn write(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // An empty slice at the front would look like a write of nothing.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut slices, n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes a small file so that after a power cut either the old or the new content is there.
pub(in crate::store) fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&temporary)?;
    file.write(&mut [IoSlice::new(content)])?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, path)?;
    sync_parent(disk, path)
}

/// Makes a file's name durable.
pub(super) fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
}

/// Whether an error says that the disk may not be written to: somebody mounted it so, or the kernel
/// did after trouble.
pub(super) fn is_read_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

/// What an operator can do about an error, to be put behind it.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; everything below the data directory must belong to the user that runs the daemon"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; look in the kernel's log why, and mount it writable again",
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "; something else is where the store needs a directory of its own"
        }
        _ => "",
    }
}

/// Whether an error says that there is no room, so that waiting for room helps.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
