//! Happy eyeballs (RFC 8305): a host's addresses are dialled a moment apart, and the first connection
//! that comes about is used, so that a family which leads nowhere costs a quarter of a second and not
//! a connect timeout.
//!
//! The others are dropped before anything is said on them; whoever was overtaken is dialled again
//! when the winner's session fails. Opens at most as many connections as there are addresses. Never
//! decides which addresses are allowed: each goes through the dialling door and its guard.
//! Called by `delivery::attempt`.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Connection, Dial};

/// RFC 8305 §5: the recommended Connection Attempt Delay; long enough for most hosts to have answered,
/// so that a host which works sees one connection.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// RFC 8305 §4: the families in turn, beginning with that of the first address; within a family the
/// order is kept.
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().is_some_and(IpAddr::is_ipv4);
    let of = |v4: bool| addresses.iter().filter(move |ip| ip.is_ipv4() == v4).copied();
    let (mut ours, mut theirs) = (of(first), of(!first));
    let mut out = Vec::with_capacity(addresses.len());
    loop {
        let pair = [ours.next(), theirs.next()];
        if pair == [None, None] {
            return out;
        }
        out.extend(pair.into_iter().flatten());
    }
}

/// The addresses of one host that are still to be tried.
pub struct Race<'a> {
    dial: &'a dyn Dial,
    host: &'a str,
    within: Duration,
    waiting: VecDeque<SocketAddr>,
}

/// What a round of dialling brought.
#[derive(Default)]
pub struct Raced {
    /// The first connection; `None` when no address is left.
    pub won: Option<Connection>,
    /// Those that failed before it, in the order they did; they are not dialled again.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

impl<'a> Race<'a> {
    /// Dials `addresses` in this order, each for at most `within`.
    pub fn new(dial: &'a dyn Dial, host: &'a str, addresses: Vec<SocketAddr>, within: Duration) -> Self {
        Self { dial, host, within, waiting: addresses.into() }
    }

    /// The next connection. To be asked again when its session failed.
    pub async fn next(&mut self) -> Raced {
        let mut raced = Raced::default();
        let mut dialling = FuturesUnordered::new();
        // In the order dialled: whoever is overtaken goes back to the front of those waiting.
        let mut under_way: Vec<SocketAddr> = Vec::new();
        loop {
            if let Some(to) = self.waiting.pop_front() {
                under_way.push(to);
                let dialled = self.dial.dial(to, self.host, self.within);
                dialling.push(async move { (to, dialled.await) });
            }
            if dialling.is_empty() {
                return raced;
            }
            let delay = tokio::time::sleep(ATTEMPT_DELAY);
            tokio::select! {
                biased;
                Some((to, result)) = dialling.next() => {
                    under_way.retain(|other| *other != to);
                    match result {
                        Ok(connection) => {
                            for overtaken in under_way.into_iter().rev() {
                                self.waiting.push_front(overtaken);
                            }
                            raced.won = Some(connection);
                            return raced;
                        }
                        // RFC 8305 §5: a failure need not be waited out.
                        Err(error) => raced.failed.push((to, error)),
                    }
                }
                () = delay, if !self.waiting.is_empty() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;
    use tokio::time::Instant;

    use super::*;

    /// What becomes of dialling an address.
    #[derive(Clone, Copy)]
    enum Fate {
        /// Connected after so many milliseconds.
        Answers(u64),
        /// Refused after so many milliseconds.
        Refuses(u64),
        /// Nothing until the time given is over.
        Hangs,
    }

    /// A network of addresses with fates; remembers when each was dialled.
    struct Net {
        fates: Vec<(SocketAddr, Fate)>,
        begun: Instant,
        dialled: Mutex<Vec<(SocketAddr, u128)>>,
    }

    impl Dial for Net {
        fn dial(&self, to: SocketAddr, _: &str, within: Duration) -> BoxFuture<'_, io::Result<Connection>> {
            Box::pin(async move {
                self.dialled.lock().unwrap().push((to, self.begun.elapsed().as_millis()));
                let fate = self.fates.iter().find(|(address, _)| *address == to).unwrap().1;
                match fate {
                    Fate::Answers(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        let stream = Box::new(tokio::io::duplex(1).0);
                        Ok(Connection { stream, local: None, remote: to, hostname: None })
                    }
                    Fate::Refuses(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    Fate::Hangs => {
                        tokio::time::sleep(within).await;
                        Err(io::ErrorKind::TimedOut.into())
                    }
                }
            })
        }
    }

    const SIX: &str = "[2001:db8::1]:25";
    const FOUR: &str = "192.0.2.1:25";
    const FOUR_B: &str = "192.0.2.2:25";

    fn net(fates: &[(&str, Fate)]) -> Net {
        let fates = fates.iter().map(|(to, fate)| (to.parse().unwrap(), *fate)).collect();
        Net { fates, begun: Instant::now(), dialled: Mutex::default() }
    }

    impl Net {
        fn race(&self) -> Race<'_> {
            let addresses = self.fates.iter().map(|(address, _)| *address).collect();
            Race::new(self, "mx.example.org", addresses, Duration::from_secs(30))
        }

        fn dialled(&self) -> Vec<(String, u128)> {
            self.dialled.lock().unwrap().iter().map(|(to, at)| (to.to_string(), *at)).collect()
        }
    }

    fn who(raced: &Raced) -> String {
        raced.won.as_ref().map_or("nobody".to_owned(), |connection| connection.remote.to_string())
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let ips = |text: &str| text.split(' ').map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (given, expected) in [
            ("::1 ::2 ::3 1.1.1.1 1.1.1.2", "::1 1.1.1.1 ::2 1.1.1.2 ::3"),
            ("1.1.1.1 1.1.1.2 ::1", "1.1.1.1 ::1 1.1.1.2"),
            ("1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2"),
        ] {
            assert_eq!(interleave(&ips(given)), ips(expected), "{given}");
        }
        assert!(interleave(&[]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_answers_sees_one_connection() {
        let net = net(&[(SIX, Fate::Answers(249)), (FOUR, Fate::Answers(0))]);
        assert_eq!(who(&net.race().next().await), SIX);
        assert_eq!(net.dialled().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_address_costs_a_quarter_of_a_second() {
        let net = net(&[(SIX, Fate::Hangs), (FOUR, Fate::Answers(10))]);
        let mut race = net.race();
        let raced = race.next().await;
        assert_eq!((who(&raced), raced.failed.len()), (FOUR.to_owned(), 0));
        assert_eq!(net.begun.elapsed().as_millis(), 260);
        // When the session on the winner fails, the overtaken one gets its time after all.
        let raced = race.next().await;
        assert_eq!((who(&raced), raced.failed.len()), ("nobody".to_owned(), 1));
        assert_eq!(raced.failed[0].1.kind(), io::ErrorKind::TimedOut);
        assert_eq!(who(&race.next().await), "nobody");
        assert_eq!(net.dialled().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_followed_at_once_and_counted_once() {
        let net = net(&[(SIX, Fate::Refuses(5)), (FOUR, Fate::Refuses(5)), (FOUR_B, Fate::Answers(5))]);
        let mut race = net.race();
        let raced = race.next().await;
        assert_eq!((who(&raced), raced.failed.len()), (FOUR_B.to_owned(), 2));
        assert_eq!(net.begun.elapsed().as_millis(), 15);
        assert_eq!(who(&race.next().await), "nobody");
        assert_eq!(net.dialled().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_dead_cost_little_more_than_one() {
        let net = net(&[(SIX, Fate::Hangs), (FOUR, Fate::Hangs), (FOUR_B, Fate::Hangs)]);
        let raced = net.race().next().await;
        assert_eq!((who(&raced), raced.failed.len()), ("nobody".to_owned(), 3));
        assert_eq!(net.begun.elapsed(), Duration::from_millis(30_500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_that_answer_is_used_whoever_began() {
        let net = net(&[(SIX, Fate::Answers(400)), (FOUR, Fate::Answers(100)), (FOUR_B, Fate::Answers(200))]);
        let mut race = net.race();
        assert_eq!(who(&race.next().await), FOUR);
        assert_eq!(who(&race.next().await), SIX, "it was before the one never dialled");
        assert_eq!(net.dialled().iter().map(|(_, at)| *at).collect::<Vec<_>>(), [0, 250, 350, 600]);
        assert_eq!(who(&race.next().await), FOUR_B);
    }
}
