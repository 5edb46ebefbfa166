//! Policies, reports and results: over restarts, power cuts, damage and failing disks.

use jiff::civil::{Date, date};

use super::super::{Policies, ReportEntry, Reports, Results, RuaState, RuaStatus};
use super::sim::SimDisk;
use super::*;
use crate::mail::Domain;
use crate::sts::CachedPolicy;
use crate::tlsrpt::result::{AppliedPolicy, PolicyType, SessionResult};

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub(super) fn policy(name: &str) -> CachedPolicy {
    CachedPolicy { domain: domain(name), held: None, trouble: None }
}

pub(super) fn report(day: Date, name: &str, attempts: u32) -> ReportEntry {
    ReportEntry {
        day,
        domain: domain(name),
        report_id: format!("{day}-{name}"),
        started_at: at(0),
        targets: vec![RuaState {
            rua: "mailto:a@b.example".to_owned(),
            status: RuaStatus::Waiting(at(60)),
            attempts,
            last: None,
        }],
        note: None,
        json: "{}\n".repeat(50),
    }
}

pub(super) fn result(name: &str) -> SessionResult {
    SessionResult {
        report_domain: domain(name),
        policy: AppliedPolicy {
            policy_type: PolicyType::NoPolicyFound,
            policy_domain: domain(name),
            policy_string: [].into(),
            mx_host: [].into(),
        },
        failures: vec![],
    }
}

fn names(policies: &Policies) -> Vec<String> {
    policies.list().iter().map(|entry| entry.domain.to_string()).collect()
}

#[tokio::test]
async fn policies_survive_a_power_cut_once_put() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (policies, repaired) = Policies::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    for name in ["b.example", "a.example", "c.example"] {
        policies.put(policy(name)).await.unwrap();
    }
    assert_eq!(policies.remove(&domain("b.example")).await, Ok(true));
    assert_eq!(policies.remove(&domain("b.example")).await, Ok(false));
    for torn in [0, 30] {
        let cut = tempfile::tempdir().unwrap();
        disk.power_cut(dir.path(), cut.path(), torn);
        let (policies, repaired) = Policies::open(cut.path()).unwrap();
        assert_eq!((names(&policies), repaired), (vec!["a.example".into(), "c.example".into()], vec![]));
        assert_eq!(*policies.get(&domain("a.example")).unwrap(), policy("a.example"));
        assert!(policies.get(&domain("b.example")).is_none());
    }
}

#[tokio::test]
async fn a_damaged_policy_is_dropped_and_told_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (policies, _) = Policies::open(dir.path()).unwrap();
    for name in ["a.example", "b.example", "c.example"] {
        policies.put(policy(name)).await.unwrap();
    }
    drop(policies);
    let path = dir.path().join("policies/policies.log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"b.example\"", "\"B.example\"") + "0000 torn").unwrap();
    let (policies, repaired) = Policies::open(dir.path()).unwrap();
    assert_eq!(names(&policies), ["a.example", "c.example"]);
    assert!(repaired[0].starts_with("1 damaged entries of"), "{repaired:?}");
    assert!(repaired[1].contains("unfinished entry"), "{repaired:?}");
    drop(policies);
    let (policies, repaired) = Policies::open(dir.path()).unwrap();
    assert_eq!((names(&policies).len(), repaired), (2, vec![]));
    drop(policies);
    std::fs::write(&path, "stsrelay policies 99\n").unwrap();
    let error = Policies::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("newer stsrelay"), "{error}");
}

#[tokio::test]
async fn an_entry_that_could_not_be_written_is_written_with_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (policies, _) = Policies::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    policies.put(policy("a.example")).await.unwrap();
    disk.set_room(Some(10));
    assert!(matches!(policies.put(policy("b.example")).await, Err(QueueError::Full(_))));
    assert!(policies.get(&domain("b.example")).is_some(), "in memory all the same");
    disk.set_room(None);
    disk.fail_sync(true);
    assert!(matches!(policies.put(policy("c.example")).await, Err(QueueError::Storage(_))));
    disk.fail_sync(false);
    policies.put(policy("d.example")).await.unwrap();
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    let (policies, repaired) = Policies::open(cut.path()).unwrap();
    assert_eq!((names(&policies).len(), repaired), (4, vec![]));
}

#[tokio::test]
async fn a_ledger_does_not_grow_with_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (reports, _) = Reports::open(dir.path()).unwrap();
    let mut entry = report(date(2026, 11, 21), "a.example", 0);
    entry.json = "x".repeat(300_000);
    for attempts in 0..30 {
        entry.targets[0].attempts = attempts;
        reports.put(entry.clone()).await.unwrap();
    }
    let len = std::fs::metadata(dir.path().join("reports/reports.log")).unwrap().len();
    assert!(len < 3_000_000, "{len}");
    drop(reports);
    let (reports, repaired) = Reports::open(dir.path()).unwrap();
    assert_eq!((reports.list().len(), repaired), (1, vec![]));
    assert_eq!(reports.get(entry.day, &entry.domain).unwrap().targets[0].attempts, 29);
}

#[tokio::test]
async fn reports_are_listed_latest_day_first_and_forgotten_by_day() {
    let dir = tempfile::tempdir().unwrap();
    let (reports, _) = Reports::open(dir.path()).unwrap();
    let days = [date(2026, 11, 20), date(2026, 11, 21), date(2026, 9, 1)];
    for day in days {
        for name in ["b.example", "a.example"] {
            reports.put(report(day, name, 1)).await.unwrap();
        }
    }
    let order: Vec<_> = reports.list().iter().map(|entry| (entry.day, entry.domain.to_string())).collect();
    assert_eq!(order[0], (days[1], "a.example".to_owned()));
    assert_eq!(order[5], (days[2], "b.example".to_owned()));
    reports.forget_before(days[0]).await.unwrap();
    drop(reports);
    let (reports, _) = Reports::open(dir.path()).unwrap();
    assert_eq!(reports.list().len(), 4);
    assert_eq!(*reports.get(days[0], &domain("a.example")).unwrap(), report(days[0], "a.example", 1));
}

#[tokio::test]
async fn reports_are_paged_in_the_order_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let (reports, _) = Reports::open(dir.path()).unwrap();
    assert_eq!(reports.page(None, None, None, 10, |_| true), (vec![], false));
    let days = [date(2026, 11, 20), date(2026, 11, 21), date(2026, 9, 1)];
    for day in days {
        for name in 0..20 {
            reports.put(report(day, &format!("d{name:02}.example"), 1)).await.unwrap();
        }
    }
    let walk =
        |max: usize, day: Option<jiff::civil::Date>, of: Option<&str>, wanted: fn(&ReportEntry) -> bool| {
            let (mut after, mut all, mut pages) = (None, Vec::new(), 0);
            loop {
                let of = of.map(domain);
                let (page, more) = reports.page(after.as_ref(), day, of.as_ref(), max, wanted);
                assert!(page.len() <= max);
                pages += 1;
                after = page.last().map(|last| (last.day, last.domain.clone()));
                all.extend(page);
                if !more {
                    break (all, pages);
                }
            }
        };
    assert_eq!(walk(7, None, None, |_| true), (reports.list(), 9));
    assert_eq!(walk(60, None, None, |_| true).1, 1);
    assert_eq!(walk(7, Some(days[0]), None, |_| true).0, reports.of_day(days[0]));
    let of_one: Vec<_> =
        walk(1, None, Some("d07.example"), |_| true).0.iter().map(|entry| entry.day).collect();
    assert_eq!(of_one, [days[1], days[0], days[2]]);
    assert_eq!(walk(1, Some(days[2]), Some("d07.example"), |_| true).0.len(), 1);
    assert!(walk(5, Some(date(2026, 11, 1)), None, |_| true).0.is_empty());
    let odd: fn(&ReportEntry) -> bool = |entry| entry.domain.as_str().ends_with("1.example");
    assert_eq!(walk(4, None, None, odd).0.len(), 6);
}

#[tokio::test]
async fn results_are_kept_by_utc_day_over_power_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (results, repaired) = Results::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    let evening: Timestamp = "2026-11-21T23:59:59.999Z".parse().unwrap();
    let morning: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    for _ in 0..500 {
        results.record(evening, result("a.example"));
        results.record(morning, result("a.example"));
        results.record(morning, result("b.example"));
    }
    results.flush().await;
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    results.record(morning, result("late.example"));
    drop(results);

    let (results, repaired) = Results::open(cut.path()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    let (day, next) = (date(2026, 11, 21), date(2026, 11, 22));
    assert_eq!(results.days(), [day, next]);
    assert_eq!(results.domains(next), [domain("a.example"), domain("b.example")]);
    assert_eq!(results.tally(day, &domain("a.example")).unwrap().policies[0].successful, 500);
    assert_eq!(results.tally(day, &domain("b.example")), None);
    results.forget_before(next).await.unwrap();
    assert_eq!(results.days(), [next]);
    drop(results);
    assert_eq!(Results::open(cut.path()).unwrap().0.days(), [next]);
    // The one recorded after the cut was written when the last handle went.
    let (results, _) = Results::open(dir.path()).unwrap();
    assert_eq!(results.tally(next, &domain("late.example")).unwrap().policies[0].successful, 1);
}

#[tokio::test]
async fn results_that_could_not_be_written_are_written_later_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (results, _) = Results::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    let count = |results: &Results| {
        results.tally(date(2027, 1, 15), &domain("a.example")).unwrap().policies[0].successful
    };
    for failing in [SimDisk::fail_write, SimDisk::fail_sync] {
        results.record(at(0), result("a.example"));
        results.flush().await;
        failing(&disk, true);
        for _ in 0..10 {
            results.record(at(0), result("a.example"));
        }
        results.flush().await;
        failing(&disk, false);
        results.record(at(0), result("a.example"));
        results.flush().await;
    }
    assert_eq!(count(&results), 24);
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    let (results, repaired) = Results::open(cut.path()).unwrap();
    assert_eq!((count(&results), repaired), (24, vec![]));
}

#[tokio::test]
async fn a_damaged_result_is_dropped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (results, _) = Results::open(dir.path()).unwrap();
    results.record(at(0), result("a.example"));
    results.flush().await;
    results.record(at(0), result("b.example"));
    drop(results);
    let path = dir.path().join("results/2027-01-15.log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("a.example", "A.example", 1) + "12").unwrap();
    let (results, repaired) = Results::open(dir.path()).unwrap();
    assert_eq!(results.domains(date(2027, 1, 15)), [domain("b.example")]);
    assert!(repaired[0].contains("counts too few"), "{repaired:?}");
    results.record(at(0), result("c.example"));
    results.flush().await;
    drop(results);
    let (results, repaired) = Results::open(dir.path()).unwrap();
    assert_eq!((results.domains(date(2027, 1, 15)).len(), repaired), (2, vec![]));
}

#[test]
fn a_day_of_many_sessions_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (results, _) = Results::open(dir.path()).unwrap();
    let mut long = result("a.example");
    long.policy.policy_string = ["v=STSv1".repeat(400)].into();
    for _ in 0..200_000 {
        results.record(at(0), long.clone());
    }
    drop(results);
    let len = std::fs::metadata(dir.path().join("results/2027-01-15.log")).unwrap().len();
    assert!(len < 20 << 20, "{len}");
    let (results, _) = Results::open(dir.path()).unwrap();
    let tally = results.tally(date(2027, 1, 15), &domain("a.example")).unwrap();
    assert_eq!(tally.policies[0].successful, 200_000);
}
