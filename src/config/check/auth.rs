//! `[auth]`: ways to log in that nobody can use, and limits that would lock users out.

use super::Checker;
use crate::config::secret;
use crate::submission::{Mechanism, Users};

/// A reply may take two minutes (RFC 6409 §5.3), and a shutdown does not wait for longer ones than this.
const SLOW_DOWN_SECONDS_MAX: u64 = 20;

pub(super) fn check(checker: &mut Checker<'_>) {
    let auth = &checker.loaded.config.auth;
    if auth.failures_free == 0 {
        checker.error("auth.failures_free", "must be at least 1: everybody mistypes");
    }
    if auth.failures_of_user < auth.failures_free {
        checker.error("auth.failures_of_user", "is less than auth.failures_free");
    }
    if auth.slow_down_max.0.as_secs() > SLOW_DOWN_SECONDS_MAX {
        checker.error("auth.slow_down_max", format!("must be at most {SLOW_DOWN_SECONDS_MAX}s"));
    }
    for (index, mechanism) in auth.mechanisms.iter().enumerate() {
        if auth.mechanisms[..index].contains(mechanism) {
            checker.error("auth.mechanisms", format!("names {} twice", mechanism.name()));
        }
    }
    // Trouble with the file is told where it is read.
    let file = auth.users_file.as_deref().and_then(|file| secret::locate(file).ok());
    let Some(Ok(users)) = file.as_deref().map(Users::load) else { return };
    let scram = [Mechanism::Scram, Mechanism::ScramPlus];
    let wants_scram = auth.mechanisms.iter().any(|mechanism| scram.contains(mechanism));
    let without = users.without_scram();
    if wants_scram && !users.knows_scram() {
        checker.note("auth.mechanisms", "names SCRAM, and nobody in auth.users_file has a SCRAM line; `stsrelay user hash --scram` makes one");
    } else if let Some(name) = without.first() {
        let who = match without.len() {
            1 => format!("user {name} has"),
            more => format!("{more} users, {name} among them, have"),
        };
        let what = if wants_scram {
            "and cannot use it: a client that knows SCRAM may try nothing else"
        } else {
            "so that SCRAM is not offered"
        };
        checker.note("auth.users_file", format!("{who} no SCRAM line, {what}"));
    }
}
