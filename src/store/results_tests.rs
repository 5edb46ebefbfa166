//! Tallies over restarts, damage and midnight.

use super::*;
use crate::tlsrpt::{AppliedPolicy, PolicyType};

fn result(domain: &str) -> SessionResult {
    let domain = Domain::parse(domain).expect("a name");
    SessionResult {
        report_domain: domain.clone(),
        policy: AppliedPolicy {
            policy_type: PolicyType::NoPolicyFound,
            policy_domain: domain,
            policy_string: Vec::new(),
            mx_host: Vec::new(),
        },
        failures: Vec::new(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn open(dir: &Path, log_bytes_max: u64) -> (Results, Vec<String>) {
    Results::open_on(Arc::new(RealDisk), dir.join("results"), log_bytes_max).expect("it opens")
}

fn count(results: &Results, day: &str, domain: &str) -> u64 {
    let domain = Domain::parse(domain).expect("a name");
    results.tally(day.parse().expect("a day"), &domain).map_or(0, |tally| tally.policies[0].successful)
}

#[tokio::test]
async fn a_session_counts_under_the_utc_day_of_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (results, _) = open(dir.path(), LOG_BYTES_MAX);
    results.record(at("2026-11-21T23:59:59Z"), result("a.test"));
    results.record(at("2026-11-22T00:00:00Z"), result("a.test"));
    results.record(at("2026-11-22T00:30:00+01:00"), result("b.test"));
    results.flush().await;
    assert_eq!(results.days().len(), 2);
    assert_eq!(count(&results, "2026-11-21", "a.test"), 1);
    assert_eq!(count(&results, "2026-11-22", "a.test"), 1);
    assert_eq!(count(&results, "2026-11-21", "b.test"), 1);
}

#[tokio::test]
async fn counts_survive_restarts_with_and_without_snapshots() {
    for log_bytes_max in [LOG_BYTES_MAX, 1000] {
        let dir = tempfile::tempdir().expect("a directory");
        for round in 1..=4 {
            let (results, repairs) = open(dir.path(), log_bytes_max);
            assert!(repairs.is_empty(), "{repairs:?}");
            for _ in 0..25 {
                results.record(at("2026-11-22T12:00:00Z"), result("a.test"));
            }
            results.flush().await;
            assert_eq!(count(&results, "2026-11-22", "a.test"), round * 25);
        }
        let files = std::fs::read_dir(dir.path().join("results")).expect("there").count();
        assert!(log_bytes_max == LOG_BYTES_MAX || files <= 2, "{files} files");
    }
}

#[tokio::test]
async fn a_torn_tail_costs_only_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let (results, _) = open(dir.path(), LOG_BYTES_MAX);
    for _ in 0..3 {
        results.record(at("2026-11-22T12:00:00Z"), result("a.test"));
    }
    results.flush().await;
    drop(results);
    let log = dir.path().join("results/2026-11-22.0.log");
    let text = std::fs::read(&log).expect("readable");
    std::fs::write(&log, &text[..text.len() - 5]).expect("writable");
    let (results, repairs) = open(dir.path(), LOG_BYTES_MAX);
    assert_eq!(repairs.len(), 1);
    assert_eq!(count(&results, "2026-11-22", "a.test"), 2);
    results.record(at("2026-11-22T12:00:00Z"), result("a.test"));
    results.flush().await;
    drop(results);
    assert_eq!(count(&open(dir.path(), LOG_BYTES_MAX).0, "2026-11-22", "a.test"), 3);
}

#[tokio::test]
async fn forgotten_days_are_gone_from_memory_and_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (results, _) = open(dir.path(), LOG_BYTES_MAX);
    for day in ["2026-11-20", "2026-11-21", "2026-11-22"] {
        results.record(at(&format!("{day}T12:00:00Z")), result("a.test"));
    }
    results.forget_before("2026-11-22".parse().expect("a day")).await.expect("forgotten");
    assert_eq!(results.days().len(), 1);
    results.flush().await;
    drop(results);
    assert_eq!(open(dir.path(), LOG_BYTES_MAX).0.days().len(), 1);
}
