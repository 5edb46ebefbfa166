//! Logging in at a next hop that wants it (RFC 4954): PLAIN (RFC 4616), or LOGIN where that is all there is.
//!
//! Pure. Begun only inside TLS, and by a driver that gave credentials only where the server was to be
//! authenticated first; both mechanisms show the password to whoever is at the other end. Never shows the
//! password in its own words. Called by `states` once EHLO is answered inside TLS.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::phases::Phase;
use super::session::SessionEnd;
use super::states::{Expect, Facts, Next};
use crate::mail::Reply;
use crate::smtp::extensions::Extensions;

/// Octets of a name or a password at most; what every server takes of one line (RFC 4616 §2).
const PART_BYTES_MAX: usize = 255;
/// Octets of a command line at most (RFC 5321 §4.5.3.1.4); a longer first response goes on a line of its
/// own, which may be longer (RFC 4954 §4).
const COMMAND_BYTES_MAX: usize = 512;

/// Name and password for a next hop. Cheap to clone; shows only the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credentials {
    username: Arc<str>,
    password: Arc<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.username)
    }
}

impl Credentials {
    /// Both as the server knows them, in UTF-8.
    ///
    /// # Errors
    /// What cannot be sent: nothing, a NUL (RFC 4616 §2), or more than 255 octets.
    pub fn new(username: &str, password: &str) -> Result<Self, String> {
        for (what, text) in [("user name", username), ("password", password)] {
            if text.is_empty() {
                return Err(format!("the {what} is empty"));
            }
            if text.len() > PART_BYTES_MAX {
                return Err(format!("the {what} is longer than {PART_BYTES_MAX} octets"));
            }
            if text.chars().any(char::is_control) {
                return Err(format!("the {what} contains a control character"));
            }
        }
        Ok(Self { username: username.into(), password: password.into() })
    }

    /// The name.
    pub fn username(&self) -> &str {
        &self.username
    }
}

/// Why a login did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// No mechanism of ours is offered inside TLS.
    NotOffered,
    /// Refused with this reply (RFC 4954 §6).
    Refused(Reply),
    /// A reply that fits nowhere in the exchange.
    Odd(u16),
}

/// Waits for 334, the next response to which is at hand, or for the verdict.
pub(super) struct ExpectAuth {
    /// Base64, in the order they are asked for.
    responses: VecDeque<String>,
}

impl fmt::Debug for ExpectAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpectAuth({} responses left)", self.responses.len())
    }
}

impl ExpectAuth {
    /// Idle where nobody is to be logged in; otherwise the first line of it.
    pub(super) fn begin(facts: &Facts) -> Next {
        let Some(Credentials { username, password }) = &facts.credentials else { return Next::Idle };
        let Extensions { auth_plain, auth_login, .. } = facts.extensions;
        let (line, responses) = if auth_plain {
            let response = BASE64.encode(format!("\0{username}\0{password}"));
            let line = format!("AUTH PLAIN {response}\r\n");
            if line.len() <= COMMAND_BYTES_MAX {
                (line, VecDeque::new())
            } else {
                ("AUTH PLAIN\r\n".to_owned(), VecDeque::from([response]))
            }
        } else if auth_login {
            let responses = [username, password].map(|part| BASE64.encode(part.as_bytes()));
            ("AUTH LOGIN\r\n".to_owned(), VecDeque::from(responses))
        } else {
            return Next::Leave(SessionEnd::Auth(AuthFailure::NotOffered));
        };
        Next::Send(line.into_bytes(), Expect::Auth(Self { responses }))
    }

    pub(super) fn handle(mut self, reply: Reply) -> Next {
        match reply.code {
            // RFC 4954 §6. No layer of its own came about, so what EHLO said still holds (§4).
            235 => Next::Idle,
            334 => match self.responses.pop_front() {
                Some(response) => Next::Send(format!("{response}\r\n").into_bytes(), Expect::Auth(self)),
                // Whatever it wants to know, QUIT would be taken for the answer.
                None => Next::Close(SessionEnd::Auth(AuthFailure::Odd(334))),
            },
            _ if reply.is_transient() || reply.is_permanent() => {
                Next::Leave(SessionEnd::Auth(AuthFailure::Refused(reply)))
            }
            code => Next::Close(SessionEnd::Auth(AuthFailure::Odd(code))),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::Auth
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Session, Timeouts, TlsUse};
    use super::*;

    fn session(password: &str) -> Session {
        let credentials = Credentials::new("relay@example.org", password).unwrap();
        Session::new("relay.example", TlsUse::Implicit, Timeouts::default()).logging_in(Some(credentials))
    }

    fn sent(session: &mut Session) -> String {
        match session.next_action() {
            Action::Send { bytes, .. } => {
                session.handle_sent(Ok(()));
                String::from_utf8(bytes).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Up to the first line after EHLO inside implicit TLS.
    fn greeted(password: &str, keywords: &str) -> Session {
        let mut session = session(password);
        assert!(matches!(session.next_action(), Action::StartTls { .. }));
        session.handle_tls(Ok(()));
        assert!(matches!(session.next_action(), Action::Read { .. }));
        session.handle_bytes(b"220 smart.example.net\r\n");
        assert_eq!(sent(&mut session), "EHLO relay.example\r\n");
        session.handle_bytes(format!("250-smart.example.net\r\n250 {keywords}\r\n").as_bytes());
        session
    }

    fn base64(text: &str) -> String {
        BASE64.encode(text)
    }

    #[test]
    fn plain_is_one_line_and_login_three() {
        for keywords in ["AUTH LOGIN PLAIN", "auth plain", "AUTH=LOGIN PLAIN", "AUTH=PLAIN"] {
            let mut session = greeted("s3cret", keywords);
            let wanted = format!("AUTH PLAIN {}\r\n", base64("\0relay@example.org\0s3cret"));
            assert_eq!(sent(&mut session), wanted, "{keywords}");
            assert_eq!(session.phase(), Phase::Auth);
            session.handle_bytes(b"235 2.7.0 welcome\r\n");
            assert_eq!(session.next_action(), Action::Idle);
        }
        let mut session = greeted("s3cret", "AUTH LOGIN");
        assert_eq!(sent(&mut session), "AUTH LOGIN\r\n");
        for text in ["relay@example.org", "s3cret"] {
            session.handle_bytes(b"334 whatever\r\n");
            assert_eq!(sent(&mut session), format!("{}\r\n", base64(text)));
        }
        session.handle_bytes(b"235 ok\r\n");
        assert_eq!(session.next_action(), Action::Idle);
    }

    #[test]
    fn a_long_password_goes_on_a_line_of_its_own() {
        let long = "x".repeat(PART_BYTES_MAX);
        let name = "n".repeat(PART_BYTES_MAX);
        let credentials = Credentials::new(&name, &long).unwrap();
        let mut session = Session::new("relay.example", TlsUse::Implicit, Timeouts::default())
            .logging_in(Some(credentials));
        session.next_action();
        session.handle_tls(Ok(()));
        session.handle_bytes(b"220 smart.example.net\r\n");
        sent(&mut session);
        session.handle_bytes(b"250-smart.example.net\r\n250 AUTH PLAIN\r\n");
        assert_eq!(sent(&mut session), "AUTH PLAIN\r\n");
        session.handle_bytes(b"334 \r\n");
        assert_eq!(sent(&mut session), format!("{}\r\n", base64(&format!("\0{name}\0{long}"))));
    }

    #[test]
    fn whatever_else_is_said_ends_the_session_before_mail() {
        for (keywords, reply, wanted) in [
            ("PIPELINING", "", Some(AuthFailure::NotOffered)),
            ("AUTH CRAM-MD5 GSSAPI", "", Some(AuthFailure::NotOffered)),
            ("AUTH PLAIN", "535 5.7.8 no\r\n", None),
            ("AUTH PLAIN", "454 4.7.0 later\r\n", None),
            ("AUTH PLAIN", "334 more\r\n", Some(AuthFailure::Odd(334))),
            ("AUTH PLAIN", "250 fine\r\n", Some(AuthFailure::Odd(250))),
        ] {
            let mut session = greeted("s3cret", keywords);
            if !reply.is_empty() {
                sent(&mut session);
                session.handle_bytes(reply.as_bytes());
            }
            match (session.end(), wanted) {
                (Some(SessionEnd::Auth(AuthFailure::Refused(said))), None) => {
                    assert!(reply.starts_with(&said.code.to_string()));
                }
                (Some(SessionEnd::Auth(failure)), Some(wanted)) => assert_eq!(*failure, wanted, "{reply}"),
                other => panic!("{keywords} {reply}: {other:?}"),
            }
            assert_ne!(session.next_action(), Action::Idle);
        }
    }

    #[test]
    fn nothing_is_shown_before_tls() {
        let credentials = Credentials::new("relay", "s3cret").unwrap();
        for tls in [TlsUse::IfOffered, TlsUse::Never, TlsUse::Required] {
            let mut session =
                Session::new("relay.example", tls, Timeouts::default()).logging_in(Some(credentials.clone()));
            session.handle_bytes(b"220 smart.example.net\r\n");
            sent(&mut session);
            session.handle_bytes(b"250-smart.example.net\r\n250 AUTH PLAIN LOGIN\r\n");
            if let Action::Send { bytes, .. } = session.next_action() {
                assert!(!String::from_utf8_lossy(&bytes).contains("AUTH"), "{tls:?}");
            }
        }
    }

    #[test]
    fn the_password_is_in_no_debug_text_of_credentials_or_state() {
        let shown = format!("{:?}", Credentials::new("relay", "s3cret").unwrap());
        assert!(shown.contains("relay") && !shown.contains("s3cret"));
        let mut session = greeted("s3cret", "AUTH LOGIN");
        let shown = format!("{session:?}");
        assert!(!shown.contains("s3cret") && !shown.contains(&base64("s3cret")), "{shown}");
        sent(&mut session);
        let shown = format!("{session:?}");
        assert!(!shown.contains("s3cret") && !shown.contains(&base64("s3cret")), "{shown}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_when_it_is_read() {
        for (username, password) in [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\nb")] {
            assert!(Credentials::new(username, password).is_err(), "{username:?} {password:?}");
        }
        assert!(Credentials::new("x", &"y".repeat(256)).is_err());
        assert!(Credentials::new("ünicode", "pässwörd").is_ok());
    }
}
