//! What a server says, in pieces of any size: the reply decoder alone, and the client's whole session.
//!
//! First octet: how TLS is used. Second: the size of pieces. Third: how handshakes and writes go. The
//! rest is the server.

use stsrelay::mail::{BodyType, Mailbox, Ret, ReversePath};
use stsrelay::smtp::client::{
    Action, Chunk, Session, Timeouts, TlsUse, Transaction, TransactionEnd, TransactionRecipient,
};
use stsrelay::smtp::decoder::{Decoder, REPLY_BYTES_MAX, REPLY_LINES_MAX};
use stsrelay::smtp::extensions::Extensions;
use stsrelay::tlspolicy::TlsFailure;

use super::input::Input;

/// Recipients of the message.
const RECIPIENTS: usize = 3;
/// Messages begun in one session at most.
const MESSAGES_MAX: usize = 4;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let tls = input.pick(&[TlsUse::Required, TlsUse::IfOffered, TlsUse::Never]);
    let size = usize::from(input.octet()) + 1;
    let ways = input.octet();
    let said = input.rest();
    assert_eq!(replies(said.chunks(size)), replies(std::iter::once(said)), "pieces of {size}");
    hold(tls, ways, said, size);
}

/// All replies, as text, up to the first error.
fn replies<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for mut piece in pieces.filter(|piece| !piece.is_empty()) {
        while !piece.is_empty() {
            let (used, decoded) = decoder.feed(piece);
            assert!(used > 0 && used <= piece.len());
            piece = &piece[used..];
            match decoded {
                Ok(None) => assert!(piece.is_empty() && decoder.is_mid_reply()),
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
                Ok(Some(reply)) => {
                    assert!((200..600).contains(&reply.code) && !decoder.is_mid_reply());
                    assert!((1..=REPLY_LINES_MAX).contains(&reply.lines.len()));
                    let octets: usize = reply.lines.iter().map(String::len).sum();
                    // Three octets stand for each that is no UTF-8 and is replaced by one.
                    assert!(octets <= 3 * REPLY_BYTES_MAX);
                    assert!(!reply.to_string().contains(char::is_control));
                    assert_eq!(super::address::kept(&reply), reply);
                    seen.push(format!("{reply:?} {:?}", Extensions::parse(&reply)));
                }
            }
        }
    }
    seen
}

fn hold(tls: TlsUse, ways: u8, said: &[u8], size: usize) {
    let mut session = Session::new("relay.example", tls, Timeouts::default());
    session.use_chunking(ways & 1 == 1);
    let mut pieces = said.chunks(size);
    let (mut begun, mut content_sent) = (0, false);
    // Each reply leads to a bounded number of actions.
    for _ in 0..8 * said.len() + 1000 {
        match session.next_action() {
            Action::Send { bytes, .. } => {
                check_commands(&bytes, tls, session.is_tls());
                session.handle_sent(if ways & 2 == 2 && begun > 2 {
                    Err("reset\r\n".into())
                } else {
                    Ok(())
                });
            }
            Action::Read { .. } => match pieces.next() {
                Some(piece) => session.handle_bytes(piece),
                None if ways & 4 == 4 => session.handle_timeout(),
                None => session.handle_closed("gone"),
            },
            Action::StartTls { .. } if ways & 8 == 8 => {
                session.handle_tls(Err(TlsFailure::Lost("no shared cipher".into())));
            }
            Action::StartTls { .. } => session.handle_tls(Ok(())),
            Action::SendBody { .. } => {
                assert!(tls != TlsUse::Required || session.is_tls());
                content_sent = true;
                session.handle_sent(Ok(()));
            }
            Action::SendChunk { .. } => {
                assert!(tls != TlsUse::Required || session.is_tls());
                content_sent = true;
                let last = ways & 16 == 16 || begun & 1 == 0;
                session.handle_chunk(Ok(if last { Chunk::Last } else { Chunk::More }));
            }
            Action::Idle => {
                check_result(session.take_result(), begun, content_sent);
                if begun == MESSAGES_MAX {
                    session.quit();
                } else {
                    (begun, content_sent) = (begun + 1, false);
                    session.begin(message(ways, begun));
                }
            }
            Action::Close => {
                check_result(session.take_result(), begun, content_sent);
                assert!(session.end().is_some(), "a session over says why");
                return;
            }
        }
    }
    panic!("the session does not end");
}

/// One command a line; none that carries mail before TLS where TLS is required (I4).
fn check_commands(octets: &[u8], tls: TlsUse, is_tls: bool) {
    let text = std::str::from_utf8(octets).expect("commands are text");
    let lines: Vec<&str> = text.strip_suffix("\r\n").expect("whole lines").split("\r\n").collect();
    for line in lines {
        assert!(!line.contains(char::is_control), "{line:?}");
        let verb = line.split(' ').next().unwrap_or_default();
        let known = ["EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET", "QUIT", "."];
        assert!(known.contains(&verb), "{line:?}");
        if ["MAIL", "RCPT", "DATA"].contains(&verb) {
            assert!(tls != TlsUse::Required || is_tls, "{line:?} in clear");
        }
        assert!(verb != "STARTTLS" || (tls != TlsUse::Never && !is_tls), "{line:?}");
    }
}

fn check_result(result: Option<TransactionEnd>, begun: usize, content_sent: bool) {
    match result {
        None | Some(TransactionEnd::Unsupported(_)) => {}
        Some(TransactionEnd::Answered(replies)) => {
            assert_eq!(replies.len(), RECIPIENTS);
            for reply in replies {
                assert!(begun > 0 && reply.code != 421 && reply.code / 100 != 3, "{reply}");
                // Delivered is only what was sent.
                assert!(!reply.is_positive() || content_sent, "{reply}");
            }
        }
        Some(TransactionEnd::Broken { replies, uncertain }) => {
            assert_eq!(replies.len(), RECIPIENTS);
            assert!(replies.iter().flatten().all(|reply| !reply.is_positive()));
            assert!(!uncertain || content_sent);
        }
    }
}

fn message(ways: u8, number: usize) -> Transaction {
    let recipient = |n: usize| TransactionRecipient {
        path: Mailbox::parse(&format!("u{n}@example.net")).expect("a mailbox"),
        notify: None,
        orcpt: (n == 1).then(|| "rfc822;u+40example.net".to_owned()),
    };
    Transaction {
        reverse_path: ReversePath::parse("<author@example.org>").expect("a path"),
        recipients: (0..RECIPIENTS).map(recipient).collect(),
        body: if ways & 32 == 32 { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8: ways & 64 == 64,
        ret: (number == 2).then_some(Ret::Headers),
        envid: (number == 2).then(|| "id+2B".to_owned()),
        require_tls: ways & 128 == 128,
        size: 100,
    }
}
