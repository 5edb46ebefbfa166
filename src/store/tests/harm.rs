//! Files that are gone, empty, unreadable, or something else than a file: what is told, what goes on.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jiff::civil::date;

use super::super::queue::{AdminAction, Filter};
use super::super::{Policies, Reports, Results};
use super::sim::copy;
use super::*;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(dir.join("queue/journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

async fn fill(dir: &Path, count: u8) -> Vec<QueueId> {
    let (queue, _) = open(dir);
    let mut all = Vec::new();
    for index in 0..count {
        all.push(queue.enqueue(message(&queue, &["a@one.example"], &[index; 900])).await.unwrap());
    }
    queue.close().await;
    all
}

async fn there(queue: &Queue) -> BTreeSet<QueueId> {
    ids(queue, &Filter::default()).await.iter().map(|item| item.queue_id).collect()
}

/// Everything readable is claimed and delivered; gives how many.
async fn deliver_all(queue: &Queue) -> usize {
    let claims = queue.claim_due(at(0), 1000, LEASE).await.unwrap();
    let count = claims.len();
    for claim in claims {
        let id = claim.item.id.queue_id;
        assert_eq!(content(queue, id).await.len(), 900);
        deliver(queue, claim, at(1)).await.unwrap();
    }
    count
}

type Harm = fn(&Path);
const LOSSES: [(&str, Harm, &str); 3] = [
    (
        "missing",
        |path| fs::remove_file(path).unwrap(),
        "1 of the journal's segments are missing, from number 2 on",
    ),
    ("empty", |path| fs::write(path, b"").unwrap(), "has only 0 octets left"),
    ("unreadable", unreadable, "cannot be read"),
];

/// Reading a folder as a file fails as a broken disk does.
fn unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
}

#[tokio::test]
async fn a_segment_in_the_middle_that_is_lost_costs_its_messages_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let all: BTreeSet<_> = fill(dir.path(), 60).await.into_iter().collect();
    for (name, harm, words) in LOSSES {
        for index in [true, false] {
            let broken = tempfile::tempdir().unwrap();
            copy(dir.path(), broken.path());
            harm(&segments(broken.path())[1]);
            if !index {
                fs::remove_dir_all(broken.path().join("queue/index")).unwrap();
            }
            let (queue, repaired) = open(broken.path());
            assert!(repaired.iter().any(|note| note.contains(words)), "{name}: {repaired:?}");
            let left = there(&queue).await;
            let lost: Vec<_> = all.difference(&left).collect();
            assert!(left.is_subset(&all) && (5..30).contains(&lost.len()), "{name}: {} lost", lost.len());
            if index {
                let named = repaired.iter().find(|note| note.contains("that the index knew")).unwrap();
                assert!(
                    named.contains(&lost[0].to_string()) && named.starts_with(&lost.len().to_string()),
                    "{named}"
                );
            }
            assert_eq!(deliver_all(&queue).await, left.len(), "{name}");
            queue.enqueue(message(&queue, &["a@one.example"], b"on")).await.unwrap();
            queue.close().await;
            let (queue, _) = open(broken.path());
            assert!(there(&queue).await.is_disjoint(&left), "{name}: what was delivered came back");
        }
    }
}

#[tokio::test]
async fn a_damaged_segment_is_set_aside_and_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 40).await;
    let first = segments(dir.path())[0].clone();
    let mut bytes = fs::read(&first).unwrap();
    bytes[1500] ^= 1;
    fs::write(&first, &bytes).unwrap();
    fs::remove_dir_all(dir.path().join("queue/index")).unwrap();
    let (queue, repaired) = open(dir.path());
    assert!(repaired.iter().any(|note| note.contains("the file is kept")), "{repaired:?}");
    queue.admin(&Filter::default(), AdminAction::Delete, at(1)).await.unwrap();
    queue.housekeeping();
    queue.housekeeping();
    assert!(!first.exists());
    assert_eq!(fs::read(dir.path().join("queue/damaged").join(first.file_name().unwrap())).unwrap(), bytes);
}

#[tokio::test]
async fn something_else_in_the_place_of_the_index_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let all: BTreeSet<_> = fill(dir.path(), 5).await.into_iter().collect();
    let index = dir.path().join("queue/index");
    let harms: [Harm; 3] = [
        |index| fs::write(index, b"not a folder").unwrap(),
        |index| std::os::unix::fs::symlink("/nowhere", index).unwrap(),
        |index| {
            fs::create_dir(index).unwrap();
            fs::create_dir(index.join("db")).unwrap();
        },
    ];
    for harm in harms {
        fs::remove_dir_all(&index).unwrap();
        harm(&index);
        let (queue, repaired) = open(dir.path());
        assert!(repaired.iter().any(|note| note.contains("index was rebuilt")), "{repaired:?}");
        assert_eq!(there(&queue).await, all);
        queue.close().await;
        let (queue, repaired) = open(dir.path());
        assert_eq!((there(&queue).await, repaired), (all.clone(), vec![]));
        queue.close().await;
    }
}

#[tokio::test]
async fn what_is_no_folder_where_one_must_be_is_refused_in_words() {
    for name in ["journal", "bodies", "spool"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("queue")).unwrap();
        fs::write(dir.path().join("queue").join(name), b"").unwrap();
        let error = open_on(Arc::new(RealDisk), "boot", dir.path()).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("a directory of its own"), "{error}");
    }
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let text = super::super::body::troubled("cannot read", Path::new("/x"), &denied).to_string();
    assert!(text.contains("must belong to the user that runs the daemon"), "{text}");
}

#[tokio::test]
async fn lost_logs_are_told_with_what_that_means() {
    let dir = tempfile::tempdir().unwrap();
    let day = date(2027, 1, 15);
    let make = async || {
        let (policies, _) = Policies::open(dir.path()).unwrap();
        policies.put(maps::policy("a.example")).await.unwrap();
        let (reports, _) = Reports::open(dir.path()).unwrap();
        reports.put(maps::report(day, "a.example", 1)).await.unwrap();
        let (results, _) = Results::open(dir.path()).unwrap();
        results.record(at(0), maps::result("a.example"));
        results.flush().await;
    };
    let told = || {
        let mut all = Policies::open(dir.path()).unwrap().1;
        all.extend(Reports::open(dir.path()).unwrap().1);
        all.extend(Results::open(dir.path()).unwrap().1);
        all
    };
    let logs = ["policies/policies.log", "reports/reports.log", "results/2027-01-15.log"]
        .map(|log| dir.path().join(log));
    let harms: [(Harm, [&str; 3]); 4] = [
        (|log| fs::write(log, b"").unwrap(), ["fetched again", "is forgotten", "is empty: sessions counted"]),
        (
            |log| fs::write(log, b"\0\xff\xfe\n\0garbage\n").unwrap(),
            ["2 damaged entries", "2 damaged entries", "counts too few"],
        ),
        (
            |log| {
                let bytes = fs::read(log).unwrap();
                fs::write(log, &bytes[..bytes.len() - 3]).unwrap();
            },
            ["unfinished entry", "unfinished entry", "unfinished entry"],
        ),
        (|log| fs::remove_file(log).unwrap(), ["gone or empty", "gone or empty", ""]),
    ];
    for (harm, words) in harms {
        make().await;
        assert_eq!(told(), Vec::<String>::new());
        logs.iter().for_each(|log| harm(log));
        let notes = told();
        let wanted: Vec<_> = words.iter().filter(|words| !words.is_empty()).collect();
        assert_eq!(notes.len(), wanted.len(), "{notes:?}");
        for (note, words) in notes.iter().zip(wanted) {
            assert!(note.contains(words) && note.contains(dir.path().to_str().unwrap()), "{note}");
        }
        assert_eq!(told(), Vec::<String>::new(), "told once");
    }
}
