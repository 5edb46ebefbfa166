//! Watches over DNSSEC validation, and says so where it is at fault for what happens to mail.
//!
//! Looks at start and every few minutes, and at once when something happens that a validator out of order
//! would explain: a lookup fails, or a host that had secure TLSA records has none any more. What is protected
//! stays so: such a host is not used until validation works again. What was never secure is not touched, and
//! no failure becomes anything else. What a look means is judged by `net::dns`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answers::Known;
use super::{Gather, Inner};
use crate::dane::{self, TlsaAnswer};
use crate::mail::{Domain, Failure};
use crate::net::dns::{Lookup, MxRecord, Validation};
use crate::route::DnssecStatus;
use crate::sts::radar::Guard;

/// While validation works, or is switched off, it is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// ... and while it does not, so often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What happens to mail is explained by a look at most so old.
const LOOK_AGE_MAX: Duration = Duration::from_secs(1);
/// A look that takes longer has shown that nobody answers.
const LOOK_TIME_MAX: Duration = Duration::from_secs(12);
/// Trouble that goes on is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(3600);

/// What was seen last, and what the log was told.
#[derive(Default)]
pub(super) struct Watch {
    look: Mutex<Arc<OnceCell<Look>>>,
    told: Mutex<Option<(Validation, Instant)>>,
}

struct Look {
    validation: Validation,
    at: Instant,
}

impl Gather {
    /// Looks at DNSSEC validation at once and then now and again, and tells the log what changes; returns
    /// when `shutdown` is cancelled.
    pub async fn run_validator_watch(&self, shutdown: CancellationToken) {
        loop {
            let validation = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                validation = self.inner.validation(Duration::ZERO) => validation,
            };
            let wait = match validation {
                Validation::Works | Validation::Off(_) => LOOK_EVERY,
                Validation::Missing(_) | Validation::Broken(_) | Validation::Silent(_) => LOOK_AGAIN,
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How DNSSEC validation did when it was last looked at: an operator's question does not wait for a
    /// resolver that is silent.
    pub async fn validation(&self) -> Validation {
        self.inner.validation(LOOK_EVERY).await
    }
}

impl Gather {
    /// What the last look showed, if there was one and it is over; asks nobody.
    pub fn last_validation(&self) -> Option<Validation> {
        let look = self.inner.validator.look.lock().unwrap_or_else(PoisonError::into_inner);
        look.get().map(|look| look.validation.clone())
    }

    /// Makes lookups that failed a moment ago new questions: an operator has mended something.
    pub fn forget_failures(&self) {
        let inner = &self.inner;
        inner.mx.forget_failures();
        inner.hosts.forget_failures();
        inner.aliases.forget_failures();
        inner.tlsas.forget_failures();
        inner.tlsas_afresh.forget_failures();
        inner.txts.forget_failures();
    }
}

impl Inner {
    /// What a look at most `age` old shows; looks at the same time are one.
    async fn validation(&self, age: Duration) -> Validation {
        if !self.options().dane {
            return Validation::Off("policy.dane is off: no TLSA record is looked for".to_owned());
        }
        let cell = {
            let mut cell = self.validator.look.lock().unwrap_or_else(PoisonError::into_inner);
            if cell.get().is_some_and(|look| look.at.elapsed() >= age) {
                *cell = Arc::default();
            }
            Arc::clone(&cell)
        };
        let look = cell.get_or_init(|| async {
            let validation =
                tokio::time::timeout(LOOK_TIME_MAX, self.dns.validation()).await.unwrap_or_else(|_| {
                    Validation::Silent(format!("no answer within {} s", LOOK_TIME_MAX.as_secs()))
                });
            if self.tell_validation(&validation) {
                self.forget_answers();
            }
            Look { validation, at: Instant::now() }
        });
        look.await.validation.clone()
    }

    /// Whatever was learned while nobody validated is asked for again.
    fn forget_answers(&self) {
        self.dns.forget_all();
        self.mx.clear();
        self.hosts.clear();
        self.aliases.clear();
        self.tlsas.clear();
        self.tlsas_afresh.clear();
    }

    /// Each change once, and trouble again every hour; whether validation works again.
    fn tell_validation(&self, now: &Validation) -> bool {
        let mut told = self.validator.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.as_ref().map(|(validation, _)| validation);
        let same = before.is_some_and(|before| std::mem::discriminant(before) == std::mem::discriminant(now));
        let long_ago = told.as_ref().is_some_and(|(_, at)| at.elapsed() >= TELL_AGAIN);
        match now {
            Validation::Off(_) => {}
            Validation::Works if same => {}
            Validation::Works => {
                tracing::info!(event = "dnssec-validator", state = "works", "DNSSEC validation works")
            }
            _ if same && !long_ago => return false,
            Validation::Missing(text) => tracing::error!(
                event = "dnssec-validator", state = "missing", detail = %text,
                "DNSSEC is not validated, so DANE is not used; hosts known to use it are left alone"
            ),
            Validation::Broken(text) => tracing::error!(
                event = "dnssec-validator", state = "broken", detail = %text,
                "DNSSEC validation seems broken: mail to signed domains waits"
            ),
            Validation::Silent(text) => tracing::warn!(
                event = "dnssec-validator", state = "silent", detail = %text,
                "it cannot be seen whether DNSSEC validation works"
            ),
        }
        let recovered = *now == Validation::Works && before.is_some() && !same;
        *told = Some((now.clone(), Instant::now()));
        recovered
    }

    /// A failure for which DNS is the cause, with whose fault it is when it is not that of a domain.
    pub(super) async fn blamed(&self, failure: Failure) -> Failure {
        match self.validation(LOOK_AGE_MAX).await.blame() {
            Some(blame) => Failure { text: format!("{}; {blame}", failure.text), ..failure },
            None => failure,
        }
    }

    /// The same for the TLSA records of a host.
    pub(super) async fn blamed_tlsa(&self, answer: TlsaAnswer) -> TlsaAnswer {
        let TlsaAnswer::Failed(why) = answer else { return answer };
        TlsaAnswer::Failed(match self.validation(LOOK_AGE_MAX).await.blame() {
            Some(blame) => format!("{why}; {blame}"),
            None => why,
        })
    }

    /// Whether a host known for secure TLSA records seems to have none.
    pub(super) fn is_less_than_known(&self, host: &Domain, answer: &TlsaAnswer) -> bool {
        matches!(answer, TlsaAnswer::Absent | TlsaAnswer::Insecure)
            && self.policies.is_guarded(Guard::Tlsa, host)
    }

    /// RFC 7672 §2.1.1: an answer nobody validated proves no absence. Why such an answer about a host is
    /// not believed, by a look made after it.
    pub(super) async fn doubt(&self, host: &Domain) -> Option<String> {
        let doubt = self.validation(Duration::ZERO).await.doubt()?;
        Some(format!("{host} had DNSSEC-secure TLSA records, and whether it still has is not known; {doubt}"))
    }

    /// Makes the next questions about a host new ones, past every cache.
    pub(super) fn forget_host(&self, host: &Domain, end: &Domain, port: u16) {
        self.hosts.forget(host);
        self.aliases.forget(host);
        self.dns.forget(host);
        for owner in [host, end].into_iter().filter_map(|base| dane::tlsa_name(base, port)) {
            self.tlsas.forget(&owner);
            self.tlsas_afresh.forget(&owner);
            self.dns.forget(&owner);
        }
    }

    /// The MX records of a domain. That they lost their signature is believed, and told, only while
    /// validation works.
    pub(super) async fn watched_mx(&self, domain: &Domain) -> Arc<Known<MxRecord>> {
        let ask = || self.mx.ask(domain, || self.dns.mx(domain));
        let mut known = ask().await;
        if is_insecure(&known.lookup) && self.policies.is_guarded(Guard::Mx, domain) {
            if self.validation(Duration::ZERO).await.doubt().is_some() {
                return known;
            }
            self.mx.forget(domain);
            self.dns.forget(domain);
            known = ask().await;
        }
        self.watch_mx(domain, &known.lookup);
        known
    }
}

fn is_insecure<T>(lookup: &Lookup<T>) -> bool {
    match lookup {
        Lookup::Found(answer) => answer.status == DnssecStatus::Insecure,
        Lookup::NoData(status) | Lookup::NxDomain(status) => *status == DnssecStatus::Insecure,
        Lookup::Failed(_) => false,
    }
}
