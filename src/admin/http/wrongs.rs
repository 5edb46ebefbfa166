//! Wrong tokens, counted per peer: whoever guesses waits.
//!
//! Pure but for its lock. A token cannot be guessed in any case; this keeps the log and the processor
//! from those who try. Whoever guesses shuts out its own network only; on this host, nobody but itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Wrong tokens from one peer within [`WINDOW`].
pub(super) const WRONG_MAX: u32 = 10;
/// After the first wrong token; then all is forgotten.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Peers remembered; beyond, the oldest is forgotten.
const PEERS_MAX: usize = 1024;

/// See the file's header.
#[derive(Default)]
pub(in crate::admin) struct Wrongs(Mutex<HashMap<IpAddr, (Timestamp, u32)>>);

impl Wrongs {
    /// How long this peer must wait before it is heard.
    pub(in crate::admin) fn wait(&self, peer: IpAddr, now: Timestamp) -> Option<Duration> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = *table.get(&network(peer))?;
        let left = WINDOW.checked_sub(now.duration_since(first))?;
        // A clock set back must not make anybody wait for longer.
        let waits = count >= WRONG_MAX && left.is_positive() && left <= WINDOW;
        waits.then(|| Duration::try_from(left).unwrap_or_default())
    }

    /// A wrong token came; whether it is the one after which the peer waits.
    pub(in crate::admin) fn wrong(&self, peer: IpAddr, now: Timestamp) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |first: Timestamp| first <= now && now.duration_since(first) < WINDOW;
        let network = network(peer);
        if !table.contains_key(&network) && table.len() >= PEERS_MAX {
            table.retain(|_, (first, _)| is_live(*first));
            let oldest = table.iter().min_by_key(|(_, (first, _))| *first).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest.filter(|_| table.len() >= PEERS_MAX) {
                table.remove(&oldest);
            }
        }
        let entry = table.entry(network).or_insert((now, 0));
        if !is_live(entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
        entry.1 == WRONG_MAX
    }
}

/// Whom a peer is counted with: of IPv6, whoever holds an address holds its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn who_guesses_waits_and_nobody_else_does() {
        let wrongs = Wrongs::default();
        let [peer, other] = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let neighbour = "2001:db8::ffff:2".parse().unwrap();
        for n in 1..=WRONG_MAX {
            assert_eq!(wrongs.wait(peer, at(0)), None);
            assert_eq!(wrongs.wrong(peer, at(0)), n == WRONG_MAX);
        }
        assert_eq!(wrongs.wait(peer, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(wrongs.wait(neighbour, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(wrongs.wait(other, at(20)), None);
        assert_eq!(wrongs.wait(peer, at(60)), None);
        assert!(!wrongs.wrong(peer, at(61)));
        assert_eq!(wrongs.wait(peer, at(61)), None);
    }

    #[test]
    fn a_clock_set_back_shuts_nobody_out() {
        let wrongs = Wrongs::default();
        let peer = "192.0.2.1".parse().unwrap();
        for _ in 0..WRONG_MAX {
            wrongs.wrong(peer, at(3600));
        }
        assert_eq!(wrongs.wait(peer, at(0)), None);
        assert!(!wrongs.wrong(peer, at(0)));
    }

    #[test]
    fn very_many_peers_take_bounded_memory() {
        let wrongs = Wrongs::default();
        for n in 0..3000u32 {
            wrongs.wrong(IpAddr::from(n.to_be_bytes()), at(i64::from(n) / 100));
        }
        assert_eq!(wrongs.0.lock().unwrap().len(), PEERS_MAX);
    }
}
