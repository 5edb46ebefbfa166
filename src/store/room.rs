//! Whether there is room for more mail: free space on the disk, and the length of the queue.
//!
//! Looked at before a message is taken, so that clients keep what would not fit, and what is accepted
//! already can be delivered, retried and bounced without running into a full disk. Internal mail is not
//! asked. Recovers by itself: every question is answered from what there is then, free space as it was at
//! most [`LOOK_EVERY`] ago. Called by [`Queue`](super::Queue) alone.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::disk::Disk;
use super::notions::Health;

/// How old a look at the disk may be: what comes in meanwhile is far less than anybody's threshold.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How much room there must be for mail to be taken; 0 stands for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomLimits {
    /// Octets that stay free on the disk beyond the message.
    pub disk_free: u64,
    /// Items in the queue at most.
    pub items: u64,
}

/// What is known of it.
#[derive(Default)]
pub(super) struct Room(Mutex<State>);

#[derive(Default)]
struct State {
    limits: RoomLimits,
    looked: Option<Instant>,
    free: Option<u64>,
}

impl Room {
    pub(super) fn set_limits(&self, limits: RoomLimits) {
        self.state().limits = limits;
    }

    /// Octets free for us on the disk of `path`; `None` where it does not tell.
    pub(super) fn free(&self, disk: &dyn Disk, path: &Path) -> Option<u64> {
        self.state().look(disk, path)
    }

    /// Whether a message of `octets` may come, to a queue of `items`.
    pub(super) fn judge(&self, octets: u64, items: u64, disk: &dyn Disk, path: &Path) -> Health {
        let mut state = self.state();
        let RoomLimits { disk_free, items: most } = state.limits;
        if most > 0 && items >= most {
            return Health::Low(format!("the queue has {items} items, limits.queue_items is {most}"));
        }
        if disk_free > 0
            && let Some(free) = state.look(disk, path)
            && free < disk_free.saturating_add(octets)
        {
            let message = if octets > 0 { format!(" for a message of {octets}") } else { String::new() };
            return Health::Low(format!(
                "{free} octets are free on the disk{message}, limits.disk_free is {disk_free}"
            ));
        }
        Health::Fine
    }

    /// Valid after a panic elsewhere: it holds plain numbers.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self, disk: &dyn Disk, path: &Path) -> Option<u64> {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            // A disk that cannot be asked will tell when it is written to.
            self.free = disk.free(path).ok().flatten();
            self.looked = Some(now);
        }
        self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    #[test]
    fn the_real_disk_tells_how_much_is_free() {
        let free = RealDisk.free(&std::env::temp_dir()).unwrap();
        assert!(free.is_some_and(|free| free > 0));
    }

    #[test]
    fn room_is_judged_by_items_and_by_what_would_be_left() {
        let path = std::env::temp_dir();
        let room = Room::default();
        let judge = |octets, items| room.judge(octets, items, &RealDisk, &path);
        assert_eq!(judge(u64::MAX, u64::MAX), Health::Fine, "without limits");
        room.set_limits(RoomLimits { disk_free: 1, items: 10 });
        assert_eq!(judge(0, 9), Health::Fine);
        assert!(matches!(judge(0, 10), Health::Low(text) if text.contains("10 items")));
        assert!(matches!(judge(1 << 60, 0), Health::Low(text) if text.contains("limits.disk_free is 1")));
        room.set_limits(RoomLimits { disk_free: u64::MAX, items: 0 });
        assert!(matches!(judge(0, 0), Health::Low(_)));
        room.set_limits(RoomLimits { disk_free: 1, items: 0 });
        assert_eq!(judge(0, u64::MAX), Health::Fine);
    }
}
