//! Checks of passwords, within bounds: off the async threads, few at a time, and late or not at all
//! for those who keep failing.
//!
//! A wrong password and an unknown user cost the same time and get the same answer, so that names
//! cannot be probed. At most [`CHECKS_MAX`] checks run at a time: each takes some 20 MB and 20 ms of
//! a core by design. Called by `submission::session`; one for all listeners.
//! See also: `lockout` (who has to wait), `users` (who there is).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::lockout::{Admission, Lockout, LockoutOptions};
use super::sasl::Credentials;
use super::users::Users;
use super::users::book::key;
use crate::net::world::aside;

pub use super::users::{hash_password, scram_accepts, scram_password};

/// Checks at a time: the machine's other work goes on.
const CHECKS_MAX: usize = 2;
/// How long a client may wait for its turn (RFC 6409 §5.3: every command within two minutes).
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this user, by the name of the users file.
    Accepted(String),
    /// Wrong name or password.
    Refused,
    /// Too many failures; nothing was checked.
    PutOff(Duration),
    /// Too many checks are waiting; nothing was checked.
    Busy,
}

/// See the module.
pub(super) struct Authenticator {
    turns: Arc<Semaphore>,
    lockout: Mutex<Lockout>,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(CHECKS_MAX)), lockout: Mutex::default() }
    }
}

impl Authenticator {
    /// Waits as long as an attempt of `name` has to. `from` is a network
    /// (see [`super::serve::peer_key`]).
    ///
    /// # Errors
    /// It is not to be checked for so long.
    pub(super) async fn admit(
        &self,
        options: &LockoutOptions,
        name: &str,
        from: IpAddr,
    ) -> Result<(), Duration> {
        let admission = self.lock().admit(options, &key(name), from, Instant::now());
        match admission {
            Admission::Refuse(wait) => Err(wait),
            Admission::After(wait) => {
                pause(wait).await;
                Ok(())
            }
        }
    }

    /// Counts a failure; returns when it may be told.
    pub(super) async fn refused(&self, options: &LockoutOptions, name: &str, from: IpAddr) {
        let wait = self.lock().failed(options, &key(name), from, Instant::now());
        pause(wait).await;
    }

    /// Counts a success.
    pub(super) fn accepted(&self, options: &LockoutOptions, name: &str, from: IpAddr) {
        self.lock().succeeded(options, &key(name), from, Instant::now());
    }

    /// Checks credentials that came from `from`.
    pub(super) async fn check(
        &self,
        options: &LockoutOptions,
        users: &Users,
        credentials: Credentials,
        from: IpAddr,
    ) -> Verdict {
        let name = credentials.name.clone();
        if let Err(wait) = self.admit(options, &name, from).await {
            return Verdict::PutOff(wait);
        }
        let turn = match timeout(TURN_TIMEOUT, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Verdict::Busy,
        };
        let book = users.book();
        let checked = aside(move || {
            let _turn = turn;
            book.check(&credentials)
        });
        match checked.await {
            Ok(Some(user)) => {
                self.accepted(options, &name, from);
                Verdict::Accepted(user)
            }
            Ok(None) => {
                self.refused(options, &name, from).await;
                Verdict::Refused
            }
            Err(_) => Verdict::Busy,
        }
    }

    /// The tables are valid after a panic elsewhere: they hold plain numbers.
    fn lock(&self) -> std::sync::MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::users::tests::cheap_hash;
    use super::*;

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials { name: name.into(), password: password.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_keeps_failing_is_put_off_and_forgiven_by_time_or_success() {
        let users = Users::parse(&format!("alice:{}", cheap_hash("right"))).unwrap();
        let authenticator = Authenticator::default();
        let options = LockoutOptions::default();
        let from = IpAddr::from([192, 0, 2, 1]);
        let check = |password| authenticator.check(&options, &users, credentials("alice", password), from);
        let alice = || Verdict::Accepted("alice".into());
        for _ in 0..options.failures_free {
            assert_eq!(check("wrong").await, Verdict::Refused);
        }
        assert!(matches!(check("right").await, Verdict::PutOff(wait) if wait <= Duration::from_secs(1)));
        let other = IpAddr::from([192, 0, 2, 2]);
        let elsewhere = authenticator.check(&options, &users, credentials("alice", "right"), other).await;
        assert_eq!(elsewhere, alice());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(check("wrong").await, Verdict::Refused);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(check("right").await, Verdict::PutOff(_)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(check("right").await, alice());
        // From now on it is known to alice: never put off, and answered late.
        for _ in 0..10 {
            assert_eq!(check("wrong").await, Verdict::Refused);
        }
        let before = Instant::now();
        assert_eq!(check("wrong").await, Verdict::Refused);
        assert_eq!(before.elapsed(), options.slow_down_max);
        let before = Instant::now();
        assert_eq!(check("right").await, alice());
        assert!(before.elapsed() < Duration::from_millis(10), "who knows the password does not wait");
    }
}
