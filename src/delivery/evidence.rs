//! What an attempt can prove of how a message travelled, gathered while it runs.
//!
//! Reads what was decided and seen and changes nothing: no delivery depends on it. A host's part is the
//! same for all messages on a connection, so it is made once and kept beside the connection; a
//! message's own part is a few octets. Called by `attempt` and `settle`.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;

use super::attempt::Attempted;
use super::conversation::{Conversation, TlsSeen};
use super::gather::StsState;
use super::static_route::{Hop, Target};
use crate::dane::{Tlsa, TlsaAnswer, x509};
use crate::mail::{Domain, Failure, Outcome, header};
use crate::net::tls::TlsFacts;
use crate::queue::evidence::{
    EvidenceDraft, HostEvidence, HostVerdict, MessageEvidence, OutcomeWord, PolicyEvidence,
    RecipientEvidence, RefusalEvidence, TlsEvidence, TlsaEvidence, plain_message_id, short,
};
use crate::queue::{QueueItem, Settlement};
use crate::route::DnssecStatus;
use crate::store::{Body, Queue};
use crate::sts::{Mode, StsPolicy};
use crate::tlspolicy::{HostFacts, Requirement, SkipReason, TlsPlan};

/// Octets of a message searched for its Message-ID; headers are rarely longer than 16 KB.
const HEADER_BYTES: usize = 32 << 10;

/// What is kept of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceOptions {
    /// `evidence.enabled`
    pub enabled: bool,
    /// `evidence.addresses`: senders' and recipients' too, not only the destination.
    pub addresses: bool,
}

impl Default for EvidenceOptions {
    fn default() -> Self {
        Self { enabled: true, addresses: true }
    }
}

/// What one attempt leaves behind, host by host.
#[derive(Debug, Default)]
pub struct Trail {
    /// Absent while nothing is to be kept.
    kept: Option<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    message_id: Option<String>,
    /// The static route, as texts name it.
    route: Option<String>,
    /// No MX record names the host: the operator does.
    without_mx: bool,
    sts: StsState,
    facts: Option<HostFacts>,
    hosts: Vec<Bytes>,
    /// Per outcome: which of `hosts` it is of.
    took: Vec<(usize, u16)>,
    refusals: Vec<RefusalEvidence>,
    carried_before: Option<u32>,
}

/// A host's part as rendered, and what it was rendered from.
#[derive(Debug)]
pub(super) struct Rendered {
    plan: TlsPlan,
    tlsa: Option<(TlsaAnswer, Domain)>,
    route: Option<String>,
    policy: Option<Arc<StsPolicy>>,
    fetched_at: Option<Timestamp>,
    id: Option<String>,
    bytes: Bytes,
}

impl Trail {
    /// Begins with the message, if evidence is kept.
    pub(super) async fn begin(options: &EvidenceOptions, body: &Body) -> Self {
        if !options.enabled {
            return Self::default();
        }
        let head = body.head(HEADER_BYTES).await.unwrap_or_default();
        let value = header::first(header::split(&head).0, "message-id");
        let message_id = value.map(|value| plain_message_id(&String::from_utf8_lossy(value)));
        Self { kept: Some(Kept { message_id, ..Kept::default() }) }
    }

    /// [`Trail::begin`] for an item that is settled without an attempt.
    pub(super) async fn of(queue: &Queue, item: &QueueItem, options: &EvidenceOptions) -> Self {
        match queue.body(item.id.queue_id).await {
            Ok(body) => Self::begin(options, &body).await,
            // No delivery depends on it.
            Err(_) => Self::default(),
        }
    }

    /// Where the message is handed over.
    pub(super) fn goes_by(&mut self, hop: &Hop) {
        if let Some(kept) = &mut self.kept {
            kept.route = hop.via.as_ref().map(ToString::to_string);
            kept.without_mx = matches!(hop.target, Target::Host(_));
        }
    }

    /// What MTA-STS said.
    pub(super) fn sts(&mut self, sts: &StsState) {
        if let Some(kept) = &mut self.kept {
            kept.sts = sts.clone();
        }
    }

    /// What was known of the host that comes next.
    pub(super) fn facts(&mut self, facts: HostFacts) {
        if let Some(kept) = &mut self.kept {
            kept.facts = Some(facts);
        }
    }

    /// A host that was left out.
    pub(super) fn skipped(&mut self, mx: &Domain, reason: &SkipReason) {
        let Some(kept) = &mut self.kept else { return };
        let host = HostEvidence {
            mx: Some(mx.to_string()),
            rule: reason.rule.to_string(),
            verdict: HostVerdict::Skipped,
            reason: Some(short(&reason.text)),
            ..kept.host()
        };
        kept.hosts.push(host.render());
    }

    /// A host that could not be used: no address, no connection, no TLS as demanded.
    pub(super) fn failed(
        &mut self,
        mx: &str,
        plan: &TlsPlan,
        conversation: Option<&Conversation>,
        reason: &str,
    ) {
        let Some(kept) = &mut self.kept else { return };
        let host = HostEvidence {
            verdict: HostVerdict::Failed,
            reason: Some(short(reason)),
            ..kept.planned(mx, plan, conversation)
        };
        kept.hosts.push(host.render());
    }

    /// A connection that carries the message, `before` of which it carried so many others.
    pub(super) fn carried(&mut self, mx: &str, plan: &TlsPlan, conversation: &mut Conversation, before: u32) {
        let Some(kept) = &mut self.kept else { return };
        kept.carried_before = Some(before);
        let known = conversation.evidence.as_ref().filter(|rendered| kept.is_of(rendered, plan));
        if let Some(rendered) = known {
            kept.hosts.push(rendered.bytes.clone());
            return;
        }
        let verdict = match plan.require {
            Requirement::Opportunistic => HostVerdict::Allowed,
            _ => HostVerdict::Met,
        };
        let reason = match &conversation.seen {
            TlsSeen::Clear(failure) | TlsSeen::Failed(failure) => Some(format!("in clear: {failure}")),
            TlsSeen::NotReached => Some("in clear: TLS had failed before".to_owned()),
            TlsSeen::Established(_) => None,
        };
        let host = HostEvidence { verdict, reason, ..kept.planned(mx, plan, Some(conversation)) };
        let bytes = host.render();
        kept.hosts.push(bytes.clone());
        conversation.evidence = Some(Box::new(Rendered {
            plan: plan.clone(),
            tlsa: kept.facts.as_ref().map(|facts| (facts.tlsa.clone(), facts.tlsa_base.clone())),
            route: kept.route.clone(),
            policy: kept.sts.policy.clone(),
            fetched_at: kept.sts.fetched_at,
            id: kept.sts.id.clone(),
            bytes,
        }));
    }

    /// These recipients were left by the host noted last to another one, or to another time.
    pub(super) fn refused(&mut self, failures: &[(usize, Failure)]) {
        if let (Some(kept), Some((_, first))) = (&mut self.kept, failures.first())
            && let Some(last) = kept.hosts.len().checked_sub(1)
        {
            let (host, recipients) = (last as u16, failures.len() as u32);
            kept.refusals.push(RefusalEvidence { host, recipients, text: short(&first.text) });
        }
    }

    /// These recipients' outcomes are of the host noted last.
    pub(super) fn took(&mut self, recipients: impl Iterator<Item = usize>) {
        if let Some(kept) = &mut self.kept
            && let Some(last) = kept.hosts.len().checked_sub(1)
        {
            kept.took.extend(recipients.map(|index| (index, last as u16)));
        }
    }
}

impl Kept {
    fn is_of(&self, rendered: &Rendered, plan: &TlsPlan) -> bool {
        let tlsa = self.facts.as_ref().map(|facts| (&facts.tlsa, &facts.tlsa_base));
        let policy = match (&rendered.policy, &self.sts.policy) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (one, other) => one.is_none() && other.is_none(),
        };
        policy
            && rendered.route == self.route
            && rendered.fetched_at == self.sts.fetched_at
            && rendered.id == self.sts.id
            && rendered.tlsa.as_ref().map(|(answer, base)| (answer, base)) == tlsa
            && rendered.plan == *plan
    }

    /// What is known before a host is connected to.
    fn host(&self) -> HostEvidence {
        let by_mx = self.facts.as_ref().filter(|_| !self.without_mx);
        let mx_dnssec = by_mx.map(|facts| dnssec_word(facts.mx_status).to_owned());
        let route = self.route.clone();
        let tlsa = self.facts.as_ref().map(|facts| tlsa(&facts.tlsa, &facts.tlsa_base));
        HostEvidence { route, mx_dnssec, policy: policy(&self.sts), tlsa, ..HostEvidence::default() }
    }

    fn planned(&self, mx: &str, plan: &TlsPlan, conversation: Option<&Conversation>) -> HostEvidence {
        let (requirement, names) = demanded(&plan.require);
        let mut host = HostEvidence {
            mx: Some(mx.to_owned()),
            rule: plan.rule.to_string(),
            requirement: Some(requirement.to_owned()),
            names,
            ..self.host()
        };
        let Some(conversation) = conversation else { return host };
        host.address = Some(conversation.remote.ip());
        host.local_address = conversation.local;
        host.helo = conversation.server_name().map(short);
        if let TlsSeen::Established(facts) = &conversation.seen {
            host.tls = Some(tls(facts));
            if let Some(tlsa) = &mut host.tlsa {
                tlsa.matched = matched(facts, &plan.require);
            }
        }
        host
    }
}

/// The attempt for the store, once its outcomes are settled.
pub(super) fn draft(
    item: &QueueItem,
    attempted: &mut Attempted,
    settlement: &Settlement,
    options: &EvidenceOptions,
    at: Timestamp,
) -> Option<EvidenceDraft> {
    let kept = attempted.trail.kept.take()?;
    let envelope = &item.envelope;
    let recipients = attempted.outcomes.iter().map(|(index, outcome)| {
        let host = kept.took.iter().rev().find(|(whose, _)| whose == index).map(|(_, host)| *host);
        let to = envelope.recipients.get(*index).map(|recipient| recipient.path.to_string());
        let given_up = settlement.newly_failed.contains(index);
        recipient(outcome, given_up, to.filter(|_| options.addresses), host)
    });
    let sender = envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default();
    let message = MessageEvidence {
        attempt: item.attempts.saturating_add(1),
        message_id: kept.message_id,
        sender: options.addresses.then_some(sender),
        destination: item.destination.to_string(),
        recipients: recipients.collect(),
        refusals: kept.refusals,
        carried_before: kept.carried_before,
    };
    Some(EvidenceDraft { at, item: item.id, message, hosts: kept.hosts })
}

fn recipient(outcome: &Outcome, given_up: bool, to: Option<String>, host: Option<u16>) -> RecipientEvidence {
    let (word, status, reply, text) = match outcome {
        Outcome::Delivered(reply) => (OutcomeWord::Delivered, None, Some(reply), short(&reply.to_string())),
        Outcome::Deferred(failure) if !given_up => {
            (OutcomeWord::Deferred, Some(failure.status), failure.reply.as_ref(), short(&failure.text))
        }
        Outcome::Deferred(failure) | Outcome::Failed(failure) => {
            (OutcomeWord::Failed, Some(failure.status), failure.reply.as_ref(), short(&failure.text))
        }
    };
    let status = status.or_else(|| reply.and_then(|reply| reply.enhanced));
    RecipientEvidence { to, outcome: word, status, code: reply.map(|reply| reply.code), text, host }
}

fn policy(sts: &StsState) -> Option<PolicyEvidence> {
    let policy = sts.policy.as_ref()?;
    Some(PolicyEvidence {
        id: sts.id.clone(),
        mode: match policy.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        }
        .to_owned(),
        sha256: sha256(policy.text().as_bytes()),
        fetched_at: sts.fetched_at,
        max_age: policy.max_age,
    })
}

fn tlsa(answer: &TlsaAnswer, base: &Domain) -> TlsaEvidence {
    let (status, records) = match answer {
        TlsaAnswer::Secure(records) => ("secure".to_owned(), records.as_slice()),
        TlsaAnswer::Absent => ("absent".to_owned(), &[][..]),
        TlsaAnswer::Insecure => ("insecure".to_owned(), &[][..]),
        TlsaAnswer::Failed(why) => (short(&format!("lookup failed: {why}")), &[][..]),
    };
    let mut records: Vec<String> = records.iter().map(Tlsa::to_string).collect();
    // Resolvers shuffle a record set; it is one set all the same.
    records.sort_unstable();
    TlsaEvidence { status, base: base.to_string(), records, matched: None }
}

fn demanded(require: &Requirement) -> (&'static str, Vec<String>) {
    // RFC 7672 §3.1.1: names do not count for usage 3.
    let for_usage_2 = |records: &[Tlsa], names: &[Domain]| -> Vec<String> {
        let counts = records.iter().any(|record| record.usage == 2);
        names.iter().filter(|_| counts).map(Domain::to_string).collect()
    };
    match require {
        Requirement::Dane { records, names } => ("dane", for_usage_2(records, names)),
        Requirement::DaneAndPkix { records, names, name } => {
            let mut names = for_usage_2(records, names);
            if !names.contains(&name.to_string()) {
                names.push(name.to_string());
            }
            ("dane and pkix", names)
        }
        Requirement::Encrypt => ("encrypt", Vec::new()),
        Requirement::Pkix { name } => ("pkix", vec![name.to_string()]),
        Requirement::Opportunistic => ("opportunistic", Vec::new()),
    }
}

/// The first record that the session meets by itself.
fn matched(facts: &TlsFacts, require: &Requirement) -> Option<String> {
    let (Requirement::Dane { records, names } | Requirement::DaneAndPkix { records, names, .. }) = require
    else {
        return None;
    };
    let meets = |record: &&Tlsa| {
        let alone = Requirement::Dane { records: vec![(*record).clone()], names: names.clone() };
        facts.verify(&alone).is_ok()
    };
    records.iter().find(meets).map(Tlsa::to_string)
}

fn tls(facts: &TlsFacts) -> TlsEvidence {
    let leaf = facts.chain.first();
    let told = leaf.and_then(|leaf| x509::told(leaf));
    let names = leaf.map(|leaf| x509::dns_names(leaf)).unwrap_or_default();
    let matched = names.into_iter().find(|name| covers(name, facts.name.as_str()));
    TlsEvidence {
        version: facts.version.to_owned(),
        cipher: facts.cipher.clone(),
        group: facts.group.map(str::to_owned),
        chain_sha256: facts.chain_sha256.clone(),
        spki_sha256: leaf.and_then(|leaf| x509::public_key(leaf)).map(|key| sha256(key.der)),
        not_after: told.as_ref().and_then(|told| told.not_after),
        issuer: told.and_then(|told| told.issuer).map(|issuer| short(&issuer)),
        pkix: match &facts.pkix {
            Ok(()) => "valid".to_owned(),
            Err(failure) => short(&failure.to_string()),
        },
        resumed: facts.resumed,
        name_matched: matched.map(|name| short(&name)),
    }
}

/// RFC 6125 §6.4.3 as webpki does it: a wildcard is the whole left-most label.
fn covers(presented: &str, name: &str) -> bool {
    match presented.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => presented.eq_ignore_ascii_case(name),
    }
}

fn dnssec_word(status: DnssecStatus) -> &'static str {
    match status {
        DnssecStatus::Secure => "secure",
        DnssecStatus::Insecure => "insecure",
        DnssecStatus::Bogus => "bogus",
        DnssecStatus::Indeterminate => "indeterminate",
    }
}

fn sha256(bytes: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, bytes);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presented_name_covers_one_label_at_most() {
        assert!(covers("MX1.example.org", "mx1.example.org"));
        assert!(covers("*.example.org", "mx1.example.org"));
        assert!(!covers("*.example.org", "a.mx1.example.org"));
        assert!(!covers("*.example.org", "example.org"));
    }
}
