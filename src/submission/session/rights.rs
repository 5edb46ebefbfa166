//! What a client may do: by its network, its certificate or its login, as whom, and how much of it.
//!
//! A refusal for now is always 4xx, so that nothing is lost; only a sender that is not allowed, or a client
//! that may not submit at all, is told so for good.

use std::net::IpAddr;
use std::sync::Arc;

use samotop_core::smtp::SmtpContext;
use tokio::time::Instant;

use super::commands::reply;
use super::wire::Asking;
use super::{Client, Dialogue, dialogue};
use crate::mail::{Reply, ReversePath};
use crate::submission::quota::{Over, Rule, Whom};
use crate::submission::sasl::Mechanism;
use crate::submission::senders::Senders;
use crate::submission::serve::peer_key;
use crate::submission::users::book::key;
use crate::submission::{ClientCertificates, ListenerAuth};

impl Client {
    /// What a client is asked for in a TLS handshake, if for anything.
    pub(super) fn asking(&self) -> Option<Asking> {
        let listed = !self.options.certificates.is_empty();
        let asks = self.listener.client_certificates != ClientCertificates::None && listed;
        asks.then(|| Asking {
            certificates: Arc::clone(&self.options.certificates),
            clock: Arc::clone(&self.shared.clock),
            listener: self.listener.name.clone(),
            client: self.peer.ip(),
        })
    }

    /// Whose certificate it has shown, if that is listed.
    pub(super) fn certified(&self) -> Option<&str> {
        self.facts.get()?.certificate.as_ref()?.user.as_deref().ok()
    }

    /// Nothing can be submitted here without a certificate, and it has none that counts.
    pub(super) fn lacks_certificate(&self) -> bool {
        self.listener.client_certificates == ClientCertificates::Required && self.certified().is_none()
    }

    /// Whether it may submit without AUTH.
    fn relays(&self) -> bool {
        let certified = self.listener.auth != ListenerAuth::Required && self.certified().is_some();
        certified || self.trusted()
    }

    /// Whether it may submit.
    pub(super) fn entitled(&self, now: &Dialogue) -> bool {
        !self.lacks_certificate() && (now.login.is_some() || self.relays())
    }

    /// Who it is, in the log and for limits.
    pub(super) fn user<'a>(&'a self, now: &'a Dialogue) -> Option<&'a str> {
        now.login.as_deref().or_else(|| self.certified())
    }

    fn rule(&self, user: Option<&str>) -> &Rule {
        user.map_or(&self.listener.rule, |name| self.options.rules.of(name))
    }

    /// Octets of a message at most; 0 for no limit.
    pub(super) fn message_size(&self, now: &Dialogue) -> u64 {
        let user = self.rule(self.user(now)).message_size;
        let limits = [self.options.message_size, self.listener.rule.message_size, user];
        limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0)
    }

    /// What the From field is held to.
    pub(super) fn author_rule(&self, now: &Dialogue) -> Option<Senders> {
        let rule = self.rule(self.user(now));
        rule.check_from.then(|| rule.senders.clone())
    }

    /// Whether MAIL with this path may be said now.
    pub(super) fn may_submit(&self, path: &ReversePath, now: &Dialogue) -> Result<(), Reply> {
        if !self.entitled(now) {
            return Err(self.stranger());
        }
        if let Some(login) = &now.login
            && now.mechanism != Some(Mechanism::External)
            && !self.options.users.has(login)
        {
            return Err(reply(530, 7, 0, "your login is not valid any more, authenticate again"));
        }
        let user = self.user(now);
        let senders = &self.rule(user).senders;
        if !senders.allow(path) {
            self.shared.metrics.limited(&self.listener.name, "sender");
            let who = user.unwrap_or("your network");
            let text = format!("{who} may not send as <{}>; allowed: {senders}", path_text(path));
            return Err(reply(550, 7, 1, &text));
        }
        Ok(())
    }

    /// RFC 6409 §4.3 and §3.3: authorised submission only.
    fn stranger(&self) -> Reply {
        let shown = self.facts.get().and_then(|session| session.certificate.as_ref());
        let certificate = shown.and_then(|shown| Some((shown.sha256, shown.user.as_ref().err()?)));
        if self.lacks_certificate() {
            return match certificate {
                _ if self.offers_starttls() => {
                    reply(530, 7, 0, "say STARTTLS first, with a client certificate")
                }
                Some((sha256, why)) => reply(
                    554,
                    7,
                    1,
                    &format!(
                        "relay access denied: your client certificate does not count, {why}; its SHA-256 is {sha256}"
                    ),
                ),
                None => reply(
                    554,
                    7,
                    1,
                    "relay access denied: no client certificate was shown, and one is needed",
                ),
            };
        }
        if self.offers_auth() {
            reply(530, 7, 0, "authentication required")
        } else if self.offers_starttls() && self.listener.auth != ListenerAuth::None {
            reply(530, 7, 0, "say STARTTLS first, then authenticate")
        } else if self.offers_starttls() && self.asks() {
            reply(530, 7, 0, "say STARTTLS first, with a client certificate")
        } else if let Some((sha256, why)) = certificate {
            let text = format!(
                "relay access denied: your address is in no trusted network, and your client certificate does not count, {why}; its SHA-256 is {sha256}"
            );
            reply(554, 7, 1, &text)
        } else {
            reply(554, 7, 1, "relay access denied: your address is in no trusted network")
        }
    }

    fn asks(&self) -> bool {
        self.listener.client_certificates != ClientCertificates::None && !self.options.certificates.is_empty()
    }

    /// Reserves a message, and for a user a connection if that has not been done.
    pub(super) fn reserve(&self, state: &mut SmtpContext) -> Result<(), Reply> {
        let now = dialogue(state);
        let user = self.user(now).map(str::to_owned);
        let rule = self.rule(user.as_deref());
        if let Some(user) = &user
            && now.connection.is_none()
        {
            now.connection = self.connect_as(user).map(Some).ok_or_else(|| self.crowded(user, 450))?;
        }
        if rule.messages_per_hour == 0 && rule.recipients_per_hour == 0 {
            return Ok(());
        }
        let reserved = self.shared.quotas.message(self.whom(user.as_deref()), rule, Instant::now());
        now.reservation = Some(reserved.map_err(|over| self.over(over, user.as_deref()))?);
        Ok(())
    }

    /// Reserves a recipient of the transaction.
    pub(super) fn reserve_recipient(&self, now: &mut Dialogue) -> Result<(), Reply> {
        let reserved = now.reservation.as_mut().map(|reservation| reservation.recipient(Instant::now()));
        reserved.unwrap_or(Ok(())).map_err(|over| self.over(over, self.user(now)))
    }

    /// One of the connections that a user may have; `None` when there is none left.
    pub(super) fn connect_as(&self, user: &str) -> Option<crate::submission::quota::Connection> {
        let max = self.rule(Some(user)).connections;
        self.shared.quotas.connection(self.whom(Some(user)), max, Instant::now())
    }

    /// The refusal when there is none left.
    pub(super) fn crowded(&self, user: &str, code: u16) -> Reply {
        self.shared.metrics.limited(&self.listener.name, "connections");
        let max = self.rule(Some(user)).connections;
        let text = format!("{user} has {max} connections already, try again later");
        if code == 454 { reply(454, 7, 0, &text) } else { reply(code, 7, 1, &text) }
    }

    fn whom(&self, user: Option<&str>) -> Whom {
        match user {
            Some(name) => Whom::User(key(name)),
            None => Whom::Network(self.listener.name.clone(), self.network()),
        }
    }

    /// What stands for the client's address in limits.
    pub(super) fn network(&self) -> IpAddr {
        peer_key(self.peer.ip())
    }

    fn over(&self, over: Over, user: Option<&str>) -> Reply {
        self.shared.metrics.limited(&self.listener.name, over.what);
        let who = user.unwrap_or("your network");
        let Over { what, limit, wait } = over;
        let minutes = wait.as_secs().div_ceil(60);
        reply(450, 7, 1, &format!("{who} may submit {limit} {what} an hour, try again in {minutes} min"))
    }
}

fn path_text(path: &ReversePath) -> String {
    path.mailbox().map(ToString::to_string).unwrap_or_default()
}
