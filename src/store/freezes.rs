//! Destinations an operator has frozen: nothing is delivered there until they are thawed.
//!
//! Kept in `queue/frozen.log`, which is made with the first freeze. Keeps what it is told; what
//! becomes of a frozen destination's items is `delivery`'s business.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::ledger::Ledger;
use super::notions::QueueError;
use super::shared::blocking;
use crate::mail::Destination;

/// Destinations frozen at a time: operators name them one by one, and each claim looks here.
const FREEZES_MAX: usize = 10_000;
const KIND: &str = "frozen";

/// An operator's word that nothing goes to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Where nothing goes.
    pub destination: Destination,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was frozen.
    pub since: Timestamp,
    /// Over by itself at this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// See the file's header.
pub(super) struct Freezes {
    ground: Ground,
    dir: PathBuf,
    /// Absent as long as nothing was ever frozen.
    ledger: Mutex<Option<Arc<Ledger<Freeze>>>>,
}

impl Freezes {
    /// Reads what is frozen; also what was repaired. Blocking.
    pub(super) fn open(ground: &Ground, dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repaired) = match dir.join(format!("{KIND}.log")).exists() {
            false => (None, Vec::new()),
            true => {
                let (ledger, repaired) = Ledger::open(ground, dir, KIND)?;
                (Some(Arc::new(ledger)), repaired)
            }
        };
        let (ground, dir, ledger) = (ground.clone(), dir.to_owned(), Mutex::new(ledger));
        Ok((Self { ground, dir, ledger }, repaired))
    }

    fn ledger(&self) -> Option<Arc<Ledger<Freeze>>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The freeze of a destination that is in force.
    pub(super) fn get(&self, destination: &Destination, now: Timestamp) -> Option<Arc<Freeze>> {
        self.ledger()?.get(&destination.to_string()).filter(|freeze| freeze.holds(now))
    }

    /// All in force, in order of name.
    pub(super) fn list(&self, now: Timestamp) -> Vec<Arc<Freeze>> {
        let mut all = self.ledger().map(|ledger| ledger.list()).unwrap_or_default();
        all.retain(|freeze| freeze.holds(now));
        all
    }

    /// Freezes, or changes reason and end of a freeze. Durable when it returns.
    pub(super) async fn put(self: &Arc<Self>, freeze: Freeze, now: Timestamp) -> Result<(), QueueError> {
        let ledger = match self.ledger() {
            Some(ledger) => ledger,
            None => self.begin().await?,
        };
        let over = ledger.list().into_iter().filter(|freeze| !freeze.holds(now));
        for freeze in over.collect::<Vec<_>>() {
            ledger.remove(&freeze.destination.to_string()).await?;
        }
        let name = freeze.destination.to_string();
        if ledger.get(&name).is_none() && ledger.list().len() >= FREEZES_MAX {
            let text = format!("{FREEZES_MAX} destinations are frozen already; thaw some first");
            return Err(QueueError::Storage(text));
        }
        ledger.put(name, freeze).await
    }

    /// Those that are over and not forgotten yet: their items may still wait for them.
    pub(super) fn over(&self, now: Timestamp) -> BTreeSet<Destination> {
        let mut all = self.ledger().map(|ledger| ledger.list()).unwrap_or_default();
        all.retain(|freeze| !freeze.holds(now));
        all.iter().map(|freeze| freeze.destination.clone()).collect()
    }

    /// Thaws; whether it was frozen. Remembered as over, so that a start right after it knows whose items
    /// need not wait.
    pub(super) async fn end(&self, destination: &Destination, now: Timestamp) -> Result<bool, QueueError> {
        let (Some(ledger), Some(freeze)) = (self.ledger(), self.get(destination, now)) else {
            return Ok(false);
        };
        ledger.put(destination.to_string(), Freeze { until: Some(now), ..(*freeze).clone() }).await?;
        Ok(true)
    }

    async fn begin(self: &Arc<Self>) -> Result<Arc<Ledger<Freeze>>, QueueError> {
        if self.ground.loops == super::ground::Loops::Tasks {
            return self.begin_here();
        }
        let this = Arc::clone(self);
        blocking(move || this.begin_here()).await
    }

    fn begin_here(&self) -> Result<Arc<Ledger<Freeze>>, QueueError> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = ledger.as_ref() {
            return Ok(Arc::clone(ledger));
        }
        let (opened, _) = Ledger::open(&self.ground, &self.dir, KIND)?;
        Ok(Arc::clone(ledger.insert(Arc::new(opened))))
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operator has stopped deliveries to {}", self.destination)?;
        if let Some(until) = self.until {
            write!(f, " until {until:.0}")?;
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl Freeze {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
