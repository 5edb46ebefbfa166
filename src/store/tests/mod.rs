//! The queue as its callers see it, on good and bad disks.

mod boundary;
mod checks;
mod crash;
mod damage;
mod evidence;
mod formats;
mod full;
mod harm;
mod maps;
mod model;
mod moving;
mod operate;
mod readonly;
mod sim;
mod suppressions;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::disk::{Disk, RealDisk};
use super::evidence::Tried;
use super::ground::{Ground, Limits};
use super::queue::{Body, Claim, Filter, NewMessage, Queue, QueueError, QueueOptions};
use crate::mail::{
    BodyType, EnhancedStatus, Envelope, Failure, ForwardPath, Mailbox, Permanence, Recipient, Reply,
    ReversePath, Scope, TlsRequest,
};
use crate::queue::{
    AttemptRecord, EvidenceDraft, HostEvidence, ItemId, MessageEvidence, QueueId, RecipientState,
    RecipientStatus, Settled, Settlement,
};

pub(super) const LEASE: Duration = Duration::from_secs(600);
/// Small, so that a test sees segments come and go.
pub(super) const LIMITS: Limits =
    Limits { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Limits::DEFAULT };

/// On a disk of the test's own, with small limits.
pub(super) fn ground(disk: impl Disk, boot: &str) -> Ground {
    Ground { disk: Arc::new(disk), boot: boot.to_owned(), limits: LIMITS, ..Ground::machine() }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

pub(super) fn options(dir: &Path) -> QueueOptions {
    QueueOptions { data_dir: dir.to_owned(), node: 1 }
}

/// Opens with small limits; the boot decides whether the index may be used after a crash.
pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    boot: &str,
    dir: &Path,
) -> Result<(Queue, Vec<String>), QueueError> {
    let ground = Ground { disk, ..ground(RealDisk, boot) };
    Queue::open_over(&ground, &options(dir), at(0))
}

pub(super) fn open(dir: &Path) -> (Queue, Vec<String>) {
    open_on(Arc::new(RealDisk), "boot", dir).unwrap()
}

pub(super) fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse(&format!("<{sender}>")).unwrap(),
        recipients: recipients.iter().map(|to| Recipient::plain(ForwardPath::parse(to).unwrap())).collect(),
        body: BodyType::EightBitMime,
        smtputf8: false,
        ret: None,
        envid: Some("a+2Bb".to_owned()),
        tls: TlsRequest::None,
    }
}

pub(super) fn message(queue: &Queue, recipients: &[&str], body: &[u8]) -> NewMessage {
    NewMessage {
        id: queue.allocate_id(),
        envelope: envelope("from@example.org", recipients),
        body: Body::Memory(Bytes::copy_from_slice(body)),
        received_at: at(0),
        is_report: false,
        expires_at: None,
    }
}

pub(super) async fn content(queue: &Queue, id: QueueId) -> Vec<u8> {
    let mut reader = queue.body(id).await.unwrap().reader().await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

pub(super) async fn claim_one(queue: &Queue, now: Timestamp) -> Claim {
    let mut claims = queue.claim_due(now, 1, LEASE).await.unwrap();
    claims.pop().expect("something is due")
}

pub(super) async fn ids(queue: &Queue, filter: &Filter) -> Vec<ItemId> {
    let page = queue.list(filter, None, 1000).await.unwrap();
    assert_eq!(page.cursor, None);
    page.entries.iter().map(|entry| entry.item.id).collect()
}

pub(super) fn attempt(now: Timestamp, result: &str) -> AttemptRecord {
    AttemptRecord {
        at: now,
        host: Some("mx.example.net".to_owned()),
        address: Some(IpAddr::from([192, 0, 2, 1])),
        tls: None,
        verified: None,
        rule: "none".to_owned(),
        result: result.to_owned(),
    }
}

pub(super) fn failure(text: &str) -> Failure {
    Failure {
        scope: Scope::Host,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, 4, 1),
        text: text.to_owned(),
        host: None,
        reply: None,
        rule: None,
    }
}

/// All recipients delivered, or all pending until `again`.
pub(super) fn settlement(claim: &Claim, again: Option<Timestamp>) -> Settlement {
    let state = |_: &RecipientStatus| match again {
        Some(_) => RecipientState::Pending(Some(failure("no answer"))),
        None => RecipientState::Delivered(reply()),
    };
    let recipients: Vec<_> = claim
        .item
        .recipients
        .iter()
        .map(|status| RecipientStatus { index: status.index, state: state(status) })
        .collect();
    Settlement {
        newly_delivered: if again.is_none() { recipients.iter().map(|s| s.index).collect() } else { vec![] },
        recipients,
        settled: again.map_or(Settled::Done, Settled::Again),
        newly_failed: vec![],
        warn_delay: false,
    }
}

fn reply() -> Reply {
    Reply::new(250, EnhancedStatus::new(2, 0, 0), "queued")
}

pub(super) async fn deliver(queue: &Queue, claim: Claim, now: Timestamp) -> Result<(), QueueError> {
    let settlement = settlement(&claim, None);
    let tried = tried(&claim, now, "delivered");
    queue.settle(claim, &settlement, tried, vec![]).await
}

/// An attempt with its evidence.
pub(super) fn tried(claim: &Claim, now: Timestamp, result: &str) -> Tried {
    let host = HostEvidence { mx: Some("mx.example.net".to_owned()), ..HostEvidence::default() };
    let message = MessageEvidence {
        attempt: claim.item.attempts + 1,
        message_id: Some(format!("{}@example.org", claim.item.id)),
        destination: claim.item.destination.to_string(),
        ..MessageEvidence::default()
    };
    let draft = EvidenceDraft { at: now, item: claim.item.id, message, hosts: vec![host.render()] };
    Tried { record: attempt(now, result), evidence: Some(draft) }
}

pub(super) async fn defer(queue: &Queue, claim: Claim, until: Timestamp) -> Result<(), QueueError> {
    let settlement = settlement(&claim, Some(until));
    let now = claim.leased_until - SignedDuration::try_from(LEASE).unwrap();
    let tried = tried(&claim, now, "deferred");
    queue.settle(claim, &settlement, tried, vec![]).await
}
