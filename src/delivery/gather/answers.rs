//! DNS answers kept in memory for their TTL; equal questions at the same time are one question.
//!
//! Bounded: a full map drops what has expired, then a part of the rest. Nothing here is needed for
//! correctness, only for speed. Times are tokio's, so a clock that is set does not matter.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::mail::Domain;
use crate::net::dns::{Lookup, LookupFailure};

/// Answers kept per kind of question; some megabytes.
const ANSWERS_MAX: usize = 20_000;
/// An answer is kept for its TTL, and no longer than this.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// "No such name" and "no such record" come without a TTL through the DNS door; a burst of mail
/// shares them, and a record newly published is seen soon.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);
/// A failed lookup is shared by a burst of mail and asked again by the next attempt.
const FAILED_TTL: Duration = Duration::from_secs(5);
/// No caller waits longer for one question, whatever the DNS door does.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);

/// The answers to one kind of question, by the domain asked about.
pub(super) struct Answers<T> {
    kind: &'static str,
    cells: Mutex<HashMap<Domain, Arc<Cell<T>>>>,
}

/// Empty while its question is under way.
type Cell<T> = OnceCell<Arc<Known<T>>>;

/// An answer and its life.
pub(super) struct Known<T> {
    pub(super) lookup: Lookup<T>,
    asked_at: Instant,
    until: Instant,
}

impl<T> Answers<T> {
    /// `kind` is the record type, for errors.
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, cells: Mutex::new(HashMap::new()) }
    }

    /// The answer about `domain`; `question` is asked only when none is kept. Dropping the future is
    /// fine: another waiter goes on with its own question.
    pub(super) async fn ask<F>(&self, domain: &Domain, question: impl FnOnce() -> F) -> Arc<Known<T>>
    where
        F: Future<Output = Lookup<T>>,
    {
        let cell = self.cell(domain);
        let known = cell
            .get_or_init(|| async {
                let asked_at = Instant::now();
                let lookup = match tokio::time::timeout(LOOKUP_TIME_MAX, question()).await {
                    Ok(lookup) => lookup,
                    Err(_) => Lookup::Failed(LookupFailure {
                        name: domain.to_string(),
                        kind: self.kind,
                        bogus: false,
                        text: format!("no answer within {} s", LOOKUP_TIME_MAX.as_secs()),
                    }),
                };
                let until = Instant::now() + time_to_live(&lookup);
                Arc::new(Known { lookup, asked_at, until })
            })
            .await;
        Arc::clone(known)
    }

    /// Makes the next `ask` a new question, unless the answer is at most `age` old or under way.
    pub(super) fn renew(&self, domain: &Domain, age: Duration) {
        let mut cells = self.lock();
        let old = |cell: &Arc<Cell<T>>| cell.get().is_some_and(|known| known.asked_at.elapsed() > age);
        if cells.get(domain).is_some_and(old) {
            cells.remove(domain);
        }
    }

    /// Forgets the answer about `domain`.
    pub(super) fn forget(&self, domain: &Domain) {
        self.lock().remove(domain);
    }

    /// Forgets what could not be answered.
    pub(super) fn forget_failures(&self) {
        let failed =
            |cell: &Arc<Cell<T>>| cell.get().is_some_and(|known| matches!(known.lookup, Lookup::Failed(_)));
        self.lock().retain(|_, cell| !failed(cell));
    }

    /// Forgets all answers.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Whether `ask` would put no question: the answer is kept or under way.
    pub(super) fn is_known(&self, domain: &Domain) -> bool {
        self.lock().get(domain).is_some_and(is_useful)
    }

    fn cell(&self, domain: &Domain) -> Arc<Cell<T>> {
        let mut cells = self.lock();
        if let Some(cell) = cells.get(domain)
            && cell.get().is_none_or(|known| Instant::now() < known.until)
        {
            return Arc::clone(cell);
        }
        if cells.len() >= ANSWERS_MAX {
            make_room(&mut cells);
        }
        let cell = Arc::new(Cell::new());
        cells.insert(domain.clone(), Arc::clone(&cell));
        cell
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Domain, Arc<Cell<T>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kept and not expired, or under way with somebody waiting for it.
fn is_useful<T>(cell: &Arc<Cell<T>>) -> bool {
    match cell.get() {
        Some(known) => Instant::now() < known.until,
        None => Arc::strong_count(cell) > 1,
    }
}

fn make_room<T>(cells: &mut HashMap<Domain, Arc<Cell<T>>>) {
    cells.retain(|_, cell| is_useful(cell));
    let mut surplus = cells.len().saturating_sub(ANSWERS_MAX * 3 / 4);
    cells.retain(|_, _| {
        let keep = surplus == 0;
        surplus = surplus.saturating_sub(1);
        keep
    });
}

fn time_to_live<T>(lookup: &Lookup<T>) -> Duration {
    match lookup {
        Lookup::Found(answer) => answer.ttl.min(TTL_MAX),
        Lookup::NoData(_) | Lookup::NxDomain(_) => NEGATIVE_TTL,
        Lookup::Failed(_) => FAILED_TTL,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::net::dns::Answer;
    use crate::route::DnssecStatus;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn found(ttl: u64) -> Lookup<u8> {
        let (status, name) = (DnssecStatus::Insecure, domain("a.example"));
        Lookup::Found(Answer { records: vec![1], status, name, ttl: Duration::from_secs(ttl) })
    }

    async fn ask(answers: &Answers<u8>, asked: &AtomicUsize, lookup: Lookup<u8>) -> Arc<Known<u8>> {
        let question = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            lookup
        };
        answers.ask(&domain("a.example"), question).await
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_at_the_same_time_are_one_even_without_a_ttl() {
        let (answers, asked) = (Answers::new("MX"), AtomicUsize::new(0));
        let both = tokio::join!(ask(&answers, &asked, found(0)), ask(&answers, &asked, found(0)));
        assert_eq!((asked.load(Ordering::SeqCst), &both.1.lookup), (1, &found(0)));
        ask(&answers, &asked, found(0)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_live_for_their_ttl_and_failures_for_moments() {
        for (lookup, seconds) in [
            (found(60), 60),
            (Lookup::NoData(DnssecStatus::Insecure), 10),
            (Lookup::NxDomain(DnssecStatus::Insecure), 10),
            (
                Lookup::Failed(LookupFailure {
                    name: "a.example".to_owned(),
                    kind: "MX",
                    bogus: false,
                    text: "SERVFAIL".to_owned(),
                }),
                5,
            ),
        ] {
            let (answers, asked) = (Answers::new("MX"), AtomicUsize::new(0));
            ask(&answers, &asked, lookup.clone()).await;
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            ask(&answers, &asked, lookup.clone()).await;
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{lookup:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            ask(&answers, &asked, lookup.clone()).await;
            assert_eq!(asked.load(Ordering::SeqCst), 2, "{lookup:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_takes_nobody_with_it() {
        let (answers, asked) = (Answers::new("MX"), AtomicUsize::new(0));
        let patient = ask(&answers, &asked, found(60));
        let hasty = tokio::time::timeout(Duration::from_millis(1), ask(&answers, &asked, found(60)));
        let (hasty, patient) = tokio::join!(hasty, patient);
        assert!(hasty.is_err());
        assert_eq!(patient.lookup, found(60));
        assert!(answers.is_known(&domain("a.example")));
        assert!(!answers.is_known(&domain("b.example")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_answer_ends_as_a_failure() {
        let answers: Answers<u8> = Answers::new("TXT");
        let known = answers.ask(&domain("a.example"), std::future::pending).await;
        let Lookup::Failed(failure) = &known.lookup else { panic!() };
        assert_eq!(failure.to_string(), "DNS lookup of a.example TXT failed: no answer within 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn renewing_asks_again_unless_the_answer_is_young() {
        let (answers, asked) = (Answers::new("TXT"), AtomicUsize::new(0));
        ask(&answers, &asked, found(600)).await;
        answers.renew(&domain("a.example"), Duration::from_secs(60));
        ask(&answers, &asked, found(600)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        answers.renew(&domain("a.example"), Duration::from_secs(60));
        ask(&answers, &asked, found(600)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        answers.forget(&domain("a.example"));
        ask(&answers, &asked, found(600)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_can_be_forgotten_by_themselves() {
        let failed = || {
            Lookup::Failed(LookupFailure {
                name: "a.example".to_owned(),
                kind: "MX",
                bogus: false,
                text: "SERVFAIL".to_owned(),
            })
        };
        for (lookup, questions) in [(failed(), 2), (found(60), 1)] {
            let (answers, asked) = (Answers::new("MX"), AtomicUsize::new(0));
            ask(&answers, &asked, lookup.clone()).await;
            answers.forget_failures();
            ask(&answers, &asked, lookup).await;
            assert_eq!(asked.load(Ordering::SeqCst), questions);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_map_stays_bounded() {
        let answers = Answers::new("MX");
        for i in 0..ANSWERS_MAX + 100 {
            answers.ask(&domain(&format!("d{i}.example")), || async { found(600) }).await;
        }
        let len = answers.lock().len();
        assert!((ANSWERS_MAX / 2..=ANSWERS_MAX).contains(&len), "{len}");
    }
}
