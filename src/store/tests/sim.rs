//! A disk that can lose what was not synced, run full, fail, or stop at any step.
//!
//! Files are real, below a test's own folder; beside them it remembers what a power cut would
//! leave: the synced octets of every file whose name was synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, DiskFile, RealDisk};

#[derive(Clone, Default)]
pub(super) struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    steps: u64,
    stop_after: Option<u64>,
    stopped: bool,
    /// Octets that may still be written.
    room: Option<u64>,
    fail_sync: bool,
    fail_evidence_sync: bool,
    fail_write: bool,
    read_only: bool,
    /// What is durable of each file's content, by a number that survives renaming.
    content: BTreeMap<u64, Vec<u8>>,
    /// Names as they are.
    names: BTreeMap<PathBuf, u64>,
    /// Names as a power cut leaves them.
    durable: BTreeMap<PathBuf, u64>,
    next: u64,
}

impl SimDisk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A disk on which everything below `dir` is durable as it is.
    pub(super) fn over(dir: &Path) -> Self {
        let disk = Self::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    disk.state().adopt(&path);
                }
            }
        }
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The process ends after this many more steps: nothing is changed from then on.
    pub(super) fn stop_after(&self, steps: u64) {
        let mut state = self.state();
        state.stop_after = Some(state.steps + steps);
    }

    pub(super) fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    pub(super) fn fail_sync(&self, fail: bool) {
        self.state().fail_sync = fail;
    }

    /// Only files of the evidence log.
    pub(super) fn fail_evidence_sync(&self, fail: bool) {
        self.state().fail_evidence_sync = fail;
    }

    /// As after `mount -o remount,ro`.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    pub(super) fn fail_write(&self, fail: bool) {
        self.state().fail_write = fail;
    }

    /// Makes in `to` what a power cut now would leave of `from`. With `torn`, files keep that many
    /// octets beyond what was synced, garbled at the end.
    pub(super) fn power_cut(&self, from: &Path, to: &Path, torn: usize) {
        let state = self.state();
        for (path, number) in &state.durable {
            let Ok(relative) = path.strip_prefix(from) else { continue };
            let mut content = state.content.get(number).cloned().unwrap_or_default();
            if let Some(current) = (torn > 0).then(|| state.current(*number)).flatten() {
                let current = fs::read(current).unwrap_or_default();
                if current.len() > content.len() && current.starts_with(&content) {
                    let kept = (content.len() + torn).min(current.len());
                    content = current[..kept].to_vec();
                    let last = content.len() - 1;
                    content[last] ^= (torn % 2) as u8;
                }
            }
            let path = to.join(relative);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

/// Makes in `to` what ending the process now would leave of `from`.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            fs::write(target, bytes).unwrap();
        }
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        if self.stopped || self.stop_after.is_some_and(|stop| self.steps >= stop) {
            self.stopped = true;
            return Err(io::Error::other("the process is gone"));
        }
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.steps += 1;
        Ok(())
    }

    fn current(&self, number: u64) -> Option<PathBuf> {
        self.names.iter().find(|(_, other)| **other == number).map(|(path, _)| path.clone())
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        self.step()?;
        let of_evidence = |path: PathBuf| path.parent().is_some_and(|dir| dir.ends_with("evidence"));
        if self.fail_sync || self.fail_evidence_sync && self.current(number).is_some_and(of_evidence) {
            return Err(io::Error::other("simulated sync failure"));
        }
        if let Some(path) = self.current(number) {
            self.content.insert(number, fs::read(path)?);
        }
        Ok(())
    }

    fn adopt(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.names.get(path) {
            return *number;
        }
        // It was there before this disk: durable as it is.
        let number = self.fresh(path);
        self.durable.insert(path.to_owned(), number);
        self.content.insert(number, fs::read(path).unwrap_or_default());
        number
    }

    fn fresh(&mut self, path: &Path) -> u64 {
        self.next += 1;
        let number = self.next;
        self.names.insert(path.to_owned(), number);
        number
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        if state.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = RealDisk.create(path)?;
        let number = state.fresh(path);
        Ok(Box::new(SimFile { disk: self.clone(), file, number, len: 0 }))
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        let number = state.adopt(path);
        let file = RealDisk.append(path, len)?;
        Ok(Box::new(SimFile { disk: self.clone(), file, number, len }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let number = state.adopt(path);
        state.sync(number)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.adopt(from);
        RealDisk.rename(from, to)?;
        if let Some(number) = state.names.remove(from) {
            state.names.insert(to.to_owned(), number);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // What a file held is room again.
        let held = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut state = self.state();
        state.step()?;
        if path.exists() {
            state.adopt(path);
        }
        RealDisk.remove(path)?;
        state.room = state.room.map(|room| room + held);
        state.names.remove(path);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.state().read_only && !path.is_dir() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let here = |name: &&PathBuf| name.parent() == Some(path);
        let old: BTreeSet<PathBuf> = state.durable.keys().filter(here).cloned().collect();
        let new: BTreeMap<PathBuf, u64> =
            state.names.iter().filter(|(name, _)| here(name)).map(|(name, n)| (name.clone(), *n)).collect();
        for name in old {
            state.durable.remove(&name);
        }
        state.durable.extend(new);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    file: Box<dyn DiskFile>,
    number: u64,
    len: u64,
}

impl DiskFile for SimFile {
    fn write(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.disk.state();
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if state.fail_write {
            return Err(io::Error::other("simulated write failure"));
        }
        // A process that ends while writing leaves half of it.
        let before = state.stopped;
        if let Err(error) = state.step() {
            if !before {
                self.file.write(&mut [IoSlice::new(&all[..all.len() / 2])])?;
            }
            return Err(error);
        }
        if let Some(room) = state.room {
            let fits = (room as usize).min(all.len());
            state.room = Some(room - fits as u64);
            if fits < all.len() {
                let _ = self.file.write(&mut [IoSlice::new(&all[..fits])]);
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.len += all.len() as u64;
        self.file.write(&mut [IoSlice::new(&all)])
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        if let Some(room) = state.room {
            state.room = Some(room + self.len.saturating_sub(len));
        }
        self.len = len;
        self.file.cut(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.sync(self.number)
    }
}
