//! `[auth]` and what listeners say of it: users, certificates, rules.

use std::sync::Arc;

use super::super::{ConfigError, Listener, Loaded};
use super::{located, named};
use crate::net::tls::ClientAuthorities;
use crate::submission::{CertificateUser, Certificates, LockoutOptions, Rule, Rules, Sender, Senders, Users};

/// `auth.users_file`
pub(super) fn users(loaded: &Loaded) -> Result<Users, ConfigError> {
    match &loaded.config.auth.users_file {
        None => Ok(Users::default()),
        Some(file) => Users::load(&located(loaded, "auth.users_file", file)?)
            .map_err(|text| named(loaded, &text, "auth.users_file")),
    }
}

/// `[[auth.client_certificate]]`, `auth.client_ca_file`
pub(super) fn certificates(loaded: &Loaded) -> Result<Arc<Certificates>, ConfigError> {
    let auth = &loaded.config.auth;
    let authorities = match &auth.client_ca_file {
        None => None,
        Some(file) => {
            let file = located(loaded, "auth.client_ca_file", file)?;
            let read = ClientAuthorities::load(&file);
            Some(read.map_err(|text| loaded.error("auth.client_ca_file", text))?)
        }
    };
    let users = auth.client_certificate.iter().map(|entry| CertificateUser {
        name: entry.name.clone(),
        sha256: entry.sha256.clone(),
        subject_names: entry.subject_names.clone(),
    });
    Ok(Arc::new(Certificates { authorities, users: users.collect() }))
}

pub(super) fn lockout(loaded: &Loaded) -> LockoutOptions {
    let auth = &loaded.config.auth;
    LockoutOptions {
        failures_free: auth.failures_free,
        back_off_max: auth.back_off_max.0,
        failures_of_user: auth.failures_of_user,
        slow_down_max: auth.slow_down_max.0,
        known_for: auth.known_for.0,
    }
}

/// What each user may do.
pub(super) fn rules(loaded: &Loaded) -> Rules {
    let auth = &loaded.config.auth;
    let mut rules = Rules::new(Rule {
        messages_per_hour: auth.messages_per_hour,
        recipients_per_hour: auth.recipients_per_hour,
        message_size: auth.message_size.map_or(0, |size| size.0),
        connections: auth.connections,
        senders: Senders::default(),
        check_from: false,
    });
    for user in &auth.user {
        let default = &rules.default;
        let rule = Rule {
            messages_per_hour: user.messages_per_hour.unwrap_or(default.messages_per_hour),
            recipients_per_hour: user.recipients_per_hour.unwrap_or(default.recipients_per_hour),
            message_size: user.message_size.map_or(default.message_size, |size| size.0),
            connections: user.connections.unwrap_or(default.connections),
            senders: Senders(user.senders.clone()),
            check_from: user.check_from,
        };
        rules.insert(&user.name, rule);
    }
    rules
}

/// What each client of a listener may do without a login.
pub(super) fn listener_rule(listener: &Listener) -> Rule {
    let mut senders = listener.senders.clone();
    // A relay in front of us must be able to bounce.
    if !senders.is_empty() && !senders.contains(&Sender::Null) {
        senders.push(Sender::Null);
    }
    Rule {
        messages_per_hour: listener.messages_per_hour,
        recipients_per_hour: listener.recipients_per_hour,
        message_size: listener.message_size.map_or(0, |size| size.0),
        connections: 0,
        senders: Senders(senders),
        check_from: listener.check_from,
    }
}
