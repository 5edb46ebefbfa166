//! The states of a session, each named by the reply it waits for; a reply consumes it.
//!
//! Greeting -> Hello -> (StartTls -> handshake -> Hello) -> (Auth) -> idle <-> Transaction; Farewell last.

use super::auth::{Credentials, ExpectAuth};
use super::exchange::Exchange;
use super::options::TlsUse;
use super::phases::Phase;
use super::session::SessionEnd;
use super::transaction::TransactionEnd;
use crate::mail::Reply;
use crate::smtp::extensions::Extensions;
use crate::tlspolicy::TlsFailure;

/// Octets of a server's name at most (RFC 5321 §4.5.3.1.2).
const NAME_BYTES_MAX: usize = 255;

/// What a session knows.
#[derive(Debug)]
pub(super) struct Facts {
    /// Ours, for EHLO.
    pub(super) ehlo_name: String,
    pub(super) tls: TlsUse,
    /// Used inside TLS only.
    pub(super) credentials: Option<Credentials>,
    pub(super) is_tls: bool,
    pub(super) extensions: Extensions,
    pub(super) server_name: Option<String>,
    pub(super) starttls_refusal: Option<Reply>,
}

/// The reply that is waited for.
#[derive(Debug)]
pub(super) enum Expect {
    Greeting(ExpectGreeting),
    Hello(ExpectHello),
    StartTls(ExpectStartTls),
    Auth(ExpectAuth),
    Transaction(Box<Exchange>),
    /// The answer to QUIT; nothing depends on it.
    Farewell,
}

/// What follows a reply.
#[derive(Debug)]
pub(super) enum Next {
    Send(Vec<u8>, Expect),
    Read(Expect),
    Handshake,
    SendBody(Box<Exchange>),
    /// A chunk, and commands ahead of it.
    SendChunk(Vec<u8>, Box<Exchange>),
    Idle,
    /// The transaction is over; `reset`: RSET before the next.
    Done {
        end: TransactionEnd,
        reset: bool,
    },
    /// Over, for this reason, but QUIT is said (RFC 5321 §4.1.1.10).
    Leave(SessionEnd),
    /// Over at once.
    Close(SessionEnd),
    /// Over at once, in the middle of a transaction.
    Broken(TransactionEnd, SessionEnd),
}

/// A reply whose first digit does not fit the command.
pub(super) fn unexpected(phase: Phase, reply: &Reply) -> SessionEnd {
    SessionEnd::Lost { phase, text: format!("unexpected reply {:03} while {}", reply.code, phase.phrase()) }
}

impl Expect {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Greeting(_) => Phase::Greeting,
            Self::Hello(_) => Phase::Hello,
            Self::StartTls(_) => Phase::StartTls,
            Self::Auth(state) => state.phase(),
            Self::Transaction(exchange) => exchange.phase(),
            Self::Farewell => Phase::Quit,
        }
    }

    pub(super) fn handle(self, reply: Reply, facts: &mut Facts) -> Next {
        let phase = self.phase();
        // RFC 5321 §3.8: 421 at any point means the server is closing.
        let closing = reply.code == 421;
        match self {
            Self::Farewell => Next::Close(SessionEnd::Quit),
            Self::Transaction(exchange) if closing => {
                Next::Broken(exchange.shut_down(), SessionEnd::Refused { phase, reply })
            }
            _ if closing => Next::Close(SessionEnd::Refused { phase, reply }),
            Self::Greeting(state) => state.handle(reply, facts),
            Self::Hello(state) => state.handle(reply, facts),
            Self::StartTls(state) => state.handle(reply, facts),
            Self::Auth(state) => state.handle(reply),
            Self::Transaction(exchange) => exchange.handle(reply),
        }
    }
}

/// Waits for 220.
#[derive(Debug)]
pub(super) struct ExpectGreeting;

impl ExpectGreeting {
    fn handle(self, reply: Reply, facts: &mut Facts) -> Next {
        let phase = Phase::Greeting;
        facts.server_name = name_in(&reply);
        if reply.is_positive() {
            ExpectHello::ask(facts)
        } else if reply.is_intermediate() {
            Next::Close(unexpected(phase, &reply))
        } else {
            // RFC 5321 §3.1, RFC 7504 §3: the server waits for QUIT after 554 and 521.
            Next::Leave(SessionEnd::Refused { phase, reply })
        }
    }
}

/// Waits for the answer to EHLO or HELO.
#[derive(Debug)]
pub(super) struct ExpectHello {
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ehlo,
    Helo,
}

impl ExpectHello {
    /// Says EHLO, on a fresh connection or inside fresh TLS.
    pub(super) fn ask(facts: &Facts) -> Next {
        let line = format!("EHLO {}\r\n", facts.ehlo_name);
        Next::Send(line.into_bytes(), Expect::Hello(Self { verb: Verb::Ehlo }))
    }

    fn handle(self, reply: Reply, facts: &mut Facts) -> Next {
        let phase = Phase::Hello;
        let ehlo_unknown = self.verb == Verb::Ehlo && matches!(reply.code, 500 | 502 | 504 | 550);
        if reply.is_positive() {
            facts.server_name = name_in(&reply).or_else(|| facts.server_name.take());
            facts.extensions = match self.verb {
                Verb::Ehlo => Extensions::parse(&reply),
                Verb::Helo => Extensions::default(),
            };
            self.secure(facts)
        } else if reply.is_intermediate() {
            Next::Close(unexpected(phase, &reply))
        } else if ehlo_unknown && matches!(facts.tls, TlsUse::Required | TlsUse::Implicit) && !facts.is_tls {
            // HELO has no STARTTLS, and whoever strips STARTTLS could as well refuse EHLO.
            Next::Leave(SessionEnd::Tls(TlsFailure::NotOffered(format!(
                "EHLO was refused: {}",
                short(&reply)
            ))))
        } else if ehlo_unknown {
            // RFC 5321 §3.2
            let line = format!("HELO {}\r\n", facts.ehlo_name);
            Next::Send(line.into_bytes(), Expect::Hello(Self { verb: Verb::Helo }))
        } else {
            Next::Leave(SessionEnd::Refused { phase, reply })
        }
    }

    /// The one way to idle, and so to MAIL: inside TLS (logged in, where that is wanted), or where clear is
    /// allowed.
    fn secure(self, facts: &Facts) -> Next {
        match facts.tls {
            // RFC 3207 §4.2: what is offered inside TLS is final; STARTTLS is not asked twice.
            _ if facts.is_tls => ExpectAuth::begin(facts),
            TlsUse::Required | TlsUse::IfOffered if facts.extensions.starttls => {
                Next::Send(b"STARTTLS\r\n".to_vec(), Expect::StartTls(ExpectStartTls))
            }
            TlsUse::Required | TlsUse::Implicit => Next::Leave(SessionEnd::Tls(TlsFailure::NotOffered(
                "the EHLO reply does not list it".to_owned(),
            ))),
            TlsUse::IfOffered | TlsUse::Never => Next::Idle,
        }
    }
}

/// Waits for the answer to STARTTLS.
#[derive(Debug)]
pub(super) struct ExpectStartTls;

impl ExpectStartTls {
    fn handle(self, reply: Reply, facts: &mut Facts) -> Next {
        // RFC 3207 §4: only 220 starts TLS.
        if reply.code == 220 {
            return Next::Handshake;
        }
        let failure = TlsFailure::Refused(format!("refused with {}", short(&reply)));
        let refused = reply.is_transient() || reply.is_permanent();
        facts.starttls_refusal = Some(reply);
        match facts.tls {
            // RFC 3207 §4: refused, so the session is where it was before.
            TlsUse::IfOffered if refused => Next::Idle,
            // An odd 2yz or 3yz: who knows what the server waits for now.
            _ => Next::Leave(SessionEnd::Tls(failure)),
        }
    }
}

/// Code and first line, for a sentence.
fn short(reply: &Reply) -> String {
    let line: String = reply.lines.first().map(|line| line.chars().take(200).collect()).unwrap_or_default();
    let first = Reply { code: reply.code, enhanced: reply.enhanced, lines: vec![line] };
    first.to_string()
}

/// The server's name: the first word of the greeting or of the EHLO reply (RFC 5321 §4.2).
fn name_in(reply: &Reply) -> Option<String> {
    let word = reply.lines.first()?.split_ascii_whitespace().next()?;
    let fits = word.len() <= NAME_BYTES_MAX
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    fits.then(|| word.to_owned())
}
