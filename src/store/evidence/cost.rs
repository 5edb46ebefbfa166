//! What evidence costs, printed: octets and time per attempt, and looking one of a million up.
//!
//! `cargo test --release --lib evidence::cost -- --ignored --nocapture`

use std::fs;
use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::mail::EnhancedStatus;
use crate::queue::evidence::{
    HostEvidence, HostVerdict, MessageEvidence, OutcomeWord, PolicyEvidence, RecipientEvidence, TlsEvidence,
};
use crate::queue::{ItemId, QueueId};
use crate::store::disk::RealDisk;

const ATTEMPTS: u64 = 1_000_000;
/// Destinations of the load; each has one host.
const DOMAINS: u64 = 1_000;
/// Attempts the keeper moves at once.
const GROUP: u64 = 500;

fn host(domain: u64) -> Bytes {
    let hash = "ab".repeat(32);
    HostEvidence {
        mx: Some(format!("mx1.d{domain}.example")),
        mx_dnssec: Some("insecure".to_owned()),
        address: "192.0.2.1".parse().ok(),
        policy: Some(PolicyEvidence {
            id: Some("20260101T000000".to_owned()),
            mode: "enforce".to_owned(),
            sha256: hash.clone(),
            fetched_at: Some(jiff::Timestamp::UNIX_EPOCH),
            max_age: 604_800,
        }),
        rule: "mta-sts enforce".to_owned(),
        requirement: Some("pkix".to_owned()),
        names: vec![format!("mx1.d{domain}.example")],
        tls: Some(TlsEvidence {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
            group: Some("X25519MLKEM768".to_owned()),
            chain_sha256: hash.clone(),
            spki_sha256: Some(hash),
            not_after: Some(jiff::Timestamp::UNIX_EPOCH),
            issuer: Some("Example CA".to_owned()),
            pkix: "valid".to_owned(),
            resumed: false,
            name_matched: None,
        }),
        verdict: HostVerdict::Met,
        ..HostEvidence::default()
    }
    .render()
}

fn draft(n: u64, hosts: &[Bytes]) -> EvidenceDraft {
    let domain = n % DOMAINS;
    EvidenceDraft {
        at: jiff::Timestamp::from_microsecond(1_800_000_000_000_000 + n as i64 * 1000).unwrap(),
        item: ItemId { queue_id: QueueId { node: 1, sequence: n }, part: 0 },
        message: MessageEvidence {
            attempt: 1,
            message_id: Some(format!("20260110.{n}@mail.sender.example")),
            sender: Some("newsletter@sender.example".to_owned()),
            destination: format!("d{domain}.example"),
            recipients: vec![RecipientEvidence {
                to: Some(format!("someone.{n}@d{domain}.example")),
                outcome: OutcomeWord::Delivered,
                status: Some(EnhancedStatus::new(2, 0, 0)),
                code: Some(250),
                text: "250 2.0.0 Ok: queued as 4FzQxK0Lq8z9".to_owned(),
                host: Some(0),
            }],
            carried_before: Some(3),
            ..MessageEvidence::default()
        },
        hosts: vec![hosts[domain as usize].clone()],
    }
}

#[test]
#[ignore = "prints costs; a million attempts"]
fn evidence_cost() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("evidence");
    let (end, mut repaired) = (Position::default(), Vec::new());
    let disk = Arc::new(RealDisk);
    let mut log = Log::open(disk, folder.clone(), [7; 16], 16 << 20, end, &mut repaired).unwrap();
    let hosts: Vec<Bytes> = (0..DOMAINS).map(host).collect();
    let (mut rendering, mut appending, mut journal) = (Duration::ZERO, Duration::ZERO, 0);
    for group in 0..ATTEMPTS / GROUP {
        let drafts: Vec<_> = (0..GROUP).map(|n| draft(group * GROUP + n, &hosts)).collect();
        let begun = Instant::now();
        let rendered: Vec<Bytes> = drafts.iter().map(|draft| render_draft(draft).into()).collect();
        rendering += begun.elapsed();
        journal += rendered.iter().map(Bytes::len).sum::<usize>();
        let place = |(n, content)| (Position { segment: 1 + group as u32, offset: n as u32 }, content);
        let placed: Vec<_> = rendered.into_iter().enumerate().map(place).collect();
        let begun = Instant::now();
        log.append(&placed).unwrap();
        appending += begun.elapsed();
    }
    log.sync().unwrap();
    let size = |suffix: &str| -> u64 {
        let files = fs::read_dir(&folder).unwrap().flatten();
        let fits = files.filter(|file| file.path().extension().is_some_and(|found| found == suffix));
        fits.map(|file| file.metadata().unwrap().len()).sum()
    };
    let each = |total: u64| total / ATTEMPTS;
    println!("octets per attempt: journal {}, log {}", each(journal as u64), each(size("evidence")));
    println!("filters: {} octets of {} in all", size("filter"), size("evidence"));
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / ATTEMPTS as f64;
    println!("per attempt: rendered in {:.2} us, moved in {:.2} us", micros(rendering), micros(appending));
    for (what, filter, expected) in [
        (
            "queue id",
            EvidenceFilter { id: Some(QueueId { node: 1, sequence: 500_123 }), ..Default::default() },
            1,
        ),
        (
            "Message-ID",
            EvidenceFilter {
                message_id: Some("<20260110.777777@mail.sender.example>".to_owned()),
                ..Default::default()
            },
            1,
        ),
        (
            "an unknown queue id",
            EvidenceFilter { id: Some(QueueId { node: 2, sequence: 1 }), ..Default::default() },
            0,
        ),
        (
            "a page of a domain",
            EvidenceFilter { destination: Some("d7.example".to_owned()), ..Default::default() },
            200,
        ),
    ] {
        let begun = Instant::now();
        let page = log.files().find(&filter, None, 200).unwrap();
        println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(page.attempts.len(), expected, "{what}");
    }
}
