//! Stores of every format there was: opened and gone on with, or refused and left as they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use jiff::civil::date;

use super::super::queue::{AdminAction, EntryState, Filter};
use super::super::{Policies, Reports, Results, format, survey};
use super::maps::{policy, report, result};
use super::*;

/// One directory per format, each file compressed.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub(super) fn unpack(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            unpack(&entry.path(), &to.join(name));
        } else if let Some(name) = name.strip_suffix(".gz") {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(&fs::read(entry.path()).unwrap()[..])
                .read_to_end(&mut bytes)
                .unwrap();
            fs::write(to.join(name), bytes).unwrap();
        }
    }
}

fn pack(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            pack(&entry.path(), &to.join(name));
        } else if !["lock", "reserve"].contains(&name.as_str()) {
            let file = fs::File::create(to.join(format!("{name}.gz"))).unwrap();
            let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::best());
            gz.write_all(&fs::read(entry.path()).unwrap()).unwrap();
            gz.finish().unwrap();
        }
    }
}

/// The story every fixture tells; a new format gets a directory of its own made by this.
async fn write_story(dir: &Path) {
    let (queue, _) = open(dir);
    let new = message(&queue, &["a@one.example", "b@two.example", "c@one.example"], b"small\r\n");
    queue.enqueue(new).await.unwrap();
    let large = b"a large content\r\n".repeat(70_000);
    queue.enqueue(message(&queue, &["large@one.example"], &large)).await.unwrap();
    let mut own = message(&queue, &["reports@three.example"], b"report\r\n");
    (own.is_report, own.expires_at) = (true, Some(at(86_400)));
    queue.enqueue(own).await.unwrap();
    let gone = queue.enqueue(message(&queue, &["gone@four.example"], b"gone\r\n")).await.unwrap();
    let mut claims = queue.claim_due(at(0), 9, LEASE).await.unwrap();
    let at_of = |id: QueueId, part| ItemId { queue_id: id, part };
    let take = |claims: &mut Vec<Claim>, id: ItemId| {
        let index = claims.iter().position(|claim| claim.item.id == id).unwrap();
        claims.remove(index)
    };
    let first = QueueId { node: 1, sequence: 1 };
    defer(&queue, take(&mut claims, at_of(first, 0)), at(300)).await.unwrap();
    deliver(&queue, take(&mut claims, at_of(gone, 0)), at(1)).await.unwrap();
    let held = Filter { item: Some(at_of(first, 1)), ..Filter::default() };
    queue.admin(&held, AdminAction::Hold, at(2)).await.unwrap();
    queue.close().await;
    let (policies, _) = Policies::open(dir).unwrap();
    policies.put(policy("one.example")).await.unwrap();
    let (reports, _) = Reports::open(dir).unwrap();
    reports.put(report(date(2026, 11, 21), "one.example", 2)).await.unwrap();
    let (results, _) = Results::open(dir).unwrap();
    results.record(at(0), result("one.example"));
    results.flush().await;
}

async fn check_story(queue: &Queue, dir: &Path) {
    let entries = queue.list(&Filter::default(), None, 100).await.unwrap().entries;
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| {
            (entry.item.id.to_string(), entry.item.destination.to_string(), entry.state, entry.item.attempts)
        })
        .collect();
    let row = |id: &str, to: &str, state, attempts| (id.to_owned(), to.to_owned(), state, attempts);
    assert_eq!(
        shown[..4],
        [
            row("1-00000001.0", "one.example", EntryState::Deferred, 1),
            row("1-00000001.1", "two.example", EntryState::Held, 0),
            row("1-00000002.0", "one.example", EntryState::Active, 0),
            row("1-00000003.0", "three.example", EntryState::Active, 0),
        ]
    );
    let first = &entries[0];
    assert_eq!(first.next_attempt, Some(at(300)));
    assert_eq!(first.item.history, [attempt(at(0), "deferred")]);
    assert_eq!(first.item.envelope.envid.as_deref(), Some("a+2Bb"));
    assert_eq!(first.item.recipients.len(), 2);
    assert!(matches!(first.item.recipients[0].state, RecipientState::Pending(Some(_))));
    assert!(entries[3].item.is_report && entries[3].item.expires_at == Some(at(86_400)));
    assert_eq!(content(queue, first.item.id.queue_id).await, b"small\r\n");
    assert_eq!(content(queue, entries[2].item.id.queue_id).await.len(), 17 * 70_000);
    let (policies, repaired) = Policies::open(dir).unwrap();
    assert_eq!((policies.list().len(), repaired), (1, vec![]));
    let (reports, repaired) = Reports::open(dir).unwrap();
    assert_eq!((reports.list()[0].targets[0].attempts, repaired), (2, vec![]));
    let (results, repaired) = Results::open(dir).unwrap();
    assert_eq!((results.days().len(), repaired), (1, vec![]));
}

#[tokio::test]
#[ignore = "makes the fixture of a new format; run once, by hand, when a number in format.rs is raised"]
async fn write_the_fixture_of_the_present_format() {
    let dir = tempfile::tempdir().unwrap();
    write_story(dir.path()).await;
    let to = fixture(&format!("store-{}", format::JOURNAL));
    assert!(!to.exists(), "{} is there: fixtures are never written anew", to.display());
    pack(dir.path(), &to);
}

#[tokio::test]
async fn a_store_of_every_format_there_was_opens_and_goes_on() {
    for version in 1..=format::JOURNAL {
        for lost_index in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            unpack(&fixture(&format!("store-{version}")), dir.path());
            if lost_index {
                fs::remove_dir_all(dir.path().join("queue/index")).unwrap();
            }
            survey(dir.path()).unwrap();
            let (queue, _) = open(dir.path());
            check_story(&queue, dir.path()).await;
            queue.enqueue(message(&queue, &["new@one.example"], b"new")).await.unwrap();
            queue.close().await;
            let (queue, repaired) = open(dir.path());
            assert_eq!(repaired, Vec::<String>::new());
            check_story(&queue, dir.path()).await;
            assert_eq!(queue.list(&Filter::default(), None, 100).await.unwrap().entries.len(), 5);
        }
    }
}

/// Changes the format that a segment's header names.
fn set_version(path: &Path, version: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[16..20].copy_from_slice(&version.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn replace_in(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test]
async fn an_older_segment_is_read_and_never_written_to() {
    let dir = tempfile::tempdir().unwrap();
    write_story(dir.path()).await;
    let segment = dir.path().join("queue/journal/0000000001.journal");
    set_version(&segment, format::JOURNAL - 1);
    let before = fs::read(&segment).unwrap();
    for lost_index in [false, true] {
        if lost_index {
            fs::remove_dir_all(dir.path().join("queue/index")).unwrap();
        }
        let (queue, _) = open(dir.path());
        check_story(&queue, dir.path()).await;
        queue.enqueue(message(&queue, &["new@one.example"], b"new")).await.unwrap();
        queue.close().await;
        assert_eq!(fs::read(&segment).unwrap(), before);
        assert_eq!(fs::read_dir(segment.parent().unwrap()).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn older_logs_are_read_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    write_story(dir.path()).await;
    let day = fs::read_dir(dir.path().join("results")).unwrap().next().unwrap().unwrap().path();
    let logs = [dir.path().join("policies/policies.log"), dir.path().join("reports/reports.log"), day];
    let (now, before) = (format!(" {}\n", format::LINES), format!(" {}\n", format::LINES - 1));
    logs.iter().for_each(|path| replace_in(path, &now, &before));
    replace_in(&dir.path().join("queue/state"), "\"format\":1", "\"format\":0");
    check_story(&open(dir.path()).0, dir.path()).await;
    for path in &logs {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.lines().next().unwrap().ends_with(now.trim_end()), "{}: {text}", path.display());
    }
}

/// Everything below a folder: content and time of change.
pub(super) fn everything(dir: &Path, all: &mut BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            everything(&path, all);
            all.insert(path, (Vec::new(), changed));
        } else {
            let content = fs::read(&path).unwrap();
            all.insert(path, (content, changed));
        }
    }
}

#[tokio::test]
async fn a_newer_part_is_refused_in_words_before_anything_is_touched() {
    let good = tempfile::tempdir().unwrap();
    write_story(good.path()).await;
    let day = fs::read_dir(good.path().join("results")).unwrap().next().unwrap().unwrap().file_name();
    let day = format!("results/{}", day.to_str().unwrap());
    let parts = [
        "queue/journal/0000000001.journal",
        "queue/state",
        "policies/policies.log",
        "reports/reports.log",
        &day,
    ];
    for part in parts {
        let dir = tempfile::tempdir().unwrap();
        sim::copy(good.path(), dir.path());
        let path = dir.path().join(part);
        match part {
            _ if part.ends_with(".journal") => set_version(&path, 200),
            "queue/state" => replace_in(&path, "\"format\":1", "\"format\":200"),
            _ => replace_in(&path, &format!(" {}\n", format::LINES), " 200\n"),
        }
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        everything(dir.path(), &mut before);
        let known = match part {
            _ if part.ends_with(".journal") => format::JOURNAL,
            "queue/state" => format::MARKER,
            _ => format::LINES,
        };
        let error = survey(dir.path()).unwrap_err();
        assert_eq!(error, QueueError::Newer { path: path.clone(), found: 200, known }, "{part}");
        let text = error.to_string();
        let up_to = format!("up to {known};");
        for words in [part, "format 200", &up_to, "nothing was changed", "go back to the newer release"] {
            assert!(text.contains(words), "{text}");
        }
        let opened = match part.split('/').next().unwrap() {
            "queue" => open_on(Arc::new(RealDisk), "boot", dir.path()).err(),
            "policies" => Policies::open(dir.path()).err(),
            "reports" => Reports::open(dir.path()).err(),
            _ => Results::open(dir.path()).err(),
        };
        assert_eq!(opened, Some(error), "{part}");
        everything(dir.path(), &mut after);
        assert!(before == after, "{part}: something was changed");
    }
    survey(good.path()).unwrap();
    survey(&good.path().join("not there")).unwrap();
}
