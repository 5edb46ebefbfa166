//! The journal after damage, and the journal with anything at all in it.
//!
//! First octet even: a journal that the store wrote is damaged in a few places. What no damage touched
//! is there afterwards, and nothing is that was never accepted. Odd: a journal of frames that are whole
//! by their checksums and hold any octets. Nothing panics, and a second start finds what the first found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use stsrelay::mail::{
    BodyType, EnhancedStatus, Envelope, Mailbox, Recipient, Reply, ReversePath, TlsRequest,
};
use stsrelay::metrics::Metrics;
use stsrelay::queue::{AttemptRecord, QueueId, RecipientState, RecipientStatus, Settled, Settlement};
use stsrelay::store::disk::RealDisk;
use stsrelay::store::ground::{Ground, Limits, Loops};
use stsrelay::store::{AdminAction, Body, Entry, Filter, NewMessage, Queue, QueueError, QueueOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::input::Input;

const NONCE: [u8; 16] = *b"a fuzzed journal";
/// Octets of a segment, of a frame's head and of an operation's (see `store::frame`).
const HEADER: usize = 64;
const FRAME_HEAD: usize = 28;
const OP_HEAD: usize = 12;
/// Places damaged at a time: few enough that no checksum can be met again by chance.
const DAMAGES_MAX: usize = 6;
const FRAMES_MAX: usize = 40;
const OPS_MAX: usize = 6;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let damaged = !input.flag();
    runtime().block_on(async {
        let place = place();
        let journal = place.path().join("queue/journal");
        fs::create_dir_all(&journal).expect("a folder");
        if damaged {
            damage(&mut input, &place, &journal).await;
        } else {
            anything(&mut input, &place, &journal).await;
        }
    });
}

/// What the store wrote, once for all runs.
struct Written {
    /// By name.
    segments: BTreeMap<String, Vec<u8>>,
    marker: Vec<u8>,
    /// Messages in it: envelope and content.
    messages: BTreeMap<QueueId, (Envelope, Bytes)>,
    /// Those that left.
    ended: Vec<QueueId>,
}

async fn damage(input: &mut Input<'_>, place: &TempDir, journal: &Path) {
    let written = written().await;
    let mut segments = written.segments.clone();
    let mut marker = Some(written.marker.clone());
    // What was touched, per segment.
    let mut touched: BTreeMap<String, Vec<std::ops::Range<usize>>> = BTreeMap::new();
    let names: Vec<String> = segments.keys().cloned().collect();
    for _ in 0..input.below(DAMAGES_MAX) {
        let name = input.pick(&names.iter().map(String::as_str).collect::<Vec<_>>()).to_owned();
        let bytes = segments.entry(name.clone()).or_default();
        let at = input.below(bytes.len().max(1));
        let len = 1 + input.below(5000);
        let to = (at + len).min(bytes.len());
        let range = match input.octet() % 6 {
            0 if at < bytes.len() => {
                bytes[at] ^= input.octet();
                at..at + 1
            }
            1 => {
                bytes[at..to].fill(input.octet());
                at..to
            }
            // A page of elsewhere, as a disk that mixes up its sectors writes it.
            2 => {
                let from = input.below(bytes.len().max(1));
                let piece = bytes[from..(from + to - at).min(bytes.len())].to_vec();
                bytes[at..at + piece.len()].copy_from_slice(&piece);
                at..at + piece.len()
            }
            // What shifts moves everything behind it.
            3 => {
                bytes.drain(at..to);
                at..usize::MAX
            }
            4 => {
                bytes.truncate(at);
                at..usize::MAX
            }
            _ => {
                marker = input.flag().then(|| input.short().to_vec());
                0..0
            }
        };
        touched.entry(name).or_default().push(range);
    }
    for (name, bytes) in &segments {
        fs::write(journal.join(name), bytes).expect("a file");
    }
    if let Some(marker) = &marker {
        fs::write(place.path().join("queue/state"), marker).expect("a file");
    }
    let is_touched = |name: &str, range: &std::ops::Range<usize>| {
        let damages = touched.get(name).into_iter().flatten();
        damages.into_iter().any(|one| one.start < range.end && range.start < one.end)
    };
    let headless = names.iter().all(|name| is_touched(name, &(0..HEADER)));

    let queue = match open(place) {
        Ok((queue, _)) => queue,
        Err(error) => {
            // Only without any sign of the store's nonce; and of another format only if it says so.
            let lost = headless && marker.as_ref() != Some(&written.marker);
            let newer = matches!(error, QueueError::Newer { .. }) && marker.as_ref() != Some(&written.marker);
            return assert!(lost || newer, "{error}");
        }
    };
    let found = list(&queue).await;
    for entry in &found {
        let id = entry.item.id.queue_id;
        let Some((envelope, content)) = written.messages.get(&id) else { panic!("{id} was never accepted") };
        assert_eq!(*entry.item.envelope, *envelope, "{id}");
        if let Ok(body) = queue.body(id).await {
            let Body::Memory(bytes) = body else { panic!("{id} is small") };
            assert_eq!(bytes, *content, "{id}");
        }
    }
    for (name, pristine) in &written.segments {
        for (range, enqueued) in frames(pristine) {
            if is_touched(name, &range) {
                continue;
            }
            for id in enqueued.into_iter().filter(|id| !written.ended.contains(id)) {
                assert!(found.iter().any(|entry| entry.item.id.queue_id == id), "{id} is lost, undamaged");
                assert!(queue.body(id).await.is_ok(), "the content of {id} is lost, undamaged");
            }
        }
    }
    // What is accepted now stays, and under an id of its own.
    let message = message(&queue, 99);
    assert!(found.iter().all(|entry| entry.item.id.queue_id != message.id), "{} is given twice", message.id);
    let id = message.id;
    match queue.enqueue(message).await {
        Ok(_) => {
            queue.close().await;
            let (queue, _) = open(place).expect("a repaired store opens");
            assert!(list(&queue).await.iter().any(|entry| entry.item.id.queue_id == id));
            let again = list(&queue).await.len();
            assert!(again > found.len(), "{again} after {}", found.len());
            queue.close().await;
        }
        Err(error) => panic!("nothing is accepted: {error}"),
    }
}

async fn anything(input: &mut Input<'_>, place: &TempDir, journal: &Path) {
    let mut segment = header(0, input.number());
    for _ in 0..1 + input.below(FRAMES_MAX) {
        if input.is_empty() {
            break;
        }
        let ops: Vec<(u8, &[u8])> =
            (0..1 + input.below(OPS_MAX)).map(|_| (input.octet() % 9, input.long())).collect();
        push_frame(&mut segment, &ops);
    }
    fs::write(journal.join("0000000000.journal"), &segment).expect("a file");
    let queue = match open(place) {
        Ok((queue, _)) => queue,
        Err(error) => panic!("{error}"),
    };
    let now = Timestamp::from_second(1_790_000_000).expect("a time of our days");
    let found = list(&queue).await;
    for entry in &found {
        assert!(entry.item.pending().count() <= entry.item.envelope.recipients.len());
        let _ = queue.body(entry.item.id.queue_id).await;
        let _ = format!("{} {:?}", entry.item.destination, entry.next_attempt);
    }
    let _ = (queue.stats(), queue.next_due(), queue.survey(now).await);
    let id = queue.allocate_id();
    assert!(found.iter().all(|entry| entry.item.id.queue_id != id), "{id} is given twice");
    for claim in queue.claim_due(now, 100, Duration::from_secs(60)).await.unwrap_or_default() {
        let _ = queue.unclaim(claim, now).await;
    }
    queue.close().await;
    let (queue, _) = open(place).expect("what was opened once opens again");
    let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.item.id).collect::<Vec<_>>();
    assert_eq!(ids(&list(&queue).await), ids(&found));
    queue.close().await;
}

fn open(place: &TempDir) -> Result<(Queue, Vec<String>), QueueError> {
    let ground = Ground {
        disk: Arc::new(RealDisk),
        loops: Loops::Tasks,
        boot: "boot".to_owned(),
        limits: Limits { segment_bytes: 2048, reserve_bytes: 4096, round: Duration::from_secs(3600) },
        index: false,
        nonce: NONCE,
        metrics: Metrics::new(),
    };
    let now = Timestamp::from_second(1_790_000_000).expect("a time of our days");
    Queue::open_over(&ground, &QueueOptions { data_dir: place.path().to_owned(), node: 1 }, now)
}

async fn list(queue: &Queue) -> Vec<Entry> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = queue.list(&Filter::default(), cursor, 100).await.expect("a page");
        all.extend(page.entries);
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

/// Writes the journal that is damaged: messages waiting, tried, held and gone.
async fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    if let Some(written) = WRITTEN.get() {
        return written;
    }
    let place = place();
    let (queue, _) = open(&place).expect("a new store opens");
    let mut messages = BTreeMap::new();
    for number in 0..12 {
        let message = message(&queue, number);
        let Body::Memory(content) = message.body.clone() else { unreachable!("made so") };
        messages.insert(message.id, (message.envelope.clone(), content));
        queue.enqueue(message).await.expect("it is accepted");
    }
    let now = Timestamp::from_second(1_790_000_100).expect("a time of our days");
    let mut ended = Vec::new();
    for (nth, claim) in
        queue.claim_due(now, 6, Duration::from_secs(60)).await.expect("claims").into_iter().enumerate()
    {
        let reply = Reply::new(250, EnhancedStatus::new(2, 0, 0), "taken");
        let recipients: Vec<RecipientStatus> = claim.item.recipients.clone();
        let done = nth % 2 == 0;
        let recipients = recipients.into_iter().map(|one| match done {
            true => RecipientStatus { state: RecipientState::Delivered(reply.clone()), ..one },
            false => one,
        });
        let settled = if done { Settled::Done } else { Settled::Again(now) };
        if done {
            ended.push(claim.item.id.queue_id);
        }
        let settlement = Settlement {
            recipients: recipients.collect(),
            settled,
            newly_failed: Vec::new(),
            newly_delivered: Vec::new(),
            warn_delay: false,
        };
        let record = AttemptRecord {
            at: now,
            host: Some("mx.example.net".into()),
            address: None,
            tls: None,
            verified: None,
            rule: "opportunistic".into(),
            result: "tried".into(),
        };
        queue.settle(claim, &settlement, record, Vec::new()).await.expect("settled");
    }
    let last = messages.keys().next_back().copied();
    queue.admin(&Filter { id: last, ..Filter::default() }, AdminAction::Hold, now).await.expect("held");
    queue.close().await;
    drop(queue);
    let read = |path: &Path| fs::read(path).expect("a file of the store");
    let dir = place.path().join("queue");
    let segments = fs::read_dir(dir.join("journal"))
        .expect("the journal")
        .map(|entry| entry.expect("a segment"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), read(&entry.path())))
        .collect();
    let marker = read(&dir.join("state"));
    WRITTEN.get_or_init(|| Written { segments, marker, messages, ended })
}

fn message(queue: &Queue, number: usize) -> NewMessage {
    // Every third has two destinations.
    let domains: &[&str] = if number % 3 == 2 { &["example.net", "example.org"] } else { &["example.net"] };
    let recipient =
        |domain: &&str| Recipient::plain(Mailbox::parse(&format!("u{number}@{domain}")).expect("a mailbox"));
    let envelope = Envelope {
        reverse_path: ReversePath::parse("<author@example.com>").expect("a path"),
        recipients: domains.iter().map(recipient).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        tls: TlsRequest::None,
    };
    let line = format!("Subject: {number}\r\n\r\n{}\r\n", "what it says ".repeat(number * 7));
    NewMessage {
        id: queue.allocate_id(),
        envelope,
        body: Body::Memory(Bytes::from(line)),
        received_at: Timestamp::from_second(1_790_000_000).expect("a time of our days"),
        is_report: false,
        expires_at: None,
    }
}

/// Where the frames of a whole segment are, and the messages each one brings.
fn frames(segment: &[u8]) -> Vec<(std::ops::Range<usize>, Vec<QueueId>)> {
    let u32_at = |at: usize| {
        segment[at..at + 4].iter().rev().fold(0, |sum: usize, octet| sum << 8 | usize::from(*octet))
    };
    let mut found = Vec::new();
    let mut at = HEADER;
    while at < segment.len() {
        let (length, count) = (u32_at(at + 12), u32_at(at + 16));
        let mut op = at + FRAME_HEAD;
        let mut ids = Vec::new();
        for _ in 0..count {
            let content = &segment[op + OP_HEAD..op + OP_HEAD + u32_at(op + 4)];
            if segment[op] == 1 {
                let record: serde_json::Value = serde_json::from_slice(content).expect("JSON");
                ids.extend(record["id"].as_str().and_then(|id| id.parse::<QueueId>().ok()));
            }
            op += OP_HEAD + content.len();
        }
        found.push((at..at + length, ids));
        at += length;
    }
    found
}

fn header(segment: u32, ids_below: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..16].copy_from_slice(b"stsrelay journal");
    bytes[16..20].copy_from_slice(&2_u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&segment.to_le_bytes());
    bytes[24..40].copy_from_slice(&NONCE);
    bytes[40..48].copy_from_slice(&ids_below.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn push_frame(segment: &mut Vec<u8>, ops: &[(u8, &[u8])]) {
    let length = FRAME_HEAD + ops.iter().map(|(_, content)| OP_HEAD + content.len()).sum::<usize>();
    let op_head = |(kind, content): &(u8, &[u8])| {
        let mut head = [0; OP_HEAD];
        head[0] = *kind;
        head[4..8].copy_from_slice(&(content.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
        head
    };
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(b"\xf5SRJ");
    head[8..12].copy_from_slice(&(segment.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(length as u32).to_le_bytes());
    head[16..20].copy_from_slice(&(ops.len() as u32).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&NONCE);
    sum.update(&head[..24]);
    ops.iter().for_each(|op| sum.update(&op_head(op)));
    head[24..28].copy_from_slice(&sum.finalize().to_le_bytes());
    segment.extend_from_slice(&head);
    for op in ops {
        segment.extend_from_slice(&op_head(op));
        segment.extend_from_slice(op.1);
    }
}

/// A folder in memory, where there is such a file system: nothing here is about the disk.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    })
}
