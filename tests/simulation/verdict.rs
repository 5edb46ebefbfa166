//! What must hold of messages and notices, judged by MX hosts and senders; `held` judges what policies
//! forbid, `tally` the reports, `prompt` what was late, `bounds` what is kept.

use crate::internet::TRAP;
use crate::mx::Peer;
use crate::senders::CONTENT;
use crate::sim::{Ask, Delivery, Sim};
use crate::{prompt, tally};

/// The reverse-path of the relay's own reports.
pub const REPORTER: &str = "tlsrpt@relay.example";

/// What is being written down this long before a crash may be lost (ms).
const WRITING: u64 = 10_000;
/// An attempt is settled as a whole: its first recipient may have been delivered so long before (ms).
const ATTEMPT: u64 = 3_600_000;
/// The number of the message that a mailbox was made for: of a recipient (`u0.7@`), or the sender
/// (`s.7@`).
pub fn id_of(mailbox: &str) -> Option<usize> {
    mailbox.split('@').next()?.rsplit_once('.')?.1.parse().ok()
}

/// A message has arrived at a host.
pub fn arrived(sim: &Sim, peer: &Peer, from: &str, recipients: &[String], content: &[u8], heard: bool) {
    let text = String::from_utf8_lossy(content);
    let (host, now) = (sim.net().hosts[peer.host].name.clone(), sim.time.now());
    if from == REPORTER {
        sim.book().counts.report_mails += 1;
        return sim.note(format_args!("{host} takes a report for {recipients:?}"));
    }
    if recipients.iter().any(|recipient| sim.net().zone_of(recipient) == Some(TRAP)) {
        sim.violation(format_args!("mail from <{from}> for {recipients:?}, to whom nobody writes:\n{text}"));
    }
    let id = text.lines().find_map(|line| line.strip_prefix("X-Sim-Id: ")?.parse::<usize>().ok());
    if from.is_empty() && text.contains("multipart/report") {
        return notice(sim, &text, id, recipients);
    }
    let Some(id) = id else {
        return sim.violation(format_args!("{host} got a message that nobody sent, from <{from}>"));
    };
    let shown = peer.shown.is_some();
    sim.note(format_args!("{host} takes {id} for {recipients:?} tls={shown} heard={heard}"));
    let mut book = sim.book();
    for recipient in recipients {
        book.counts.deliveries += 1;
        let message = &book.messages[id];
        let wrong = if !message.recipients.contains(recipient) {
            Some(format!("message {id} went to {recipient}, whom nobody named"))
        } else {
            let twice = |delivery: &&Delivery| delivery.recipient == *recipient;
            match message.deliveries.iter().rev().find(twice) {
                None => None,
                Some(earlier) => {
                    let allowed = !earlier.heard || book.disturbed(earlier.at, earlier.at + ATTEMPT);
                    book.counts.duplicates += 1;
                    (!allowed).then(|| {
                        format!("I9: message {id} went to {recipient} twice, though its host had said 250")
                    })
                }
            }
        };
        let delivery = Delivery { recipient: recipient.clone(), at: now, heard };
        book.messages[id].deliveries.push(delivery);
        if let Some(wrong) = wrong {
            drop(book);
            sim.violation(wrong);
            book = sim.book();
        }
    }
}

/// A bounce or delay warning has arrived at the sender's host.
fn notice(sim: &Sim, text: &str, id: Option<usize>, recipients: &[String]) {
    let Some(id) = id else {
        return sim
            .violation(format_args!("a notice for {recipients:?} does not say of which message:\n{text}"));
    };
    let (mut last, mut failed) = (String::new(), Vec::new());
    let mut warned = 0;
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("Final-Recipient:") {
            last = address.rsplit(';').next().unwrap_or_default().trim().to_owned();
        } else if let Some(action) = line.strip_prefix("Action:") {
            match action.trim() {
                "failed" => failed.push(last.clone()),
                "delayed" => warned = 1,
                _ => {}
            }
        }
    }
    sim.note(format_args!("notice about {id} arrives: failed {failed:?}, delayed {warned}"));
    let mut wrong = Vec::new();
    {
        let mut book = sim.book();
        book.counts.bounces += u64::from(!failed.is_empty());
        let message = &mut book.messages[id];
        message.warned += warned;
        if message.from_null {
            wrong.push(format!("I3: the null reverse-path of message {id} got a notice"));
        }
        if message.ask == Ask::Required && text.contains(CONTENT) {
            wrong.push(format!("a notice gives away what message {id} says, which requires TLS"));
        }
        if message.quiet {
            wrong.push(format!("NOTIFY=NEVER, but message {id} got a notice"));
        }
        if text.matches("Auto-Submitted:").count() > 1 {
            wrong.push(format!("I3: a notice about a notice, {id}"));
        }
        for recipient in failed {
            if !message.recipients.contains(&recipient) {
                wrong.push(format!("a bounce of {id} names {recipient}, whom nobody named"));
            }
            message.bounced.push(recipient);
        }
    }
    wrong.into_iter().for_each(|text| sim.violation(text));
}

/// The process has ended at this time without being asked: what it was just writing may be lost, and
/// all it was told while its disk was in trouble.
pub fn forget_untold(sim: &Sim) {
    let now = sim.time.now();
    let trouble = sim.book().troubles.last().map(|(from, _)| *from);
    let mut net = sim.net();
    for zone in &mut net.zones {
        let lost = zone
            .told
            .iter()
            .any(|told| told.at + WRITING >= now || trouble.is_some_and(|from| told.at >= from));
        if lost {
            zone.told.push(crate::internet::Told { at: now, policy: None, jumped: 0 });
        }
    }
}

/// When everything is over: nothing that was acknowledged is missing, and nothing was late.
pub fn final_judgement(sim: &Sim, left: usize) {
    let mut wrong = Vec::new();
    {
        let book = sim.book();
        for (id, message) in book.messages.iter().enumerate() {
            let Some(acknowledged) = message.acknowledged else { continue };
            for recipient in &message.recipients {
                let first = message.deliveries.iter().find(|delivery| delivery.recipient == *recipient);
                let told = message.bounced.contains(recipient);
                let silent = message.from_null || message.quiet;
                if first.is_none() && !told && !silent {
                    wrong.push(format!("I1: message {id} for {recipient} was acknowledged at {acknowledged} ms and is lost ({left} items left)"));
                }
            }
        }
    }
    let (late, timed) = prompt::late(sim);
    sim.book().counts.timed += timed;
    wrong.extend(late);
    wrong.extend(tally::missing(sim));
    wrong.into_iter().for_each(|text| sim.violation(text));
}
