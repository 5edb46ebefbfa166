//! `check` on sound and harmed stores.

use std::fs;

use super::super::queue::AdminAction;
use super::super::queue::Filter;
use super::super::{Checked, Policies, Severity, check};
use super::formats::{everything, unpack};
use super::*;

async fn store(dir: &Path) -> QueueId {
    let (queue, _) = open(dir);
    for index in 0..30 {
        queue.enqueue(message(&queue, &["a@one.example", "b@two.example"], &[index; 900])).await.unwrap();
    }
    let large = queue.enqueue(message(&queue, &["l@one.example"], &vec![b'L'; 2 << 20])).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    defer(&queue, claim, at(300)).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    deliver(&queue, claim, at(1)).await.unwrap();
    let only = Filter { recipient_domain: Some("two.example".parse_destination()), ..Filter::default() };
    queue.admin(&only, AdminAction::Hold, at(1)).await.unwrap();
    queue.close().await;
    let (policies, _) = Policies::open(dir).unwrap();
    policies.put(maps::policy("a.example")).await.unwrap();
    large
}

trait ParseDestination {
    fn parse_destination(&self) -> crate::mail::Destination;
}

impl ParseDestination for str {
    fn parse_destination(&self) -> crate::mail::Destination {
        crate::mail::Destination::parse(self).unwrap()
    }
}

fn worst(checked: &Checked) -> Option<(Severity, String, String)> {
    let first = checked.findings.first()?;
    Some((first.severity, first.path.file_name()?.to_str()?.to_owned(), first.text.clone()))
}

#[tokio::test]
async fn a_sound_store_has_no_findings_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path()).await;
    let (mut before, mut after) = Default::default();
    everything(dir.path(), &mut before);
    let checked = check(dir.path()).unwrap();
    assert_eq!(checked.findings, []);
    assert_eq!((checked.messages, checked.items), (31, 60));
    assert!(checked.segments > 1 && checked.records > 60 && checked.bytes > 2 << 20);
    everything(dir.path(), &mut after);
    assert!(before == after, "something was changed");
    let old = tempfile::tempdir().unwrap();
    unpack(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-1"), old.path());
    // Its index may be of an older format.
    let findings = check(old.path()).unwrap().findings;
    assert!(findings.iter().all(|finding| finding.path.ends_with("index")), "{findings:?}");
}

#[tokio::test]
async fn every_harm_is_found_and_named_and_the_next_start_agrees() {
    let good = tempfile::tempdir().unwrap();
    let large = store(good.path()).await;
    type Harm = Box<dyn Fn(&Path)>;
    let journal = |dir: &Path, number: u32| dir.join(format!("queue/journal/{number:010}.journal"));
    let body = move |dir: &Path| dir.join("queue/bodies").join(large.to_string());
    let rows: Vec<(&str, Harm, Severity, &str)> = vec![
        (
            "0000000001.journal",
            Box::new(move |dir| {
                let mut bytes = fs::read(journal(dir, 1)).unwrap();
                bytes[1500] ^= 1;
                fs::write(journal(dir, 1), bytes).unwrap();
            }),
            Severity::Error,
            "are damaged",
        ),
        (
            "0000000001.journal",
            Box::new(move |dir| fs::remove_file(journal(dir, 2)).unwrap()),
            Severity::Error,
            "missing",
        ),
        (
            "0000000002.journal",
            Box::new(move |dir| fs::write(journal(dir, 2), b"").unwrap()),
            Severity::Error,
            "0 octets",
        ),
        (
            "0000000002.journal",
            Box::new(move |dir| {
                fs::remove_file(journal(dir, 2)).unwrap();
                fs::create_dir(journal(dir, 2)).unwrap();
            }),
            Severity::Error,
            "cannot be read",
        ),
        (
            &*large.to_string().leak(),
            Box::new(move |dir| fs::remove_file(body(dir)).unwrap()),
            Severity::Error,
            "is missing",
        ),
        (
            &*large.to_string().leak(),
            Box::new(move |dir| fs::write(body(dir), b"x").unwrap()),
            Severity::Error,
            "has 1 octets",
        ),
        (
            "state",
            Box::new(|dir| fs::write(dir.join("queue/state"), b"{").unwrap()),
            Severity::Warning,
            "damaged",
        ),
        (
            "index",
            Box::new(|dir| fs::remove_dir_all(dir.join("queue/index")).unwrap()),
            Severity::Warning,
            "missing",
        ),
        (
            "index",
            Box::new(|dir| {
                let db = dir.join("queue/index/db");
                let len = fs::metadata(&db).unwrap().len();
                fs::write(db, vec![0; len as usize]).unwrap();
            }),
            Severity::Warning,
            "cannot be used",
        ),
        (
            "bodies",
            Box::new(|dir| fs::write(dir.join("queue/bodies/1-0000ZZZZ"), b"x").unwrap()),
            Severity::Note,
            "no message",
        ),
        (
            "spool",
            Box::new(|dir| fs::write(dir.join("queue/spool/3"), b"x").unwrap()),
            Severity::Note,
            "unfinished",
        ),
        (
            "policies.log",
            Box::new(|dir| {
                let log = dir.join("policies/policies.log");
                let text = fs::read_to_string(&log).unwrap().replace("a.example", "b.example");
                fs::write(log, text).unwrap();
            }),
            Severity::Warning,
            "1 entries are damaged",
        ),
    ];
    for (name, harm, severity, words) in rows {
        let dir = tempfile::tempdir().unwrap();
        sim::copy(good.path(), dir.path());
        harm(dir.path());
        let checked = check(dir.path()).unwrap();
        let (found, path, text) = worst(&checked).unwrap_or_else(|| panic!("{name}: nothing found"));
        assert_eq!((found, path.as_str()), (severity, name), "{text}");
        assert!(text.contains(words), "{name}: {text}");
        let items = checked.items;
        let (queue, _) = open(dir.path());
        assert_eq!(ids(&queue, &Filter::default()).await.len() as u64, items, "{name}");
        queue.close().await;
        let left = check(dir.path()).unwrap();
        assert!(left.findings.len() <= checked.findings.len(), "{name}: {:?}", left.findings);
    }
}

#[tokio::test]
async fn an_index_that_disagrees_is_found() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    store(one.path()).await;
    sim::copy(one.path(), other.path());
    let (queue, _) = open(other.path());
    queue.admin(&Filter::default(), AdminAction::Hold, at(7)).await.unwrap();
    queue.close().await;
    // Of the same journal, and not of its present end.
    fs::remove_dir_all(one.path().join("queue/index")).unwrap();
    sim::copy(&other.path().join("queue/index"), &one.path().join("queue/index"));
    let checked = check(one.path()).unwrap();
    let (severity, path, text) = worst(&checked).unwrap();
    assert!(path == "index" && severity <= Severity::Warning, "{text}");
}

#[tokio::test]
async fn a_queue_in_use_or_absent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = check(dir.path()).unwrap_err().to_string();
    assert!(error.contains("there is no queue"), "{error}");
    let (queue, _) = open(dir.path());
    let error = check(dir.path()).unwrap_err().to_string();
    assert!(error.contains("stop the daemon first"), "{error}");
    queue.close().await;
    check(dir.path()).unwrap();
}
