//! `[auth]`: ways to log in that nobody can use, rules for nobody, and limits that would lock users out.

use super::Checker;
use crate::config::sections::Auth;
use crate::config::{Config, Listener, ListenerTls, secret};
use crate::submission::{ClientCertificates, Mechanism, Sender, Users};

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
    certificates(checker, auth);
    rules(checker, auth);
    // Trouble with the file is told where it is read.
    let file = auth.users_file.as_deref().and_then(|file| secret::locate(file).ok());
    let Some(Ok(users)) = file.as_deref().map(Users::load) else { return };
    for (index, user) in auth.user.iter().enumerate() {
        if !users.has(&user.name) && !auth.client_certificate.iter().any(|entry| entry.name == user.name) {
            let text =
                format!("{:?} is in no line of auth.users_file and has no client certificate", user.name);
            checker.note(&format!("auth.user[{index}].name"), text);
        }
    }
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

/// Whether clients of a listener are asked for certificates.
pub(super) fn asks(config: &Config, listener: &Listener) -> bool {
    listener.client_certificates != ClientCertificates::None && !config.auth.client_certificate.is_empty()
}

/// What a listener says about certificates and senders.
pub(super) fn listener(checker: &mut Checker<'_>, listener: &Listener, key: &dyn Fn(&str) -> String) {
    let config = &checker.loaded.config;
    let wanted = listener.client_certificates;
    if wanted != ClientCertificates::None && listener.tls == ListenerTls::None {
        checker.error(&key("client_certificates"), "needs TLS; set tls = \"starttls\" or \"implicit\"");
    } else if wanted == ClientCertificates::Required && !asks(config, listener) {
        checker.error(
            &key("client_certificates"),
            "none is listed, so nobody could submit; add [[auth.client_certificate]]",
        );
    } else if wanted == ClientCertificates::Optional && !asks(config, listener) {
        checker.note(
            &key("client_certificates"),
            "has no effect: none is listed; add [[auth.client_certificate]]",
        );
    }
    if listener.check_from && listener.senders.is_empty() {
        checker.note(&key("check_from"), "has no effect without senders");
    }
    let largest = config.limits.message_size.0;
    match listener.message_size {
        Some(size) if size.0 == 0 => checker.error(&key("message_size"), "must be more than 0"),
        Some(size) if size.0 > largest => {
            checker.note(&key("message_size"), "has no effect: limits.message_size is less");
        }
        _ => {}
    }
}

fn certificates(checker: &mut Checker<'_>, auth: &Auth) {
    for (index, entry) in auth.client_certificate.iter().enumerate() {
        let key = |name: &str| format!("auth.client_certificate[{index}].{name}");
        if !is_name(&entry.name) {
            checker.error(&key("name"), "a user name is not empty and has no blanks");
        }
        if entry.sha256.is_empty() && entry.subject_names.is_empty() {
            checker.error(&key("name"), "has neither sha256 nor subject_names, so no certificate fits");
        }
        if !entry.subject_names.is_empty() && auth.client_ca_file.is_none() {
            checker.error(
                &key("subject_names"),
                "count only where an authority vouches for them; set auth.client_ca_file",
            );
        }
        let earlier = auth.client_certificate[..index].iter().find(|earlier| {
            earlier.name != entry.name && entry.sha256.iter().any(|sha256| earlier.sha256.contains(sha256))
        });
        if let Some(earlier) = earlier {
            checker.error(&key("sha256"), format!("is {:?}'s already", earlier.name));
        }
    }
    if auth.client_ca_file.is_some()
        && auth.client_certificate.iter().all(|entry| entry.subject_names.is_empty())
    {
        checker
            .note("auth.client_ca_file", "has no effect: no [[auth.client_certificate]] has subject_names");
    }
    let asked = checker.loaded.config.listener.iter().any(|listener| asks(&checker.loaded.config, listener));
    if !auth.client_certificate.is_empty() && !asked {
        checker.note("auth.client_certificate", "has no effect: no listener has client_certificates");
    }
}

fn rules(checker: &mut Checker<'_>, auth: &Auth) {
    for (index, user) in auth.user.iter().enumerate() {
        let key = |name: &str| format!("auth.user[{index}].{name}");
        if !is_name(&user.name) {
            checker.error(&key("name"), "a user name is not empty and has no blanks");
        }
        if auth.user[..index].iter().any(|earlier| earlier.name == user.name) {
            checker.error(&key("name"), format!("another table is for {:?} already", user.name));
        }
        if user.check_from && user.senders.is_empty() {
            checker.note(&key("check_from"), "has no effect without senders");
        }
        if user.senders == [Sender::Null] {
            checker.note(&key("senders"), "allows bounces alone: the user can submit nothing else");
        }
    }
    if auth.message_size.is_some_and(|size| size.0 == 0) {
        checker.error("auth.message_size", "must be more than 0");
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}
