//! What must stay within limits: connections as their hosts see them, and what the relay keeps.

use std::collections::BTreeSet;

use stsrelay::mail::ReversePath;
use stsrelay::queue::RecipientState;
use stsrelay::store::{Filter, Policies, Queue, Results};

use crate::internet::{HOME, TRAP};
use crate::sim::Sim;
use crate::verdict::{REPORTER, id_of};

/// As configured in `house`.
pub const PER_HOST: u32 = 8;
pub const POOLED_PER_HOST: u32 = 3;
pub const MESSAGES_PER_CONNECTION: usize = 6;
pub const IDLE_SECONDS: u64 = 20;
pub const AGE_SECONDS: u64 = 300;
/// Idle connections are looked through every few seconds, and replies take a while (ms).
const SLACK: u64 = 30_000;
/// Results of today, of a week, and of what is still being reported.
const DAYS_MAX: usize = 12;
/// More items than the simulation ever has waiting.
const LISTED_MAX: usize = 1000;

/// A connection's life, as its host sees it.
pub struct Connection {
    opened: u64,
    answered: u64,
    /// How long it had been idle when its transaction began (ms).
    idle: u64,
    messages: BTreeSet<usize>,
}

impl Connection {
    pub fn opened(sim: &Sim, host: usize) -> Self {
        let now = sim.time.now();
        let open = {
            let mut net = sim.net();
            net.hosts[host].open += 1;
            net.hosts[host].open
        };
        // Those being closed and a second try in clear come on top.
        if open > 2 * PER_HOST + POOLED_PER_HOST {
            sim.violation(format_args!("host {host} has {open} connections open"));
        }
        Self { opened: now, answered: now, idle: 0, messages: BTreeSet::new() }
    }

    pub fn closed(&self, sim: &Sim, host: usize) {
        sim.net().hosts[host].open -= 1;
    }

    pub fn answered(&mut self, sim: &Sim) {
        self.answered = sim.time.now();
    }

    /// MAIL has been said.
    pub fn begun(&mut self, sim: &Sim) {
        self.idle = sim.time.now() - self.answered;
    }

    /// A message has begun on it.
    pub fn used(&mut self, sim: &Sim, host: usize, path: &str) {
        let now = sim.time.now();
        let Some(id) = id_of(path) else { return };
        let fresh = self.messages.insert(id);
        if !fresh || self.messages.len() == 1 || sim.is_dead() {
            return;
        }
        let (idle, age) = (self.idle, now - self.opened);
        let wrong = [
            (idle > IDLE_SECONDS * 1000 + SLACK, format!("an idle time of {idle} ms")),
            (age > AGE_SECONDS * 1000 + SLACK, format!("an age of {age} ms")),
            (self.messages.len() > MESSAGES_PER_CONNECTION, format!("{} messages", self.messages.len())),
        ];
        for (_, what) in wrong.iter().filter(|(wrong, _)| *wrong) {
            sim.violation(format_args!("a connection to host {host} was used again after {what}"));
        }
    }
}

/// Looks into the running relay: nothing acknowledged is missing (I1, I2), nobody is written to in
/// nobody's name (I3), and what is kept is bounded.
pub async fn look(sim: &Sim, queue: &Queue, policies: &Policies, results: &Results) {
    if sim.is_dead() {
        return;
    }
    let page = match queue.list(&Filter::default(), None, LISTED_MAX).await {
        Ok(page) => page,
        Err(error) => return sim.note(format_args!("the queue is not listed: {error}")),
    };
    let mut wrong = Vec::new();
    let (mut waiting, mut told) = (BTreeSet::new(), BTreeSet::new());
    let home = sim.net().zones[HOME].name.to_string();
    let trap = sim.net().zones[TRAP].name.to_string();
    for entry in &page.entries {
        let item = &entry.item;
        let null = matches!(item.envelope.reverse_path, ReversePath::Null);
        for status in &item.recipients {
            let Some(recipient) = item.envelope.recipients.get(status.index) else { continue };
            let path = recipient.path.to_string();
            let domain = path.rsplit('@').next().unwrap_or_default();
            let id = id_of(&path);
            let notice = path.starts_with("s.") && domain == home;
            let book = sim.book();
            let message = id.and_then(|id| book.messages.get(id));
            let silent = message.is_none_or(|message| message.from_null || message.quiet);
            if null && notice && silent {
                wrong.push(format!("I3: {} tells <{path}>, who is not to be told", item.id));
            }
            let known = message.is_some_and(|message| message.recipients.contains(&path));
            let report = item.envelope.reverse_path.to_string().contains(REPORTER);
            if domain == trap || !(known || notice && null || report) {
                wrong.push(format!("I3: {} is for <{path}>, whom nobody wrote to", item.id));
            }
            if matches!(status.state, RecipientState::Pending(_)) {
                if notice {
                    told.extend(id);
                }
                waiting.insert(path);
            }
        }
    }
    let stats = queue.stats();
    let listed = page.entries.len() as u64;
    if page.cursor.is_none() && listed != stats.active + stats.deferred {
        wrong.push(format!("{listed} items are listed, {} counted", stats.active + stats.deferred));
    }
    let whole = page.cursor.is_none();
    let (days, kept, zones) = (results.days().len(), policies.list().len(), sim.net().zones.len());
    if days > DAYS_MAX {
        wrong.push(format!("results of {days} days are kept"));
    }
    if kept > zones {
        wrong.push(format!("{kept} policies of {zones} domains are kept"));
    }
    {
        let mut book = sim.book();
        let mut settled = Vec::new();
        for id in book.unsettled.iter().filter(|_| whole) {
            let message = &book.messages[*id];
            let done = |recipient: &&String| {
                message.bounced.contains(recipient)
                    || message.deliveries.iter().any(|delivery| delivery.recipient == **recipient)
            };
            let left: Vec<&String> = message.recipients.iter().filter(|recipient| !done(recipient)).collect();
            if left.is_empty() {
                settled.push(*id);
                continue;
            }
            // Nobody hears of their failures.
            if message.from_null || message.quiet || told.contains(id) {
                continue;
            }
            if let Some(lost) = left.iter().find(|recipient| !waiting.contains(recipient.as_str())) {
                wrong.push(format!(
                    "I1, I2: message {id} for {lost} is neither delivered nor bounced nor in the queue"
                ));
                settled.push(*id);
            }
        }
        book.unsettled.retain(|id| !settled.contains(id));
    }
    wrong.into_iter().for_each(|text| sim.violation(text));
}
