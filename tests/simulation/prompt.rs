//! Whether mail went as soon as it could: judged when everything is over.

use crate::internet::GOOD;
use crate::sim::{Ask, Sim};

/// Mail that nothing stands against arrives within this time (ms).
const PROMPT: u64 = 90_000;
/// The same while questions about its policies, which do not matter, may hang, and others wait in line.
const PROMPT_UNASKED: u64 = 600_000;
/// What the relay knows is right again after a domain has been well for so long (ms): hosts that were
/// left alone, fetches and pauses that were put off, answers kept.
const SETTLED: u64 = 2_700_000;
/// After so long a message that waited has been tried again (ms): the longest wait of the schedule and
/// its jitter, and a clock set back.
const GOES: u64 = 6 * 3_600_000;

/// What was late, and how many recipients could be told of.
pub fn late(sim: &Sim) -> (Vec<String>, u64) {
    let (book, net) = (sim.book(), sim.net());
    let now = sim.time.now();
    let (mut late, mut timed) = (Vec::new(), 0);
    for (id, message) in book.messages.iter().enumerate() {
        let Some(acknowledged) = message.acknowledged else { continue };
        for recipient in &message.recipients {
            let Some(at) = net.zone_of(recipient) else { continue };
            let first = message.deliveries.iter().find(|delivery| delivery.recipient == *recipient);
            let silent = message.from_null || message.quiet;
            if first.is_none() && (silent || message.bounced.contains(recipient)) {
                continue;
            }
            let (spells, prompt) = match message.ask {
                Ask::Nothing => (&net.zones[at].well, PROMPT),
                Ask::NotRequired => (&net.zones[at].open, PROMPT_UNASKED),
                // Elsewhere nothing may vouch for the hosts.
                Ask::Required if at == GOOD => (&net.zones[at].well, PROMPT),
                Ask::Required => continue,
            };
            for (from, to) in spells.all(now) {
                let by = if from + SETTLED <= acknowledged {
                    acknowledged + prompt
                } else {
                    from.max(acknowledged) + GOES
                };
                let begun = acknowledged.max(from).saturating_sub(SETTLED);
                let dns =
                    || book.dns_troubles.iter().any(|(begin, end)| *begin <= by && *end + 900_000 >= begun);
                if by > to || book.disturbed(begun, by) || book.jumped(begun, by) || dns() {
                    continue;
                }
                timed += 1;
                if first.is_none_or(|first| first.at > by) {
                    late.push(format!(
                        "message {id} ({:?}) for {recipient} was late: acknowledged at {acknowledged} ms, nothing stood against it from {from} to {to} ms, delivered at {:?}",
                        message.ask,
                        first.map(|first| first.at)
                    ));
                }
                break;
            }
        }
    }
    (late, timed)
}
