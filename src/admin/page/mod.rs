//! The status page: what there is to see, and to do, in a browser.
//!
//! ```text
//! /               what came in, went out, waits; how it was protected; how the relay is
//! /queue          items, by filter; retry, hold, release, delete, bounce
//! /message        one message: recipients, attempts, evidence
//! /destinations   policies, queue and hosts by destination; /destination is one, with its explanation
//! /reports        TLS reports sent and to be sent; /report is one
//! /changes        destinations that protect their mail less than they did
//! /suppressions   recipients that are suppressed
//! /search         an id, an address, a domain: leads on
//! ```
//!
//! HTML made here, one style sheet, no script and nothing from elsewhere: the content security policy allows
//! no more. Asks what the command line asks and does what it does; decides nothing. Every page is bounded.
//! `gate` lets in and believes forms, `session` remembers who is logged in, `shell` is what all pages share.
//! See also: `http`, which serves it.

mod act;
mod changes;
mod destination;
mod destinations;
mod evidence;
mod explain;
mod facts;
mod form;
mod gate;
mod login;
mod message;
mod overview;
mod plot;
mod queue;
mod report;
mod reports;
mod search;
mod session;
mod shell;
mod suppressions;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::facts::{Facts, Live};
use self::session::Sessions;
use super::AdminHandles;
use super::http::{HttpOptions, Wrongs};
use super::protocol::{Answer, QueueTotals, Request};

/// Totals are counted anew after so long: a count looks at every item.
const TOTALS_KEPT: Duration = Duration::from_secs(1);
/// Destinations counted for it.
const TOTALS_DESTINATIONS: usize = 1000;
/// Questions to others (DNS, policy hosts, MX hosts) at a time, for all who look.
const OUTSIDE_MAX: usize = 4;
/// A page waits for such a question so long; what began goes on.
const OUTSIDE_WITHIN: Duration = Duration::from_secs(7);

/// What all pages are made from.
pub(super) struct Page {
    facts: Box<dyn Facts>,
    options: HttpOptions,
    sessions: Sessions,
    /// Wrong tokens of the form.
    wrongs: Wrongs,
    totals: Mutex<Option<(Instant, Arc<QueueTotals>)>>,
    outside: Arc<Semaphore>,
}

impl Page {
    /// A page over these; `None` where there is no randomness to make keys of.
    pub(super) fn new(handles: AdminHandles, options: HttpOptions) -> Option<Arc<Self>> {
        Self::over(Box::new(Live(Arc::new(handles))), options)
    }

    fn over(facts: Box<dyn Facts>, options: HttpOptions) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            facts,
            options,
            sessions: Sessions::new().ok()?,
            wrongs: Wrongs::default(),
            totals: Mutex::default(),
            outside: Arc::new(Semaphore::new(OUTSIDE_MAX)),
        }))
    }

    /// Asks.
    ///
    /// # Errors
    /// What is to be told instead of an answer, one sentence.
    async fn ask(&self, request: Request) -> Result<Answer, String> {
        match self.facts.ask(request).await {
            Answer::Failed { text } => Err(text),
            answer => Ok(answer),
        }
    }

    /// Asks what may take long, for as long as a page may wait; what began goes on. `None` when there was no
    /// answer in time, or too many ask.
    async fn ask_outside(&self, request: Request) -> Option<Result<Answer, String>> {
        let permit = Arc::clone(&self.outside).try_acquire_owned().ok()?;
        let asked = self.facts.ask(request);
        let answering = tokio::spawn(async move {
            let _permit = permit;
            asked.await
        });
        match tokio::time::timeout(OUTSIDE_WITHIN, answering).await {
            Ok(Ok(Answer::Failed { text })) => Some(Err(text)),
            Ok(Ok(answer)) => Some(Ok(answer)),
            Ok(Err(_)) => Some(Err("the question broke off".to_owned())),
            Err(_) => None,
        }
    }

    /// Totals of the queue, at most [`TOTALS_KEPT`] old.
    async fn totals(&self) -> Result<Arc<QueueTotals>, String> {
        let kept = self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, totals)) = kept.filter(|(at, _)| at.elapsed() < TOTALS_KEPT) {
            return Ok(totals);
        }
        match self.ask(Request::QueueStats { destinations: TOTALS_DESTINATIONS }).await? {
            Answer::QueueTotals(totals) => {
                let totals: Arc<QueueTotals> = Arc::new(*totals);
                let kept = Some((Instant::now(), Arc::clone(&totals)));
                *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = kept;
                Ok(totals)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Something was changed: the next page counts anew.
    fn changed(&self) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// An answer to another question; a mistake of ours that must not take the page down.
fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Nothing { text } | Answer::Failed { text } => text.clone(),
        _ => "the answer is not one to this question".to_owned(),
    }
}

/// All of it. The caller bounds requests and their bodies, and looks at the Host field.
pub(super) fn routes<S>(page: &Arc<Page>) -> Router<S> {
    let guarded = Router::new()
        .route("/", get(overview::show))
        .route("/queue", get(queue::show))
        .route("/queue/act", post(act::act))
        .route("/message", get(message::show))
        .route("/destinations", get(destinations::show))
        .route("/destination", get(destination::show))
        .route("/destination/act", post(destination::act))
        .route("/reports", get(reports::show))
        .route("/report", get(report::show))
        .route("/report/preview", get(report::preview))
        .route("/changes", get(changes::show))
        .route("/suppressions", get(suppressions::show))
        .route("/suppressions/act", post(suppressions::act))
        .route("/search", get(search::show))
        .route("/logout", post(login::leave))
        .layer(from_fn_with_state(Arc::clone(page), gate::ask));
    Router::new()
        .route("/login", get(login::show).post(login::enter))
        .route(shell::STYLE.path(), get(shell::style))
        .route(shell::ICON.path(), get(shell::icon))
        .merge(guarded)
        .layer(map_response(gate::harden))
        .with_state(Arc::clone(page))
}
