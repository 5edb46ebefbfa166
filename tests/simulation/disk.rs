//! A disk that loses what was not synced, runs full, fails a sync, or stops at any step.
//!
//! Files are real, below a folder of the simulation; beside them it remembers what a power cut would
//! leave: the synced octets of every file whose name was synced. Nothing is ever really synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use stsrelay::store::disk::{Disk, DiskFile, RealDisk};
use tokio::sync::Notify;

#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Told when the disk stops: the process is gone at that step.
    pub died: Arc<Notify>,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    stopped: bool,
    stop_after: Option<u64>,
    steps: u64,
    room: Option<u64>,
    fail_sync: bool,
    fail_write: bool,
    content: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    next: u64,
}

#[derive(Default)]
struct Content {
    /// Where the file is now; gone when removed.
    path: Option<PathBuf>,
    synced: Vec<u8>,
    /// So much of `synced` is as the file is.
    same: u64,
}

impl SimDisk {
    pub fn new(root: &Path) -> Self {
        let state = State { root: root.to_owned(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), died: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether nothing is written any more: the process is as good as gone.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The process ends now: nothing it still does reaches the disk.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// A new process; faults are gone.
    pub fn restart(&self) {
        let mut state = self.state();
        (state.stopped, state.stop_after) = (false, None);
        (state.room, state.fail_sync, state.fail_write) = (None, false, false);
    }

    /// The process ends after so many more steps.
    pub fn stop_after(&self, steps: u64) {
        let mut state = self.state();
        state.stop_after = Some(state.steps + steps);
    }

    pub fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// The next sync fails, once.
    pub fn fail_sync(&self) {
        self.state().fail_sync = true;
    }

    /// The next write fails, once.
    pub fn fail_write(&self) {
        self.state().fail_write = true;
    }

    /// Leaves what a power cut leaves. With `torn`, files keep up to so many octets beyond what was
    /// synced, the last of them garbled when the number is odd.
    pub fn power_cut(&self, torn: usize) {
        let mut state = self.state();
        let root = state.root.clone();
        let mut left = Vec::new();
        for (path, number) in &state.durable {
            let Some(content) = state.content.get(number) else { continue };
            let mut bytes = content.synced.clone();
            let current = content.path.as_ref().filter(|_| torn > 0).and_then(|path| fs::read(path).ok());
            if let Some(current) = current
                && current.len() > bytes.len()
                && current.starts_with(&bytes)
            {
                let kept = (bytes.len() + torn).min(current.len());
                bytes = current[..kept].to_vec();
                let last = bytes.len() - 1;
                bytes[last] ^= (torn % 2) as u8;
            }
            left.push((path.clone(), bytes));
        }
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir_all(&root).unwrap();
        *state = State { root, stopped: true, steps: state.steps, ..State::default() };
        for (path, bytes) in left {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            state.adopt(&path);
        }
    }
}

/// Whether a step was the last of the process.
enum Step {
    Done,
    Gone,
}

impl State {
    fn step(&mut self) -> Step {
        if self.stopped || self.stop_after.is_some_and(|stop| self.steps >= stop) {
            self.stopped = true;
            return Step::Gone;
        }
        self.steps += 1;
        Step::Done
    }

    fn adopt(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.names.get(path) {
            return *number;
        }
        // It was there before this disk: durable as it is.
        let number = self.fresh(path);
        self.durable.insert(path.to_owned(), number);
        let synced = fs::read(path).unwrap_or_default();
        let same = synced.len() as u64;
        self.content.insert(number, Content { path: Some(path.to_owned()), synced, same });
        number
    }

    fn fresh(&mut self, path: &Path) -> u64 {
        self.next += 1;
        self.names.insert(path.to_owned(), self.next);
        self.content.insert(self.next, Content { path: Some(path.to_owned()), ..Content::default() });
        self.next
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        if std::mem::take(&mut self.fail_sync) {
            return Err(io::Error::other("simulated sync failure"));
        }
        let Some(content) = self.content.get_mut(&number) else { return Ok(()) };
        let Some(path) = &content.path else { return Ok(()) };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(content.same))?;
        content.synced.truncate(content.same as usize);
        file.read_to_end(&mut content.synced)?;
        content.same = content.synced.len() as u64;
        Ok(())
    }
}

impl SimDisk {
    /// One step of the process; an error when it is gone.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match state.step() {
            Step::Done => Ok(state),
            Step::Gone => {
                self.died.notify_one();
                Err(io::Error::other("the process is gone"))
            }
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.step()?;
        if state.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = RealDisk.create(path)?;
        let number = state.fresh(path);
        Ok(Box::new(SimFile { disk: self.clone(), file, number, len: 0 }))
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.step()?;
        let number = state.adopt(path);
        let file = RealDisk.append(path, len)?;
        if let Some(content) = state.content.get_mut(&number) {
            content.same = content.same.min(len);
        }
        Ok(Box::new(SimFile { disk: self.clone(), file, number, len }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let number = state.adopt(path);
        state.sync(number)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.adopt(from);
        RealDisk.rename(from, to)?;
        if let Some(number) = state.names.remove(from) {
            let replaced = state.names.insert(to.to_owned(), number);
            if let Some(content) = replaced.and_then(|number| state.content.get_mut(&number)) {
                content.path = None;
            }
            if let Some(content) = state.content.get_mut(&number) {
                content.path = Some(to.to_owned());
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // What a file held is room again.
        let held = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut state = self.step()?;
        if path.exists() {
            state.adopt(path);
        }
        RealDisk.remove(path)?;
        state.room = state.room.map(|room| room + held);
        if let Some(number) = state.names.remove(path)
            && let Some(content) = state.content.get_mut(&number)
        {
            content.path = None;
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let here = |name: &Path| name.parent() == Some(path);
        state.durable.retain(|name, _| !here(name));
        let new: Vec<(PathBuf, u64)> = state
            .names
            .iter()
            .filter(|(name, _)| here(name))
            .map(|(name, number)| (name.clone(), *number))
            .collect();
        state.durable.extend(new);
        // Nobody can come back to what has no name.
        let State { content, names, durable, .. } = &mut *state;
        content.retain(|number, content| {
            content.path.is_some()
                || durable.values().any(|named| named == number)
                || names.values().any(|named| named == number)
        });
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
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let before = self.disk.is_stopped();
        let mut state = match self.disk.step() {
            Ok(state) => state,
            Err(error) => {
                // A process that ends while writing leaves half of it.
                if !before {
                    self.file.write(&mut [IoSlice::new(&all[..all.len() / 2])])?;
                }
                return Err(error);
            }
        };
        if std::mem::take(&mut state.fail_write) {
            return Err(io::Error::other("simulated write failure"));
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
        let mut state = self.disk.step()?;
        if let Some(room) = state.room {
            state.room = Some(room + self.len.saturating_sub(len));
        }
        self.len = len;
        if let Some(content) = state.content.get_mut(&self.number) {
            content.same = content.same.min(len);
        }
        self.file.cut(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.step()?;
        state.sync(self.number)
    }
}
