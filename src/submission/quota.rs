//! How much a user, or a client of a trusted network, submits within an hour, and over how many
//! connections.
//!
//! Pure but for a lock: takes `now`, a monotonic instant, so that a clock that is set does not matter. Never
//! more than the limit within any 60 minutes; what is refused is refused for now (4xx), never lost. What a
//! transaction wants is reserved, so that parallel ones cannot overdraw, and given back if it comes to
//! nothing. Nothing is kept over a restart. Called by `session` and `serve`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::senders::Senders;

/// What is counted together.
const SLOT: Duration = Duration::from_secs(300);
/// An hour, and the slot that has just begun.
const SLOTS: usize = 13;
/// Accounts at most: some 4 MB. Beyond, who has used the least is forgotten.
const ACCOUNTS_MAX: usize = 10_000;

/// What one user, or one client without a login, may do. Zero is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Messages within an hour.
    pub messages_per_hour: u32,
    /// Recipients within an hour.
    pub recipients_per_hour: u32,
    /// Octets of a message, where that is less than others may.
    pub message_size: u64,
    /// Connections at a time.
    pub connections: u32,
    /// Senders in MAIL.
    pub senders: Senders,
    /// The From field is held to `senders` too.
    pub check_from: bool,
}

/// The rules of all users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Of users without one of their own.
    pub default: Rule,
    /// By name, as [`Rules::insert`] has put them.
    users: HashMap<String, Rule>,
}

impl Rules {
    /// The same for everybody.
    pub fn new(default: Rule) -> Self {
        Self { default, users: HashMap::new() }
    }

    /// One user's own.
    pub fn insert(&mut self, name: &str, rule: Rule) {
        self.users.insert(super::users::book::key(name), rule);
    }

    /// The one that holds for a user.
    pub(super) fn of(&self, name: &str) -> &Rule {
        self.users.get(&super::users::book::key(name)).unwrap_or(&self.default)
    }
}

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    /// Who has logged in, or shown a certificate.
    User(String),
    /// A network (see [`super::serve::peer_key`]) on a listener.
    Network(String, IpAddr),
    /// A listener, all clients together.
    Listener(String),
}

/// What was asked for is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    /// What is limited: `messages` or `recipients`.
    pub(super) what: &'static str,
    pub(super) limit: u32,
    /// When to ask again.
    pub(super) wait: Duration,
}

/// The accounts. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(super) struct Quotas(Arc<Table>);

#[derive(Debug)]
struct Table {
    /// Slots are counted from here.
    since: Instant,
    accounts: Mutex<HashMap<Whom, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    messages: Counter,
    recipients: Counter,
    connections: u32,
}

/// One kind of thing.
#[derive(Debug, Default)]
struct Counter {
    /// Done, by slot; the last one is `slot`.
    done: [u32; SLOTS],
    slot: u64,
    /// Reserved.
    pending: u32,
}

impl Counter {
    fn turn(&mut self, slot: u64) {
        let passed = usize::try_from(slot.saturating_sub(self.slot)).unwrap_or(SLOTS).min(SLOTS);
        self.done.rotate_left(passed % SLOTS);
        self.done[SLOTS - passed..].fill(0);
        self.slot = self.slot.max(slot);
    }

    fn total(&self) -> u32 {
        self.done.iter().fold(self.pending, |sum, done| sum.saturating_add(*done))
    }

    /// In how many slots there is room again, the one that has begun included.
    fn room_in(&self) -> u32 {
        let oldest = self.done.iter().position(|done| *done > 0);
        // Only reserved: soon it is done or given back.
        oldest.map_or(1, |oldest| u32::try_from(oldest + 1).unwrap_or(1))
    }
}

impl Account {
    fn is_idle(&self) -> bool {
        self.connections == 0 && self.messages.pending == 0 && self.recipients.pending == 0
    }
}

impl Quotas {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Table { since: now, accounts: Mutex::default() }))
    }

    /// Reserves one message.
    pub(super) fn message(&self, whom: Whom, rule: &Rule, now: Instant) -> Result<Reservation, Over> {
        let mut reservation = Reservation {
            quotas: self.clone(),
            whom,
            recipients_max: rule.recipients_per_hour,
            messages: 0,
            recipients: 0,
        };
        if rule.messages_per_hour > 0 || rule.recipients_per_hour > 0 {
            self.reserve(&reservation.whom, Kind::Messages, rule.messages_per_hour, now)?;
            reservation.messages = 1;
        }
        Ok(reservation)
    }

    /// Takes one of so many connections (0 for any number).
    pub(super) fn connection(&self, whom: Whom, max: u32, now: Instant) -> Option<Connection> {
        let mut accounts = self.lock();
        let account = account(&mut accounts, &whom, self.slot(now));
        if max > 0 && account.connections >= max {
            return None;
        }
        account.connections += 1;
        Some(Connection { quotas: self.clone(), whom })
    }

    fn reserve(&self, whom: &Whom, kind: Kind, limit: u32, now: Instant) -> Result<(), Over> {
        let slot = self.slot(now);
        let mut accounts = self.lock();
        let counter = kind.of(account(&mut accounts, whom, slot));
        counter.turn(slot);
        if limit > 0 && counter.total() >= limit {
            let ends = self.0.since + SLOT * u32::try_from(slot).unwrap_or(u32::MAX - 2 * SLOTS as u32);
            let wait = (ends + SLOT * counter.room_in()).saturating_duration_since(now);
            return Err(Over { what: kind.name(), limit, wait });
        }
        counter.pending += 1;
        Ok(())
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0.since).as_secs() / SLOT.as_secs()
    }

    /// Valid after a panic elsewhere: plain numbers.
    fn lock(&self) -> MutexGuard<'_, HashMap<Whom, Account>> {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An account; room is made for a new one.
fn account<'a>(accounts: &'a mut HashMap<Whom, Account>, whom: &Whom, slot: u64) -> &'a mut Account {
    if !accounts.contains_key(whom) && accounts.len() >= ACCOUNTS_MAX {
        accounts.retain(|_, account| {
            account.messages.turn(slot);
            account.recipients.turn(slot);
            !account.is_idle() || account.messages.total() > 0 || account.recipients.total() > 0
        });
        let idle = accounts.iter().filter(|(_, account)| account.is_idle());
        let least = idle.min_by_key(|(_, account)| account.recipients.total()).map(|(whom, _)| whom.clone());
        if let Some(least) = least.filter(|_| accounts.len() >= ACCOUNTS_MAX) {
            accounts.remove(&least);
        }
    }
    accounts.entry(whom.clone()).or_default()
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Messages,
    Recipients,
}

impl Kind {
    fn of(self, account: &mut Account) -> &mut Counter {
        match self {
            Self::Messages => &mut account.messages,
            Self::Recipients => &mut account.recipients,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

/// What a transaction may use; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    quotas: Quotas,
    whom: Whom,
    recipients_max: u32,
    messages: u32,
    recipients: u32,
}

impl Reservation {
    /// Reserves one recipient more.
    pub(super) fn recipient(&mut self, now: Instant) -> Result<(), Over> {
        if self.recipients_max > 0 {
            self.quotas.reserve(&self.whom, Kind::Recipients, self.recipients_max, now)?;
            self.recipients += 1;
        }
        Ok(())
    }

    /// The message is accepted.
    pub(super) fn spend(mut self, now: Instant) {
        self.settle(Some(self.quotas.slot(now)));
    }

    /// Ends the reservation; what was done counts in this slot.
    fn settle(&mut self, done: Option<u64>) {
        let amounts = [(Kind::Messages, self.messages), (Kind::Recipients, self.recipients)];
        (self.messages, self.recipients) = (0, 0);
        if amounts.iter().all(|(_, amount)| *amount == 0) {
            return;
        }
        let mut accounts = self.quotas.lock();
        // Never taken away while something is reserved.
        let Some(account) = accounts.get_mut(&self.whom) else { return };
        for (kind, amount) in amounts {
            let counter = kind.of(account);
            counter.pending = counter.pending.saturating_sub(amount);
            if let Some(slot) = done {
                counter.turn(slot);
                let last = &mut counter.done[SLOTS - 1];
                *last = last.saturating_add(amount);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(None);
    }
}

/// A connection that counts, until dropped.
#[derive(Debug)]
pub(super) struct Connection {
    quotas: Quotas,
    whom: Whom,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut accounts = self.quotas.lock();
        if let Some(account) = accounts.get_mut(&self.whom) {
            account.connections = account.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn user(name: &str) -> Whom {
        Whom::User(name.to_owned())
    }

    fn rule(messages: u32, recipients: u32) -> Rule {
        Rule { messages_per_hour: messages, recipients_per_hour: recipients, ..Rule::default() }
    }

    #[test]
    fn never_more_than_the_limit_within_an_hour_and_again_after_it() {
        let start = Instant::now();
        let quotas = Quotas::new(start);
        let rule = rule(10, 0);
        // A message a minute, for five hours: what was taken when.
        let mut taken: Vec<u32> = Vec::new();
        for minute in 0..300 {
            if let Ok(message) = quotas.message(user("a"), &rule, start + MINUTE * minute) {
                message.spend(start + MINUTE * minute);
                taken.push(minute);
            }
        }
        for window in 0..300 {
            let within = taken.iter().filter(|minute| (window..window + 60).contains(*minute)).count();
            assert!(within <= 10, "{within} from minute {window}");
        }
        assert!(taken.len() >= 40, "{taken:?}");
        assert!(quotas.message(user("b"), &rule, start).is_ok(), "others have their own");
    }

    #[test]
    fn the_wait_that_is_told_is_long_enough() {
        let start = Instant::now();
        let quotas = Quotas::new(start);
        let now = start + MINUTE * 7;
        for _ in 0..3 {
            quotas.message(user("a"), &rule(3, 0), now).unwrap().spend(now);
        }
        let over = quotas.message(user("a"), &rule(3, 0), now).unwrap_err();
        assert_eq!((over.what, over.limit, over.wait), ("messages", 3, MINUTE * 63));
        let just_before = now + over.wait - Duration::from_secs(1);
        assert!(quotas.message(user("a"), &rule(3, 0), just_before).is_err());
        assert!(quotas.message(user("a"), &rule(3, 0), now + over.wait).is_ok());
    }

    #[test]
    fn what_is_reserved_counts_and_what_comes_to_nothing_is_given_back() {
        let now = Instant::now();
        let quotas = Quotas::new(now);
        let rule = rule(2, 3);
        let mut one = quotas.message(user("a"), &rule, now).unwrap();
        let mut two = quotas.message(user("a"), &rule, now).unwrap();
        assert!(quotas.message(user("a"), &rule, now).is_err());
        assert!(one.recipient(now).is_ok() && one.recipient(now).is_ok() && two.recipient(now).is_ok());
        assert_eq!(two.recipient(now).unwrap_err().what, "recipients");
        drop(one);
        assert!(two.recipient(now).is_ok());
        two.spend(now);
        let mut three = quotas.message(user("a"), &rule, now).unwrap();
        assert!(three.recipient(now).is_ok() && three.recipient(now).is_err());
    }

    #[test]
    fn an_instant_before_the_last_changes_nothing() {
        let start = Instant::now();
        let quotas = Quotas::new(start + MINUTE * 60);
        quotas.message(user("a"), &rule(1, 0), start + MINUTE * 90).unwrap().spend(start + MINUTE * 90);
        assert!(quotas.message(user("a"), &rule(1, 0), start).is_err());
        assert!(quotas.message(user("a"), &rule(1, 0), start + MINUTE * 155).is_ok());
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let now = Instant::now();
        let quotas = Quotas::new(now);
        let first = quotas.connection(user("a"), 2, now).unwrap();
        let _second = quotas.connection(user("a"), 2, now).unwrap();
        assert!(quotas.connection(user("a"), 2, now).is_none());
        assert!(quotas.connection(user("b"), 2, now).is_some());
        assert!(quotas.connection(user("a"), 0, now).is_some(), "zero is no limit");
        drop(first);
        assert!(quotas.connection(user("a"), 2, now).is_some());
    }

    #[test]
    fn accounts_are_bounded_and_those_in_use_stay() {
        let now = Instant::now();
        let quotas = Quotas::new(now);
        let held = quotas.connection(user("held"), 1, now).unwrap();
        for _ in 0..5 {
            let mut much = quotas.message(user("much"), &rule(5, 5), now).unwrap();
            much.recipient(now).unwrap();
            much.spend(now);
        }
        for n in 0..ACCOUNTS_MAX + 10 {
            let mut message = quotas.message(user(&n.to_string()), &rule(5, 5), now).unwrap();
            message.recipient(now).unwrap();
            message.spend(now);
        }
        assert!(quotas.lock().len() <= ACCOUNTS_MAX);
        assert!(quotas.connection(user("held"), 1, now).is_none());
        assert!(quotas.message(user("much"), &rule(5, 5), now).is_err());
        drop(held);
    }
}
