//! The SASL exchanges PLAIN (RFC 4616) and LOGIN, over AUTH's base64 lines (RFC 4954 §4).
//!
//! Pure: lines in, challenges or credentials out. Whether the credentials are right is `auth`'s
//! business. Never logs or shows a password.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::mail::{EnhancedStatus, Reply};

/// Octets of a user name or password at most; longer ones cannot be in a users file.
const CREDENTIAL_BYTES_MAX: usize = 1024;

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
}

/// How an exchange goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Say `334` with this challenge, then wait.
    Challenge(&'static str, Exchange),
    /// The client has said it all.
    Credentials(Credentials),
    /// It ends here.
    Failed(SaslError),
}

/// Why an exchange fails before credentials are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaslError {
    /// Neither PLAIN nor LOGIN.
    Mechanism,
    /// Not base64.
    Base64,
    /// `*`
    Cancelled,
    /// Base64, but not the mechanism's message.
    Message,
}

impl SaslError {
    pub(super) fn reply(self) -> Reply {
        let reply = |code, subject, detail, text| {
            Reply::new(code, EnhancedStatus::new(5, subject, detail), String::from(text))
        };
        match self {
            Self::Mechanism => reply(504, 5, 4, "mechanism not offered; PLAIN and LOGIN are"),
            Self::Base64 => reply(501, 5, 2, "not base64"),
            Self::Cancelled => reply(501, 7, 0, "authentication cancelled"),
            Self::Message => reply(501, 5, 2, "not a message of this mechanism"),
        }
    }
}

/// `VXNlcm5hbWU6` is `Username:`, `UGFzc3dvcmQ6` is `Password:`, as every client expects of LOGIN.
const USERNAME: &str = "VXNlcm5hbWU6";
const PASSWORD: &str = "UGFzc3dvcmQ6";

/// Begins the exchange of an `AUTH` command.
pub(super) fn start(mechanism: &str, initial: Option<&str>) -> Step {
    let (exchange, challenge) = match mechanism {
        "PLAIN" => (Exchange::Plain, ""),
        "LOGIN" => (Exchange::LoginName, USERNAME),
        _ => return Step::Failed(SaslError::Mechanism),
    };
    match initial {
        None => Step::Challenge(challenge, exchange),
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
                Some(name) => return Step::Challenge(PASSWORD, Self::LoginPassword(name)),
                None => None,
            },
            Self::LoginPassword(name) => {
                (message.len() <= CREDENTIAL_BYTES_MAX).then_some(Credentials { name, password: message })
            }
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
mod tests {
    use super::*;

    fn credentials(name: &str, password: &str) -> Step {
        Step::Credentials(Credentials { name: name.into(), password: password.into() })
    }

    #[test]
    fn plain_takes_an_initial_response_or_asks_for_it() {
        // NUL tim NUL tanstaaftanstaaf, from RFC 4616 §4.
        let message = "AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
        let want = credentials("tim", "tanstaaftanstaaf");
        assert_eq!(start("PLAIN", Some(message)), want);
        assert_eq!(start("PLAIN", None), Step::Challenge("", Exchange::Plain));
        assert_eq!(Exchange::Plain.respond(message.as_bytes()), want);
        let same = STANDARD.encode("tim\0tim\0x");
        assert_eq!(start("PLAIN", Some(&same)), credentials("tim", "x"));
    }

    #[test]
    fn login_asks_twice_and_takes_the_name_at_once() {
        let Step::Challenge("VXNlcm5hbWU6", exchange) = start("LOGIN", None) else { panic!() };
        let Step::Challenge("UGFzc3dvcmQ6", exchange) = exchange.respond(b"dGlt") else { panic!() };
        assert_eq!(exchange.respond(b"cHc="), credentials("tim", "pw"));
        let Step::Challenge("UGFzc3dvcmQ6", _) = start("LOGIN", Some("dGlt")) else { panic!() };
    }

    #[test]
    fn what_is_no_exchange_fails_with_its_reply() {
        let bad = |step: Step, error: SaslError, code: &str| {
            assert_eq!(step, Step::Failed(error));
            assert!(error.reply().to_string().starts_with(code), "{error:?}");
        };
        bad(start("CRAM-MD5", None), SaslError::Mechanism, "504 5.5.4");
        bad(start("PLAIN", Some("!!!")), SaslError::Base64, "501 5.5.2");
        bad(Exchange::Plain.respond(b"AHRpbQ"), SaslError::Base64, "501 5.5.2");
        bad(Exchange::Plain.respond(b"*"), SaslError::Cancelled, "501 5.7.0");
        bad(start("PLAIN", Some("=")), SaslError::Message, "501 5.5.2");
        for message in ["x", "\0x", "a\0b\0c\0d", "other\0tim\0pw", "\0\0pw", "\0a\nb\0pw"] {
            bad(start("PLAIN", Some(&STANDARD.encode(message))), SaslError::Message, "501");
        }
        bad(start("PLAIN", Some(&STANDARD.encode(b"\0\xff\0pw"))), SaslError::Message, "501");
        bad(start("LOGIN", Some("=")), SaslError::Message, "501");
    }

    #[test]
    fn a_password_is_never_shown() {
        let Step::Credentials(shown) = credentials("tim", "secret") else { panic!() };
        assert!(!format!("{shown:?}").contains("secret"));
    }
}
