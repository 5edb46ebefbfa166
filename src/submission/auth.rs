//! Who may authenticate: the users file, password checks off the async threads, and back-off.
//!
//! A wrong password and an unknown user cost the same time and get the same answer, so that names
//! cannot be probed. At most [`CHECKS_MAX`] checks run at a time: each takes some 20 MB and 20 ms of
//! a core by design. Addresses that keep failing are put off before any work is done for them.
//! Called by `submission::session`; [`Users::load`] and [`hash_password`] also by the command line.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::net::world::aside;

use super::sasl::Credentials;

/// Octets of a users file at most: some 50 000 users; more belong into a database.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Memory of one check at most, in KiB; a line that wants more is refused at load.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Passes of one check at most.
const PASSES_MAX: u32 = 64;
/// Checks at a time: the machine's other work goes on.
const CHECKS_MAX: usize = 2;
/// How long a client may wait for its turn (RFC 6409 §5.3: every command within two minutes).
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// Failures of one address that cost it nothing: mistyped passwords.
const FAILURES_FREE: u32 = 5;
/// The longest an address is put off.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// An address without failure for so long starts afresh.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Addresses remembered at most.
const ADDRESSES_MAX: usize = 10_000;

/// The users of a users file. Cheap to clone.
#[derive(Clone, Default)]
pub struct Users(Arc<HashMap<String, PasswordHash>>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// One line: the file, the line in it, what is wrong.
    pub fn load(path: &Path) -> Result<Self, String> {
        let file = path.display();
        let size = std::fs::metadata(path).map_err(|error| format!("{file}: {error}"))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("{file}: a users file may have {FILE_BYTES_MAX} octets, this has {size}"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
        Self::parse(&text).map_err(|(line, what)| format!("{file}:{line}: {what}"))
    }

    /// Reads the lines of a users file: `name:$argon2id$...`, made by `stsrelay user hash`. Empty
    /// lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The number of the line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = user(line).map_err(|what| (number, what))?;
            if users.insert(name.to_owned(), hash).is_some() {
                return Err((number, format!("user {name} is already there")));
            }
        }
        Ok(Self(Arc::new(users)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody can authenticate.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a password; takes its time, on purpose.
    fn check(&self, credentials: &Credentials) -> bool {
        // An unknown name is checked against somebody's hash and fails all the same.
        let known = self.0.get(&credentials.name);
        let Some(hash) = known.or_else(|| self.0.values().next()) else { return false };
        let verified = Argon2::default().verify_password(&credentials.password, hash).is_ok();
        verified && known.is_some()
    }
}

fn user(line: &str) -> Result<(&str, PasswordHash), String> {
    // The hash begins at the last colon: a name may be anything, `user@example.org:8` too.
    let (name, hash) = line.rsplit_once(':').ok_or("a line is name:$argon2id$...")?;
    if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a user name is not empty and has no blanks".to_owned());
    }
    if !hash.starts_with("$argon2id$") {
        return Err(format!(
            "the password of {name} is not an argon2id hash; `stsrelay user hash` makes one"
        ));
    }
    let hash = PasswordHash::new(hash).map_err(|error| format!("the hash of {name} is damaged: {error}"))?;
    let parameters = argon2::Params::try_from(&hash)
        .map_err(|error| format!("the hash of {name} has bad parameters: {error}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("the hash of {name} is incomplete"));
    }
    if parameters.m_cost() > MEMORY_KIB_MAX || parameters.t_cost() > PASSES_MAX {
        return Err(format!(
            "the hash of {name} takes more than {MEMORY_KIB_MAX} KiB or {PASSES_MAX} passes"
        ));
    }
    Ok((name, hash))
}

/// The argon2id hash of a password with a fresh salt, for the users file.
pub fn hash_password(password: &str) -> String {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash: PasswordHash| hash.to_string())
        .expect("the default parameters are valid and the system gives random octets")
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is them.
    Accepted,
    /// Wrong name or password.
    Refused,
    /// This address failed too often; nothing was checked.
    PutOff(Duration),
    /// Too many checks are waiting; nothing was checked.
    Busy,
}

/// Checks credentials, within bounds. One for all listeners.
pub(super) struct Authenticator {
    turns: Arc<Semaphore>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// When another try is allowed: at once for the first failures, then 1, 2, 4 ... seconds later.
    fn put_off_until(self) -> Instant {
        match self.count.checked_sub(FAILURES_FREE) {
            None => self.last,
            Some(more) => self.last + Duration::from_secs(1 << more.min(16)).min(BACK_OFF_MAX),
        }
    }
}

impl Default for Authenticator {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(CHECKS_MAX)), failures: Mutex::default() }
    }
}

impl Authenticator {
    /// Checks credentials that came from `from` (see [`super::serve::peer_key`]).
    pub(super) async fn check(&self, users: &Users, credentials: Credentials, from: IpAddr) -> Verdict {
        if let Some(wait) = self.put_off(from) {
            return Verdict::PutOff(wait);
        }
        let turn = match timeout(TURN_TIMEOUT, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Verdict::Busy,
        };
        let users = users.clone();
        let checked = aside(move || {
            let _turn = turn;
            users.check(&credentials)
        });
        match checked.await {
            Ok(true) => {
                self.lock().remove(&from);
                Verdict::Accepted
            }
            Ok(false) => {
                self.count(from);
                Verdict::Refused
            }
            Err(_) => Verdict::Busy,
        }
    }

    fn put_off(&self, from: IpAddr) -> Option<Duration> {
        let until = self.lock().get(&from)?.put_off_until();
        Some(until.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn count(&self, from: IpAddr) {
        let now = Instant::now();
        let mut failures = self.lock();
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&from) {
            failures.retain(|_, old| now.duration_since(old.last) < FORGET_AFTER);
            if failures.len() >= ADDRESSES_MAX
                && let Some(victim) = failures.keys().next().copied()
            {
                failures.remove(&victim);
            }
        }
        let entry = failures.entry(from).or_insert(Failures { count: 0, last: now });
        if now.duration_since(entry.last) >= FORGET_AFTER {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
    }

    /// The table is valid after a panic elsewhere: it holds plain numbers.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A cheap hash, for tests that check many passwords: 64 KiB, one pass.
    pub(in crate::submission) fn cheap_hash(password: &str) -> String {
        let parameters = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let hash: PasswordHash =
            argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsaltsalt").unwrap();
        hash.to_string()
    }

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials { name: name.into(), password: password.into() }
    }

    #[test]
    fn a_hash_of_ours_is_a_line_of_a_users_file() {
        let text = format!("# people\n\n  alice@example.org:{}  \r\n", hash_password("s3cret"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 1);
        assert!(users.check(&credentials("alice@example.org", "s3cret")));
        assert!(!users.check(&credentials("alice@example.org", "S3cret")));
        assert!(!users.check(&credentials("bob", "s3cret")));
        assert!(!Users::default().check(&credentials("bob", "")));
        assert_ne!(hash_password("x"), hash_password("x"));
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        let bad = |text: &str, line: usize, what: &str| {
            let (at, why) = Users::parse(text).unwrap_err();
            assert_eq!(at, line, "{why}");
            assert!(why.contains(what), "{why}");
        };
        let hash = cheap_hash("x");
        bad("alice", 1, "name:$argon2id$");
        bad(&format!("\n#\n:{hash}"), 3, "not empty");
        bad(&format!("a b:{hash}"), 1, "blanks");
        bad("alice:plaintext", 1, "argon2id");
        bad("alice:$2b$10$abcdefghijklmnopqrstuv", 1, "argon2id");
        bad("alice:$argon2id$v=19$m=64,t=1", 1, "alice");
        bad("alice:$argon2id$!!", 1, "damaged");
        bad(&format!("a:{hash}\nb:{hash}\na:{hash}"), 3, "already");
        bad(&format!("a:{}", hash.replace("m=64", "m=4000000")), 1, "more than");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Users::load(Path::new("/nonexistent/users")).unwrap_err();
        assert!(error.starts_with("/nonexistent/users: "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_keeps_failing_is_put_off_and_forgiven_by_time_or_success() {
        let users = Users::parse(&format!("alice:{}", cheap_hash("right"))).unwrap();
        let authenticator = Authenticator::default();
        let from = IpAddr::from([192, 0, 2, 1]);
        let check = |password| authenticator.check(&users, credentials("alice", password), from);
        for _ in 0..FAILURES_FREE {
            assert_eq!(check("wrong").await, Verdict::Refused);
        }
        assert!(matches!(check("right").await, Verdict::PutOff(wait) if wait <= Duration::from_secs(1)));
        let other = IpAddr::from([192, 0, 2, 2]);
        let elsewhere = authenticator.check(&users, credentials("alice", "right"), other).await;
        assert_eq!(elsewhere, Verdict::Accepted);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(check("wrong").await, Verdict::Refused);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(check("right").await, Verdict::PutOff(_)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(check("right").await, Verdict::Accepted);
        assert_eq!(check("wrong").await, Verdict::Refused);
        assert_eq!(check("right").await, Verdict::Accepted);
    }

    #[test]
    fn the_table_of_failures_is_bounded() {
        let authenticator = Authenticator::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        for n in 0..=ADDRESSES_MAX as u32 + 5 {
            authenticator.count(IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(authenticator.lock().len(), ADDRESSES_MAX);
    }
}
