//! The file of the policy cache: lines that were damaged, and lines that hold anything at all.
//!
//! Input: lines, each preceded by an octet. Odd: the line gets the checksum it lacks. Even: it is
//! written as it is. What is read is a policy or nothing; what a good line says is there.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use stsrelay::mail::Domain;
use stsrelay::metrics::Metrics;
use stsrelay::store::disk::RealDisk;
use stsrelay::store::ground::{Ground, Limits, Loops};
use stsrelay::store::{Policies, QueueError};
use stsrelay::sts::freshness::{TxtFact, assess, succeeded};
use stsrelay::sts::policy::MAX_AGE_MAX;
use stsrelay::sts::{CachedPolicy, StsPolicy};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::address::{check_domain, kept};
use super::input::Input;

/// Lines of one file.
const LINES_MAX: usize = 50;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut file = Vec::new();
    if input.flag() {
        file.extend_from_slice(b"stsrelay policies 1\n");
    }
    for _ in 0..LINES_MAX {
        if input.is_empty() {
            break;
        }
        let whole = input.flag();
        let line: Vec<u8> = input.long().iter().copied().filter(|b| !whole || *b != b'\n').collect();
        if whole {
            push(&mut file, &line);
        } else {
            file.extend_from_slice(&line);
        }
    }
    // A line of its own, however the one before it ends.
    let good = good();
    if file.last().is_some_and(|b| *b != b'\n') {
        file.push(b'\n');
    }
    let json = serde_json::json!({ "key": good.domain, "value": good });
    push(&mut file, json.to_string().as_bytes());
    runtime().block_on(async {
        let place = place();
        let folder = place.path().join("policies");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("policies.log"), &file).expect("a file");
        let found = match open(&place) {
            Ok((policies, _)) => {
                assert_eq!(policies.get(&good.domain).as_deref(), Some(&good), "a good line is lost");
                policies.list()
            }
            // Only a first line that says so.
            Err(error) => {
                assert!(matches!(error, QueueError::Newer { .. }) && file.starts_with(b"stsrelay policies "));
                return;
            }
        };
        found.iter().for_each(|entry| check(entry));
        // It was written anew where it had to be, and says the same.
        let (again, repaired) = open(&place).expect("what was opened once opens again");
        assert_eq!((again.list(), repaired), (found, Vec::<String>::new()));
    });
}

/// Whatever is in the store, nothing lives longer than a policy may, and nothing overflows.
fn check(entry: &CachedPolicy) {
    check_domain(&entry.domain);
    assert_eq!(kept(entry), *entry);
    if let Some(held) = &entry.held {
        assert!(held.policy.max_age <= MAX_AGE_MAX);
        let life = held.expires_at().as_second() - held.fetched_at.as_second();
        assert!((0..=i64::from(MAX_AGE_MAX)).contains(&life));
    }
    let now = Timestamp::from_second(1_790_000_000).expect("a time of our days");
    for at in [now, Timestamp::MIN, Timestamp::MAX] {
        let _ = (entry.live(at), entry.refresh_due_at(at), entry.is_dead(at), entry.anchored(at));
        let _ = assess(Some(entry), &TxtFact::Record("1".into()), at);
    }
}

fn push(file: &mut Vec<u8>, json: &[u8]) {
    file.extend_from_slice(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
    file.extend_from_slice(json);
    file.push(b'\n');
}

fn good() -> CachedPolicy {
    let text = "version: STSv1\nmode: enforce\nmx: mx.good.test\nmax_age: 86400\n";
    let policy = StsPolicy::parse(text.as_bytes()).expect("a policy");
    let now = Timestamp::from_second(1_790_000_000).expect("a time of our days");
    let domain = Domain::parse("good.test").expect("a domain");
    succeeded(&domain, policy, "1".into(), now, 0.5).expect("it is kept")
}

fn open(place: &TempDir) -> Result<(Policies, Vec<String>), QueueError> {
    let ground = Ground {
        disk: Arc::new(RealDisk),
        loops: Loops::Tasks,
        boot: "boot".to_owned(),
        limits: Limits::DEFAULT,
        index: false,
        nonce: [7; 16],
        metrics: Metrics::new(),
    };
    Policies::open_over(&ground, place.path())
}

/// A folder in memory, where there is such a file system.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// One for each run: with it end the loops of the stores opened in it, and their files are closed.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}
