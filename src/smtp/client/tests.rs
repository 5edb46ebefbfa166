//! What dialogues cannot show: windows, bounds, wrong order of calls, anything at all from a server.

use std::time::Duration;

use proptest::prelude::*;

use super::options::{GROUP_BYTES_MAX, RCPT_WINDOW};
use super::*;
use crate::mail::{BodyType, Mailbox, Reply, ReversePath};
use crate::smtp::decoder::REPLY_BYTES_MAX;
use crate::tlspolicy::TlsFailure;

fn session(tls: TlsUse) -> Session {
    Session::new("relay.example", tls, Timeouts::default())
}

fn message(recipients: usize) -> Transaction {
    let recipient = |n| TransactionRecipient {
        path: Mailbox::parse(&format!("u{n}@example.net")).unwrap(),
        notify: None,
        orcpt: None,
    };
    Transaction {
        reverse_path: ReversePath::parse("<author@example.org>").unwrap(),
        recipients: (0..recipients).map(recipient).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        require_tls: false,
        size: 100,
    }
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

/// A session that is idle after EHLO with these keywords.
fn idle(keywords: &[&str]) -> Session {
    let mut session = session(TlsUse::Never);
    session.handle_bytes(b"220 mx.example.net\r\n");
    sent(&mut session);
    let mut reply = "250-mx.example.net\r\n".to_owned();
    for keyword in keywords {
        reply += &format!("250-{keyword}\r\n");
    }
    session.handle_bytes((reply + "250 OK\r\n").as_bytes());
    assert_eq!(session.next_action(), Action::Idle);
    session
}

#[test]
fn many_recipients_go_out_in_windows() {
    let mut session = idle(&["PIPELINING"]);
    session.begin(message(250));
    let mut groups = Vec::new();
    while let Action::Send { bytes, .. } = session.next_action() {
        session.handle_sent(Ok(()));
        let group = String::from_utf8(bytes).unwrap();
        for line in group.lines() {
            session.handle_bytes(if line == "DATA" { b"354 go\r\n" } else { b"250 ok\r\n" });
        }
        groups.push(group);
    }
    let rcpts = |group: &String| group.lines().filter(|line| line.starts_with("RCPT")).count();
    assert_eq!(groups.iter().map(rcpts).collect::<Vec<_>>(), [RCPT_WINDOW, RCPT_WINDOW, 50]);
    assert_eq!(groups.iter().filter(|group| group.contains("DATA\r\n")).count(), 1);
    assert!(groups[0].starts_with("MAIL ") && groups[2].ends_with("DATA\r\n"));
    session.handle_sent(Ok(()));
    session.handle_bytes(b"250 ok\r\n");
    let Some(TransactionEnd::Answered(replies)) = session.take_result() else { panic!() };
    assert_eq!(replies.len(), 250);
}

#[test]
fn a_group_is_bounded_in_octets_too() {
    let mut session = idle(&["PIPELINING", "DSN"]);
    let mut message = message(90);
    for recipient in &mut message.recipients {
        recipient.orcpt = Some(format!("rfc822;{}", "x".repeat(450)));
    }
    session.begin(message);
    let first = sent(&mut session);
    assert!(first.len() > GROUP_BYTES_MAX && first.len() < GROUP_BYTES_MAX + 600, "{}", first.len());
    assert!(!first.contains("DATA"));
}

#[test]
fn a_refused_mail_stops_the_windows_to_come() {
    let mut session = idle(&["PIPELINING"]);
    session.begin(message(150));
    let group = sent(&mut session);
    for _ in group.lines() {
        session.handle_bytes(b"550 no\r\n");
    }
    assert_eq!(session.next_action(), Action::Idle);
    assert!(matches!(session.take_result(), Some(TransactionEnd::Answered(all)) if all.len() == 150));
}

#[test]
fn refusals_in_one_window_do_not_stop_the_next() {
    let mut session = idle(&["PIPELINING"]);
    session.begin(message(101));
    let first = sent(&mut session);
    session.handle_bytes(b"250 ok\r\n");
    for _ in 1..first.lines().count() {
        session.handle_bytes(b"452 4.5.3 too many\r\n");
    }
    assert_eq!(sent(&mut session), "RCPT TO:<u100@example.net>\r\nDATA\r\n");
    session.handle_bytes(b"250 ok\r\n354 go\r\n");
    assert!(matches!(session.next_action(), Action::SendBody { .. }));
}

#[test]
fn every_phase_has_its_time() {
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        greeting: Duration::from_secs(2),
        command: Duration::from_secs(3),
        rcpt: Duration::from_secs(4),
        data: Duration::from_secs(5),
        body: Duration::from_secs(6),
        dot: Duration::from_secs(7),
        octets_per_second: 0,
    };
    let mut session = Session::new("relay.example", TlsUse::Never, timeouts);
    let mut seen = Vec::new();
    let replies = ["220 a", "250 a", "250 ok", "250 ok", "354 go", "250 ok", "221 bye"];
    for reply in replies {
        loop {
            match session.next_action() {
                Action::Send { .. } => session.handle_sent(Ok(())),
                Action::SendBody { within } => {
                    seen.push((session.phase(), within.as_secs()));
                    session.handle_sent(Ok(()));
                }
                Action::Idle if session.take_result().is_some() => session.quit(),
                Action::Idle => session.begin(message(1)),
                Action::Read { within } => {
                    seen.push((session.phase(), within.as_secs()));
                    break session.handle_bytes(format!("{reply}\r\n").as_bytes());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = [
        (Phase::Greeting, 2),
        (Phase::Hello, 3),
        (Phase::Mail, 3),
        (Phase::Rcpt, 4),
        (Phase::Data, 5),
        (Phase::Body, 6),
        (Phase::Dot, 7),
        (Phase::Quit, 5),
    ];
    assert_eq!(seen, expected);
    assert_eq!(session.next_action(), Action::Close);
    assert_eq!(session.end(), Some(&SessionEnd::Quit));
}

#[test]
fn default_times_are_at_least_those_of_the_rfc() {
    // RFC 5321 §4.5.3.2
    let minutes = [
        (Phase::Greeting, 5),
        (Phase::Mail, 5),
        (Phase::Rcpt, 5),
        (Phase::Data, 2),
        (Phase::Body, 3),
        (Phase::Dot, 10),
    ];
    for (phase, minutes) in minutes {
        assert!(phase.limit(&Timeouts::default()) >= Duration::from_secs(minutes * 60), "{phase:?}");
    }
}

#[test]
fn a_flood_ends_the_session_with_bounded_memory() {
    let mut session = idle(&[]);
    session.begin(message(1));
    sent(&mut session);
    let flood = [b'2'; 4096];
    session.handle_bytes(b"250-");
    for _ in 0..(REPLY_BYTES_MAX / flood.len()) + 1 {
        session.handle_bytes(&flood);
    }
    assert!(matches!(session.end(), Some(SessionEnd::Lost { phase: Phase::Mail, .. })));
    assert_eq!(session.take_result(), Some(TransactionEnd::Broken { replies: vec![None], uncertain: false }));
}

#[test]
fn part_of_a_reply_nobody_asked_for_ends_the_session() {
    let mut session = session(TlsUse::Never);
    session.handle_bytes(b"220 mx\r\n2");
    assert_eq!(session.next_action(), Action::Close);
    assert!(matches!(session.end(), Some(SessionEnd::Lost { phase: Phase::Hello, .. })));
}

#[test]
fn tls_needs_a_handshake_that_was_asked_for() {
    // I4: a report of success alone opens nothing.
    let mut early = session(TlsUse::Required);
    early.handle_tls(Ok(()));
    assert!(early.end().is_some() && !early.is_tls());

    let mut session = session(TlsUse::Required);
    session.handle_bytes(b"220 mx\r\n");
    sent(&mut session);
    session.handle_bytes(b"250-mx\r\n250 STARTTLS\r\n");
    assert_eq!(sent(&mut session), "STARTTLS\r\n");
    session.handle_bytes(b"220 go\r\n");
    // Never: a message while the handshake is under way.
    session.begin(message(1));
    assert_eq!(session.next_action(), Action::Close);
    assert_eq!(session.take_result(), Some(TransactionEnd::Broken { replies: vec![None], uncertain: false }));
}

#[test]
fn nothing_said_before_the_handshake_is_known_after_it() {
    let mut session = session(TlsUse::IfOffered);
    session.handle_bytes(b"220 other.example\r\n");
    sent(&mut session);
    session.handle_bytes(b"250-other.example\r\n250-SIZE 10\r\n250 STARTTLS\r\n");
    sent(&mut session);
    session.handle_bytes(b"220 go\r\n");
    assert!(matches!(session.next_action(), Action::StartTls { .. }));
    assert!(session.extensions().size.is_some() && !session.is_tls());
    session.handle_tls(Ok(()));
    assert_eq!((session.extensions(), session.server_name()), (&Default::default(), None));
    assert!(session.is_tls());
}

#[test]
fn calls_out_of_order_end_the_session() {
    type Call = fn(&mut Session);
    let wrong: [(&str, Call); 7] = [
        ("chunk", |s| s.handle_chunk(Ok(Chunk::Last))),
        ("sent", |s| s.handle_sent(Ok(()))),
        ("failed", |s| s.handle_sent(Err("x\r\ny".into()))),
        ("tls", |s| s.handle_tls(Ok(()))),
        ("no tls", |s| s.handle_tls(Err(TlsFailure::Injected))),
        ("begin", |s| s.begin(message(2))),
        ("quit", |s| s.quit()),
    ];
    for (name, call) in wrong {
        let mut session = session(TlsUse::Never);
        call(&mut session);
        assert_eq!(session.next_action(), Action::Close, "{name}");
        let Some(SessionEnd::Lost { phase: Phase::Greeting, text }) = session.end() else { panic!("{name}") };
        assert!(!text.contains(['\r', '\n']), "{text}");
    }
    let mut session = session(TlsUse::Never);
    session.handle_bytes(b"220 mx\r\n");
    assert!(matches!(session.next_action(), Action::Send { .. }));
    assert_eq!(session.next_action(), Action::Close);
}

#[test]
fn a_message_for_nobody_is_answered_at_once() {
    let mut session = idle(&[]);
    session.begin(message(0));
    assert_eq!(session.next_action(), Action::Idle);
    assert_eq!(session.take_result(), Some(TransactionEnd::Answered(Vec::new())));
    assert_eq!(session.take_result(), None);
}

#[test]
fn nothing_can_be_smuggled_into_a_command() {
    let mut session = idle(&["PIPELINING", "DSN", "SMTPUTF8"]);
    let mut message = message(2);
    message.envid = Some("a\r\nRSET".to_owned());
    message.recipients[0].orcpt = Some("rfc822;a b".to_owned());
    message.recipients[1].orcpt = Some("utf-8;ü@example.net".to_owned());
    session.begin(message);
    assert_eq!(
        sent(&mut session),
        "MAIL FROM:<author@example.org>\r\nRCPT TO:<u0@example.net>\r\n\
         RCPT TO:<u1@example.net> ORCPT=utf-8;ü@example.net\r\nDATA\r\n"
    );
    let mut odd = Session::new("relay.example\r\nRSET", TlsUse::Never, Timeouts::default());
    odd.handle_bytes(b"220 mx\r\n");
    assert_eq!(sent(&mut odd), "EHLO relay.exampleRSET\r\n");
}

#[test]
fn a_path_that_needs_smtputf8_needs_it_though_nobody_said_so() {
    let mut message = message(1);
    message.recipients[0].path = Mailbox::parse("grüße@example.net").unwrap();
    let mut plain = idle(&[]);
    plain.begin(message.clone());
    assert_eq!(plain.take_result(), Some(TransactionEnd::Unsupported(Missing::SmtpUtf8)));
    let mut able = idle(&["SMTPUTF8"]);
    able.begin(message);
    assert_eq!(sent(&mut able), "MAIL FROM:<author@example.org> SMTPUTF8\r\n");
}

#[test]
fn a_refused_starttls_is_remembered_for_the_report() {
    let mut session = session(TlsUse::IfOffered);
    session.handle_bytes(b"220 mx\r\n");
    sent(&mut session);
    session.handle_bytes(b"250-mx\r\n250 STARTTLS\r\n");
    sent(&mut session);
    session.handle_bytes(b"454 4.7.0 no\r\n");
    assert_eq!(session.next_action(), Action::Idle);
    assert_eq!(session.starttls_refusal().map(|reply| reply.code), Some(454));
}

/// Plays a driver that always does as told; every wait is answered by the next turn.
fn drive(turns: &[Vec<u8>], tls: TlsUse, cut: &dyn Fn(&[u8]) -> Vec<usize>) -> (Vec<String>, Session) {
    drive_on(session(tls), turns, cut)
}

fn drive_on(
    mut session: Session,
    turns: &[Vec<u8>],
    cut: &dyn Fn(&[u8]) -> Vec<usize>,
) -> (Vec<String>, Session) {
    session.use_chunking(true);
    let mut log = Vec::new();
    let mut turns = turns.iter();
    let mut begun = 0;
    let mut content_sent = false;
    for _ in 0..200 {
        match session.next_action() {
            Action::Send { bytes, .. } => {
                let line = String::from_utf8_lossy(&bytes).into_owned();
                assert!(session.is_tls() || !(line.contains("AUTH") || line.contains(PASSWORD)), "{line}");
                log.push(line);
                session.handle_sent(Ok(()));
            }
            Action::Read { .. } => match turns.next() {
                Some(turn) => {
                    let mut from = 0;
                    for to in cut(turn).into_iter().chain([turn.len()]) {
                        if to > from {
                            session.handle_bytes(&turn[from..to]);
                            from = to;
                        }
                    }
                }
                None => session.handle_closed("end"),
            },
            Action::StartTls { .. } => session.handle_tls(Ok(())),
            Action::SendBody { .. } => {
                content_sent = true;
                log.push("content".to_owned());
                session.handle_sent(Ok(()));
            }
            Action::SendChunk { .. } => {
                content_sent = true;
                log.push("chunk".to_owned());
                session.handle_chunk(Ok(if log.len() % 2 == 0 { Chunk::More } else { Chunk::Last }));
            }
            Action::Idle if begun < 2 => {
                begun += 1;
                log.push(told(session.take_result(), content_sent));
                content_sent = false;
                session.begin(message(2));
            }
            Action::Idle => {
                log.push(told(session.take_result(), content_sent));
                session.quit();
            }
            Action::Close => break,
        }
    }
    log.push(told(session.take_result(), content_sent));
    log.push(format!("{:?}", session.end()));
    (log, session)
}

/// The result in words. Delivered is only what went out.
fn told(result: Option<TransactionEnd>, content_sent: bool) -> String {
    match &result {
        Some(TransactionEnd::Answered(replies)) => {
            assert!(
                replies
                    .iter()
                    .all(|reply| reply.is_transient() || reply.is_permanent() || reply.is_positive())
            );
            assert!(content_sent || !replies.iter().any(Reply::is_positive), "{replies:?}");
        }
        Some(TransactionEnd::Broken { replies, uncertain }) => {
            assert!(content_sent || !uncertain);
            assert!(!replies.iter().flatten().any(Reply::is_positive), "{replies:?}");
        }
        _ => {}
    }
    format!("{result:?}")
}

fn reply_line() -> impl Strategy<Value = String> {
    let code = prop::sample::select(vec![
        "220", "235", "250", "250", "250", "334", "354", "354", "421", "450", "500", "502", "535", "550",
        "554", "150", "299", "999",
    ]);
    let rest = prop::sample::select(vec![
        "",
        " ok",
        " 2.0.0 ok",
        "-more",
        "-STARTTLS",
        "-PIPELINING",
        "-CHUNKING",
        "-AUTH LOGIN",
        " PIPELINING",
        " STARTTLS",
        "x",
        " 5.1.1 no",
    ]);
    (code, rest).prop_map(|(code, rest)| format!("{code}{rest}\r\n"))
}

fn turns() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let turn = prop::collection::vec(reply_line(), 1..4).prop_map(|lines| lines.concat().into_bytes());
    prop::collection::vec(turn, 0..12)
}

fn tls_use() -> impl Strategy<Value = TlsUse> {
    prop::sample::select(vec![TlsUse::Required, TlsUse::IfOffered, TlsUse::Never, TlsUse::Implicit])
}

/// `s3cret` as LOGIN shows it.
const PASSWORD: &str = "czNjcmV0";

/// Greeting and EHLO of a server that is worth talking to, then whatever comes.
fn likely_turns() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let start = [b"220 mx.example.net\r\n".to_vec(), b"250-mx.example.net\r\n250 PIPELINING\r\n".to_vec()];
    turns().prop_map(move |rest| start.iter().cloned().chain(rest).collect())
}

proptest! {
    #[test]
    fn replies_may_be_split_anywhere(
        turns in prop_oneof![turns(), likely_turns()],
        tls in tls_use(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let cut = |turn: &[u8]| {
            let mut at: Vec<usize> = places.iter().map(|place| place.index(turn.len() + 1)).collect();
            at.sort_unstable();
            at
        };
        let (whole, _) = drive(&turns, tls, &|_| Vec::new());
        let (split, _) = drive(&turns, tls, &cut);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn every_session_comes_to_an_end_and_never_mails_in_clear_where_tls_is_required(
        turns in prop_oneof![turns(), likely_turns()],
    ) {
        let (log, session) = drive(&turns, TlsUse::Required, &|_| Vec::new());
        prop_assert!(session.end().is_some());
        let mailed = log.iter().any(|line| line.contains("MAIL FROM"));
        prop_assert!(!mailed || session.is_tls());
    }

    #[test]
    fn a_login_is_said_inside_tls_alone_and_before_any_mail(
        turns in prop_oneof![turns(), likely_turns()],
        tls in tls_use(),
    ) {
        let session = session(tls).logging_in(Credentials::new("relay", "s3cret").ok());
        let (log, session) = drive_on(session, &turns, &|_| Vec::new());
        prop_assert!(session.end().is_some());
        let said = |word: &str| log.iter().position(|line| line.contains(word));
        if let Some(mailed) = said("MAIL FROM").filter(|_| session.is_tls()) {
            prop_assert!(said("AUTH").is_some_and(|login| login < mailed), "{log:?}");
        }
    }

    #[test]
    fn any_octets_at_all_do_no_harm(
        turns in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..12),
        tls in tls_use(),
    ) {
        let (_, session) = drive(&turns, tls, &|_| Vec::new());
        prop_assert!(session.end().is_some());
    }

    #[test]
    fn any_order_of_calls_does_no_harm(
        calls in prop::collection::vec((0_u8..10, reply_line()), 0..60),
        tls in tls_use(),
    ) {
        let mut session = session(tls);
        for (call, reply) in calls {
            match call {
                0 => session.handle_bytes(reply.as_bytes()),
                1 => session.handle_sent(Ok(())),
                2 => session.handle_tls(Ok(())),
                3 => session.begin(message(3)),
                4 if reply.starts_with('5') => session.quit(),
                5 if reply.starts_with('5') => session.handle_timeout(),
                6 if reply.starts_with('5') => session.handle_closed("x"),
                _ => {
                    let closed = session.next_action() == Action::Close;
                    prop_assert!(!closed || session.end().is_some());
                }
            }
            // A delivery is only ever told by the answer to the final dot.
            if let Some(TransactionEnd::Broken { replies, .. }) = session.take_result() {
                prop_assert!(replies.iter().flatten().all(|reply| !reply.is_positive()));
            }
        }
    }
}

/// A session that has accepted a message by BDAT and may send the next one in one flight.
fn flying() -> Session {
    let mut session = idle(&["PIPELINING", "CHUNKING"]);
    session.use_chunking(true);
    session.use_one_flight(true);
    session.begin(message(1));
    // Not the first one: nobody knows yet whether the host understands BDAT.
    assert!(!session.can_fly() && sent(&mut session).ends_with("RCPT TO:<u0@example.net>\r\n"));
    session.handle_bytes(b"250 ok\r\n250 ok\r\n");
    assert!(matches!(session.next_action(), Action::SendChunk { before, .. } if before.is_empty()));
    session.handle_chunk(Ok(Chunk::Last));
    session.handle_bytes(b"250 ok\r\n");
    assert_eq!(session.next_action(), Action::Idle);
    assert!(session.can_fly());
    session
}

/// The commands that go ahead of the chunk.
fn flight(session: &mut Session, recipients: usize) -> String {
    session.begin(message(recipients));
    let Action::SendChunk { before, .. } = session.next_action() else { panic!() };
    session.handle_chunk(Ok(Chunk::Last));
    String::from_utf8(before).unwrap()
}

#[test]
fn a_small_message_goes_out_in_one_flight() {
    let mut session = flying();
    let before = flight(&mut session, 2);
    assert!(before.starts_with("MAIL FROM:") && before.ends_with("RCPT TO:<u1@example.net>\r\n"));
    session.handle_bytes(b"250 ok\r\n250 ok\r\n550 no\r\n250 2.0.0 taken\r\n");
    assert_eq!(session.next_action(), Action::Idle);
    let Some(TransactionEnd::Answered(replies)) = session.take_result() else { panic!() };
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 550]);
}

#[test]
fn in_one_flight_a_message_for_nobody_is_refused_without_harm() {
    for replies in [
        &b"250 ok\r\n550 no\r\n503 5.5.1 no valid recipients\r\n"[..],
        b"452 later\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n",
        b"250 ok\r\n550 no\r\n250 taken for nobody\r\n",
    ] {
        let mut session = flying();
        flight(&mut session, 1);
        session.handle_bytes(replies);
        assert_eq!(session.next_action(), Action::Idle);
        let Some(TransactionEnd::Answered(all)) = session.take_result() else { panic!() };
        assert!(all.len() == 1 && !all[0].is_positive(), "{all:?}");
    }
}

#[test]
fn a_connection_lost_in_flight_leaves_it_uncertain_unless_the_answers_say_otherwise() {
    for (replies, expected) in [
        (&b""[..], Some(true)),
        (b"250 ok\r\n", Some(true)),
        (b"250 ok\r\n250 ok\r\n", Some(true)),
        // In its place nothing after it was done.
        (b"421 4.3.2 closing\r\n", Some(false)),
        (b"250 ok\r\n550 no\r\n", None),
        (b"550 no\r\n", None),
    ] {
        let mut session = flying();
        flight(&mut session, 1);
        if !replies.is_empty() {
            session.handle_bytes(replies);
        }
        session.handle_closed("reset");
        match (session.take_result(), expected) {
            (Some(TransactionEnd::Broken { uncertain, .. }), Some(expected)) => {
                assert_eq!(uncertain, expected, "{}", String::from_utf8_lossy(replies));
            }
            (Some(TransactionEnd::Answered(all)), None) => assert!(all[0].is_permanent()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn more_recipients_than_a_window_do_not_fly() {
    let mut session = flying();
    session.begin(message(RCPT_WINDOW + 1));
    assert!(matches!(session.next_action(), Action::Send { .. }));
}
