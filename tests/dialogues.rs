//! Plays the dialogues of `tests/dialogues/*.smtp` against the client session.
//!
//! Every dialogue is played three times: the server's octets in one piece, line by line, and octet
//! by octet; the outcome must be the same. One thing a line:
//!
//! ```text
//! # a comment; the first one says what the dialogue shows
//! tls: required | if-offered | never | implicit    how the session is made (default: if-offered)
//! login: NAME PASSWORD                        its credentials
//! S: 250 ok                                   server's line; adjacent ones arrive in one read
//! S~ 250 par                                  the same without CRLF; \r \n \t \xNN are octets
//! C: EHLO relay.example                       our line; adjacent ones leave in one write
//! starttls: ok | handshake | expired | lost | timeout      the handshake, and what becomes of it
//! begin: <from> [size=N] [8bit] [smtputf8] [requiretls] [ret=full|hdrs] [envid=X]
//! rcpt: <to> [notify=never|success,failure,delay] [orcpt=X]     one line each after begin
//! body: ok | fails                            the content goes out now
//! chunking                                    BDAT is used where it is offered
//! chunk: more | last | fails                  a chunk goes out now
//! idle                                        the session is ready for a message
//! result: answered 250 550 | broken - 550 [uncertain] | unsupported WHAT
//! quit                                        we are done
//! closed | timeout                            while reading
//! end: quit | refused PHASE CODE | tls WHAT | auth WHAT | lost PHASE      the session is over
//! why: words                                  which the end's text contains
//! name: X                                     the server's name
//! ```

// A dialogue that cannot be read is a test that fails.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, str};

use stsrelay::mail::{BodyType, Mailbox, Notify, NotifyWhen, Ret, ReversePath};
use stsrelay::smtp::client::{
    Action, AuthFailure, Chunk, Credentials, Missing, Phase, Session, SessionEnd, Timeouts, TlsUse,
    Transaction, TransactionEnd, TransactionRecipient,
};
use stsrelay::tlspolicy::{CertificateFailure, TlsFailure};

#[derive(Debug, Clone, Copy)]
enum Pieces {
    Whole,
    Lines,
    Octets,
}

#[test]
fn every_dialogue_plays_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut failures = String::new();
    let mut played = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "smtp") {
            continue;
        }
        let script = fs::read_to_string(&path).unwrap();
        for pieces in [Pieces::Whole, Pieces::Lines, Pieces::Octets] {
            played += 1;
            if let Err(what) = play(&script, pieces) {
                writeln!(failures, "{} ({pieces:?}): {what}", path.file_name().unwrap().display()).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(played >= 3 * 30, "only {played} dialogues were found");
}

/// A step with the number of its first line.
struct Step<'a> {
    line: usize,
    word: &'a str,
    rest: String,
}

/// Joins adjacent lines that belong together.
fn steps(script: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for (number, line) in script.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = match line.as_bytes() {
            [b'S' | b'C', b':' | b'~', ..] => (&line[..1], line[2..].strip_prefix(' ').unwrap_or("")),
            _ => line.split_once(':').map_or((line, ""), |(word, rest)| (word, rest.trim())),
        };
        let mut rest = rest.to_owned();
        if line.starts_with("S~") {
            rest = unescape(&rest);
        } else if matches!(word, "S" | "C") {
            rest += "\r\n";
        }
        match steps.last_mut() {
            Some(last) if matches!(word, "S" | "C") && last.word == word => last.rest += &rest,
            Some(last) if word == "rcpt" => last.rest += &format!("\n{rest}"),
            _ => steps.push(Step { line: number + 1, word, rest }),
        }
    }
    steps
}

/// Octets are kept as chars of the same number until they are played.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out += &rest[..at];
        let (octet, length) = match &rest[at + 1..at + 2] {
            "r" => ('\r', 2),
            "n" => ('\n', 2),
            "t" => ('\t', 2),
            "x" => (char::from(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap()), 4),
            other => panic!("unknown escape {other}"),
        };
        out.push(octet);
        rest = &rest[at + length..];
    }
    out + rest
}

fn play(script: &str, pieces: Pieces) -> Result<(), String> {
    let steps = steps(script);
    let (mut tls, mut credentials) = (TlsUse::IfOffered, None);
    let mut made: Option<Session> = None;
    let mut result = None;
    for Step { line, word, rest } in &steps {
        let at = |what: String| format!("line {line}: {what}");
        if *word == "tls" {
            tls = match rest.as_str() {
                "required" => TlsUse::Required,
                "if-offered" => TlsUse::IfOffered,
                "never" => TlsUse::Never,
                "implicit" => TlsUse::Implicit,
                _ => return Err(at(format!("unknown {rest}"))),
            };
            continue;
        }
        if *word == "login" {
            let (name, password) = rest.split_once(' ').unwrap();
            credentials = Some(Credentials::new(name, password).unwrap());
            continue;
        }
        let session = made.get_or_insert_with(|| {
            Session::new("relay.example", tls, Timeouts::default()).logging_in(credentials.take())
        });
        let expect = |ok: bool, seen: String| if ok { Ok(()) } else { Err(at(format!("saw {seen}"))) };
        match *word {
            "S" => {
                let action = session.next_action();
                expect(matches!(action, Action::Read { .. }), format!("{action:?}"))?;
                feed(session, rest, pieces).map_err(at)?;
            }
            "C" => match session.next_action() {
                Action::Send { bytes, .. } => {
                    let sent = String::from_utf8_lossy(&bytes).into_owned();
                    expect(sent == *rest, format!("{sent:?}"))?;
                    session.handle_sent(Ok(()));
                }
                other => expect(false, format!("{other:?}"))?,
            },
            "starttls" => {
                let action = session.next_action();
                expect(matches!(action, Action::StartTls { .. }), format!("{action:?}"))?;
                match rest.as_str() {
                    "ok" => session.handle_tls(Ok(())),
                    "handshake" => session.handle_tls(Err(TlsFailure::Handshake("no".into()))),
                    "expired" => session
                        .handle_tls(Err(TlsFailure::Certificate(CertificateFailure::Expired("2020".into())))),
                    "lost" => session.handle_closed("reset"),
                    "timeout" => session.handle_timeout(),
                    _ => return Err(at(format!("unknown {rest}"))),
                }
            }
            "begin" => {
                let action = session.next_action();
                expect(action == Action::Idle, format!("{action:?}"))?;
                session.begin(transaction(rest));
                result = None;
            }
            "body" => {
                let action = session.next_action();
                expect(matches!(action, Action::SendBody { .. }), format!("{action:?}"))?;
                session.handle_sent(if rest == "fails" { Err("broken pipe".into()) } else { Ok(()) });
            }
            "chunk" => {
                let action = session.next_action();
                expect(matches!(action, Action::SendChunk { .. }), format!("{action:?}"))?;
                session.handle_chunk(match rest.as_str() {
                    "more" => Ok(Chunk::More),
                    "last" => Ok(Chunk::Last),
                    _ => Err("broken pipe".into()),
                });
            }
            "chunking" => session.use_chunking(true),
            "idle" => {
                let action = session.next_action();
                expect(action == Action::Idle, format!("{action:?}"))?;
            }
            "result" => {
                result = session.take_result().or(result);
                let seen = result.as_ref().map_or("no result".to_owned(), result_words);
                expect(seen == *rest, seen)?;
            }
            "quit" => session.quit(),
            "closed" | "timeout" => {
                let action = session.next_action();
                let waits = matches!(action, Action::Read { .. } | Action::Idle);
                expect(waits, format!("{action:?}"))?;
                if *word == "closed" {
                    session.handle_closed("end of stream")
                } else {
                    session.handle_timeout()
                }
            }
            "end" => {
                let action = session.next_action();
                expect(action == Action::Close, format!("{action:?}"))?;
                let seen = session.end().map_or("no end".to_owned(), end_words);
                expect(seen == *rest, seen)?;
            }
            "why" => {
                let text = match session.end() {
                    Some(SessionEnd::Lost { text, .. }) => text.clone(),
                    Some(SessionEnd::Tls(failure)) => failure.to_string(),
                    Some(SessionEnd::Refused { reply, .. }) => reply.to_string(),
                    other => format!("{other:?}"),
                };
                expect(text.contains(rest.as_str()), text)?;
            }
            "name" => {
                let name = session.server_name().unwrap_or("-").to_owned();
                expect(name == *rest, name)?;
            }
            _ => return Err(at(format!("unknown word {word}"))),
        }
    }
    Ok(())
}

fn feed(session: &mut Session, text: &str, pieces: Pieces) -> Result<(), String> {
    let octets: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let chunks: Vec<&[u8]> = match pieces {
        Pieces::Whole => vec![&octets],
        Pieces::Lines => octets.split_inclusive(|&b| b == b'\n').collect(),
        Pieces::Octets => octets.chunks(1).collect(),
    };
    let before = session.replies_read();
    for chunk in chunks {
        session.handle_bytes(chunk);
        if session.replies_read() == before {
            let action = session.next_action();
            if !matches!(action, Action::Read { .. } | Action::Close) {
                return Err(format!("saw {action:?} within a reply"));
            }
        }
    }
    Ok(())
}

fn transaction(text: &str) -> Transaction {
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split_ascii_whitespace();
    let mut made = Transaction {
        reverse_path: ReversePath::parse(words.next().unwrap()).unwrap(),
        recipients: Vec::new(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        require_tls: false,
        size: 1000,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("size", octets) => made.size = octets.parse().unwrap(),
            ("8bit", _) => made.body = BodyType::EightBitMime,
            ("smtputf8", _) => made.smtputf8 = true,
            ("requiretls", _) => made.require_tls = true,
            ("ret", "full") => made.ret = Some(Ret::Full),
            ("ret", "hdrs") => made.ret = Some(Ret::Headers),
            ("envid", id) => made.envid = Some(id.to_owned()),
            _ => panic!("unknown {word}"),
        }
    }
    for line in lines {
        let (path, words) = line.strip_prefix('<').unwrap().split_once('>').unwrap();
        let mut recipient =
            TransactionRecipient { path: Mailbox::parse(path).unwrap(), notify: None, orcpt: None };
        for word in words.split_ascii_whitespace() {
            match word.split_once('=').unwrap() {
                ("notify", "never") => recipient.notify = Some(Notify::Never),
                ("notify", list) => {
                    let has = |what| list.split(',').any(|word| word == what);
                    recipient.notify = Some(Notify::When(NotifyWhen {
                        success: has("success"),
                        failure: has("failure"),
                        delay: has("delay"),
                    }));
                }
                ("orcpt", orcpt) => recipient.orcpt = Some(orcpt.to_owned()),
                _ => panic!("unknown {word}"),
            }
        }
        made.recipients.push(recipient);
    }
    made
}

fn result_words(result: &TransactionEnd) -> String {
    match result {
        TransactionEnd::Answered(replies) => {
            replies.iter().fold("answered".to_owned(), |text, reply| format!("{text} {}", reply.code))
        }
        TransactionEnd::Broken { replies, uncertain } => {
            let text = replies.iter().fold("broken".to_owned(), |text, reply| match reply {
                Some(reply) => format!("{text} {}", reply.code),
                None => format!("{text} -"),
            });
            if *uncertain { text + " uncertain" } else { text }
        }
        TransactionEnd::Unsupported(missing) => match missing {
            Missing::SmtpUtf8 => "unsupported smtputf8".to_owned(),
            Missing::EightBitMime => "unsupported 8bitmime".to_owned(),
            Missing::RequireTls => "unsupported requiretls".to_owned(),
            Missing::Size(limit) => format!("unsupported size {limit}"),
        },
    }
}

fn end_words(end: &SessionEnd) -> String {
    match end {
        SessionEnd::Quit => "quit".to_owned(),
        SessionEnd::Refused { phase, reply } => format!("refused {} {}", phase_word(*phase), reply.code),
        SessionEnd::BdatUnknown(reply) => format!("bdat-unknown {}", reply.code),
        SessionEnd::Tls(failure) => format!(
            "tls {}",
            match failure {
                TlsFailure::NotOffered(_) | TlsFailure::Refused(_) => "not-offered",
                TlsFailure::Certificate(_) => "certificate",
                TlsFailure::Handshake(_) => "handshake",
                TlsFailure::Injected => "injected",
                TlsFailure::Lost(_) => "lost",
                TlsFailure::TlsaMismatch => "tlsa",
            }
        ),
        SessionEnd::Auth(AuthFailure::NotOffered) => "auth not-offered".to_owned(),
        SessionEnd::Auth(AuthFailure::Refused(reply)) => format!("auth {}", reply.code),
        SessionEnd::Auth(AuthFailure::Odd(code)) => format!("auth odd {code}"),
        SessionEnd::Lost { phase, .. } => format!("lost {}", phase_word(*phase)),
    }
}

fn phase_word(phase: Phase) -> String {
    format!("{phase:?}").to_ascii_lowercase()
}
