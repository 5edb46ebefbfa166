//! The SASL exchanges PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 with and without channel binding (RFC 5802,
//! RFC 7677) and EXTERNAL (RFC 4422 appendix A), over AUTH's base64 lines (RFC 4954 §4).
//!
//! Pure: lines in, challenges or claims out. Whether a claim is right is the business of `auth`, `scram`
//! and `certificates`. Never logs or shows a password.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::scram::{Binding, Channel, ClientFirst, ScramError, Waiting};
use super::users::book::Book;
use crate::mail::{EnhancedStatus, Reply};

/// Octets of a user name or password at most; longer ones cannot be in a users file.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// A way to authenticate; `auth.mechanisms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The client certificate of the TLS session.
    #[serde(rename = "EXTERNAL")]
    External,
    /// SCRAM, bound to the TLS session.
    #[serde(rename = "SCRAM-SHA-256-PLUS")]
    ScramPlus,
    /// SCRAM.
    #[serde(rename = "SCRAM-SHA-256")]
    Scram,
    /// Name and password in one line.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Name and password in two lines.
    #[serde(rename = "LOGIN")]
    Login,
}

impl Mechanism {
    /// In the order they are offered in: those that show the least first.
    pub const ALL: [Self; 5] = [Self::External, Self::ScramPlus, Self::Scram, Self::Plain, Self::Login];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::ScramPlus => "SCRAM-SHA-256-PLUS",
            Self::Scram => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// What can be offered to a client now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// The only mechanisms; empty for all that can be.
    pub(super) chosen: &'a [Mechanism],
    /// Who could log in.
    pub(super) book: &'a Book,
    /// What stands for the TLS session, where it has that.
    pub(super) binding: Option<Binding>,
    /// Whose certificate the client has shown, if it counts.
    pub(super) certified: Option<&'a str>,
}

impl Terms<'_> {
    /// The mechanisms offered.
    pub(super) fn offered(&self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(|mechanism| self.offers(*mechanism))
    }

    /// Their names, for EHLO.
    pub(super) fn names(&self) -> String {
        self.offered().map(Mechanism::name).collect::<Vec<_>>().join(" ")
    }

    fn offers(&self, mechanism: Mechanism) -> bool {
        let chosen = self.chosen.contains(&mechanism);
        // A client takes the best it knows and does not try another: SCRAM is offered unasked only
        // where everybody can use it.
        let scram = self.book.knows_scram() && (chosen || self.book.everybody_scram());
        let possible = match mechanism {
            Mechanism::External => self.certified.is_some(),
            Mechanism::ScramPlus => scram && self.binding.is_some(),
            Mechanism::Scram => scram,
            Mechanism::Plain | Mechanism::Login => !self.book.is_empty(),
        };
        possible && (chosen || self.chosen.is_empty())
    }
}

/// What a client claims.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub name: String,
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.name)
    }
}

/// An exchange that waits for the client's next line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exchange {
    /// PLAIN's one message.
    Plain,
    /// LOGIN's user name.
    LoginName,
    /// LOGIN's password for this name.
    LoginPassword(String),
    /// Whom the owner of this certificate wants to be.
    External(String),
    /// SCRAM's first message.
    ScramFirst(Channel),
    /// SCRAM's last message.
    ScramFinal(Box<Waiting>),
    /// The empty line after SCRAM's last message of ours: this user is in.
    ScramEnd(String),
}

/// How an exchange goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Say `334` with this challenge, in base64 already, then wait.
    Challenge(String, Exchange),
    /// A password to be checked.
    Credentials(Credentials),
    /// A user to be looked up, for [`ClientFirst::challenge`].
    ScramFirst(ClientFirst),
    /// A proof to be checked, by [`Waiting::finish`].
    ScramFinal(Box<Waiting>, Vec<u8>),
    /// It is this user.
    Proven(String),
    /// It ends here.
    Failed(SaslError),
}

/// Why an exchange fails before credentials are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaslError {
    /// None that is offered.
    Mechanism,
    /// One that we know, and the operator has left out.
    Weak,
    /// Not base64.
    Base64,
    /// `*`
    Cancelled,
    /// Base64, but not the mechanism's message.
    Message,
    /// The certificate is not the one of whom the client wants to be.
    Identity,
    /// SCRAM's channel binding is of another type.
    BindingType,
    /// SCRAM's channel binding was hidden from the client.
    Downgrade,
}

impl SaslError {
    pub(super) fn reply(self) -> Reply {
        let reply = |code, subject, detail, text| {
            Reply::new(code, EnhancedStatus::new(5, subject, detail), String::from(text))
        };
        // RFC 4954 §4 and §6.
        match self {
            Self::Mechanism => reply(504, 5, 4, "this mechanism is not offered"),
            Self::Weak => reply(
                534,
                7,
                9,
                "this mechanism is too weak for the policy of this server; EHLO names better ones",
            ),
            Self::Base64 => reply(501, 5, 2, "not base64"),
            Self::Cancelled => reply(501, 7, 0, "authentication cancelled"),
            Self::Message => reply(501, 5, 2, "not a message of this mechanism"),
            Self::Identity => reply(535, 7, 8, "your certificate is for another name"),
            Self::BindingType => reply(535, 7, 8, "the channel binding is tls-exporter, with -PLUS only"),
            Self::Downgrade => {
                reply(535, 7, 8, "channel binding is offered here, and your client did not see that")
            }
        }
    }
}

impl From<ScramError> for SaslError {
    fn from(error: ScramError) -> Self {
        match error {
            ScramError::BindingType => Self::BindingType,
            ScramError::Downgrade => Self::Downgrade,
            ScramError::Message | ScramError::Binding | ScramError::Proof => Self::Message,
        }
    }
}

/// `VXNlcm5hbWU6` is `Username:`, `UGFzc3dvcmQ6` is `Password:`, as every client expects of LOGIN.
const USERNAME: &str = "VXNlcm5hbWU6";
const PASSWORD: &str = "UGFzc3dvcmQ6";

/// The mechanism of an `AUTH` command.
pub(super) fn choose(terms: &Terms<'_>, name: &str) -> Result<Mechanism, SaslError> {
    let known = Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name);
    let known = known.ok_or(SaslError::Mechanism)?;
    if terms.offers(known) {
        return Ok(known);
    }
    // RFC 4954 §6: it could be had, if the policy of this server did not ask for better.
    let place = |mechanism| Mechanism::ALL.iter().position(|one| *one == mechanism);
    let better = terms.offered().any(|offered| place(offered) < place(known));
    let possible = Terms { chosen: &[], ..*terms }.offers(known);
    Err(if possible && better { SaslError::Weak } else { SaslError::Mechanism })
}

/// Begins the exchange of an `AUTH` command.
pub(super) fn start(terms: &Terms<'_>, mechanism: Mechanism, initial: Option<&str>) -> Step {
    let (exchange, challenge) = match mechanism {
        Mechanism::Plain => (Exchange::Plain, ""),
        Mechanism::Login => (Exchange::LoginName, USERNAME),
        Mechanism::External => (Exchange::External(terms.certified.unwrap_or_default().to_owned()), ""),
        Mechanism::ScramPlus => match terms.binding {
            Some(binding) => (Exchange::ScramFirst(Channel::Bound(binding)), ""),
            None => return Step::Failed(SaslError::Mechanism),
        },
        Mechanism::Scram if terms.offers(Mechanism::ScramPlus) => {
            (Exchange::ScramFirst(Channel::Offered), "")
        }
        Mechanism::Scram => (Exchange::ScramFirst(Channel::Absent), ""),
    };
    match initial {
        None => Step::Challenge(challenge.to_owned(), exchange),
        // RFC 4954 §4: "=" is the empty initial response.
        Some("=") => exchange.take(Vec::new()),
        Some(initial) => exchange.respond(initial.as_bytes()),
    }
}

impl Exchange {
    /// Takes the client's line, without CRLF.
    pub(super) fn respond(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Failed(SaslError::Cancelled);
        }
        match STANDARD.decode(line) {
            Ok(message) => self.take(message),
            Err(_) => Step::Failed(SaslError::Base64),
        }
    }

    fn take(self, message: Vec<u8>) -> Step {
        let credentials = match self {
            Self::Plain => plain(&message),
            Self::LoginName => match text(&message) {
                Some(name) => return Step::Challenge(PASSWORD.to_owned(), Self::LoginPassword(name)),
                None => None,
            },
            Self::LoginPassword(name) => {
                (message.len() <= CREDENTIAL_BYTES_MAX).then_some(Credentials { name, password: message })
            }
            // RFC 4422 appendix A.1: nobody named is whoever the certificate is for.
            Self::External(name) if message.is_empty() || message == name.as_bytes() => {
                return Step::Proven(name);
            }
            Self::External(_) => return Step::Failed(SaslError::Identity),
            Self::ScramFirst(channel) => {
                return match ClientFirst::parse(&message, channel) {
                    Ok(first) if first.name.len() <= CREDENTIAL_BYTES_MAX => Step::ScramFirst(first),
                    Ok(_) => Step::Failed(SaslError::Message),
                    Err(error) => Step::Failed(error.into()),
                };
            }
            Self::ScramFinal(waiting) => return Step::ScramFinal(waiting, message),
            Self::ScramEnd(name) if message.is_empty() => return Step::Proven(name),
            Self::ScramEnd(_) => None,
        };
        credentials.map_or(Step::Failed(SaslError::Message), Step::Credentials)
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`. Acting for another user is not offered, so an
/// authzid other than the authcid makes the message useless.
fn plain(message: &[u8]) -> Option<Credentials> {
    let mut parts = message.split(|&b| b == 0);
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(authzid.is_empty() || authzid == authcid) {
        return None;
    }
    let short = password.len() <= CREDENTIAL_BYTES_MAX;
    short.then_some(Credentials { name: text(authcid)?, password: password.to_vec() })
}

/// A user name: UTF-8 without control characters, so that it may be logged.
fn text(octets: &[u8]) -> Option<String> {
    let text = str::from_utf8(octets).ok()?;
    let good = !text.is_empty() && text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
