//! Notices about any envelope, any reply and any message: what is made reads back as what was meant.

use jiff::Timestamp;
use stsrelay::dsn::{Notice, NoticeFacts, RETURNED_BYTES_MAX, compose};
use stsrelay::mail::{
    BodyType, Domain, EnhancedStatus, Envelope, Failure, Mailbox, Permanence, Recipient, Reply, Ret,
    ReversePath, Scope, TlsRequest,
};
use stsrelay::smtp::body::Normalizer;
use stsrelay::smtp::command::{self, Command, To};
use stsrelay::smtp::decoder::Decoder;

use super::input::Input;
use super::receivers::check_lines;

/// Recipients of one notice.
const RECIPIENTS_MAX: usize = 4;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some((mut envelope, smtputf8)) = sender(&mut input) else { return };
    for _ in 0..=input.below(RECIPIENTS_MAX) {
        envelope.recipients.extend(recipient(&mut input, smtputf8));
    }
    if envelope.recipients.is_empty() {
        return;
    }
    let hostname = Domain::parse("relay.example.org").expect("a domain");
    let recipients: Vec<(usize, Notice)> =
        (0..envelope.recipients.len()).map(|index| (index, notice(&mut input))).collect();
    let facts = NoticeFacts {
        hostname: &hostname,
        envelope: &envelope,
        queue_id: "1-00C5QF3A".to_owned(),
        received_at: instant(&mut input),
        now: instant(&mut input),
        recipients,
        complete: input.flag(),
        random: input.number(),
        original: &mended(input.rest()),
    };
    let made = compose(&facts);
    let ReversePath::Mailbox(sender) = &envelope.reverse_path else {
        return assert_eq!(made, None, "never to the null path (I3)");
    };
    let made = made.expect("a notice about somebody");
    assert_eq!(made.envelope.reverse_path, ReversePath::Null);
    assert_eq!(made.envelope.recipients, [Recipient::plain(sender.clone())]);
    assert_eq!(made.envelope.smtputf8, sender.needs_smtputf8());
    check_content(&made.content, &made.envelope, &facts);
}

fn check_content(content: &[u8], envelope: &Envelope, facts: &NoticeFacts<'_>) {
    check_lines(content);
    assert!(!content.contains(&0) && content.ends_with(b"\r\n"));
    assert!(lines(content).iter().all(|line| line.len() <= 998), "a line no server needs to take");
    assert!(content.is_ascii() || envelope.body == BodyType::EightBitMime);
    // Three octets for one at most, and the rest is ours.
    assert!(content.len() <= 3 * RETURNED_BYTES_MAX + 64 * 1024 * (1 + facts.recipients.len()));

    let (header, body) = halves(content);
    let fields = unfolded(header);
    assert!(header.is_ascii() || envelope.smtputf8);
    for name in ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type"] {
        assert_eq!(fields.iter().filter(|(field, _)| field == name).count(), 1, "{name} in {fields:?}");
    }
    let kind = value(&fields, "Content-Type");
    let boundary = kind.split("boundary=\"").nth(1).expect("a boundary");
    let boundary = boundary.strip_suffix('"').expect("its end");
    let parts = parts(body, boundary);
    let [text, status, returned] = parts.as_slice() else { panic!("{} parts", parts.len()) };
    assert!(value(&unfolded(halves(text).0), "Content-Type").starts_with("text/plain"));

    let kind = value(&unfolded(halves(status).0), "Content-Type");
    let report = if envelope.smtputf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    assert_eq!(kind, report);
    let status = halves(status).1;
    assert!(envelope.smtputf8 || status.is_ascii());
    let groups: Vec<Vec<(String, String)>> = groups(status).into_iter().map(unfolded).collect();
    assert_eq!(groups.len(), 1 + facts.recipients.len(), "one group for the message, one for each recipient");
    assert_eq!(value(&groups[0], "Reporting-MTA"), "dns; relay.example.org");
    assert_eq!(
        groups[0].iter().any(|(name, _)| name == "Original-Envelope-Id"),
        facts.envelope.envid.is_some()
    );
    for (group, (index, notice)) in groups[1..].iter().zip(&facts.recipients) {
        let (action, class) = match notice {
            Notice::Failed(_) => ("failed", '5'),
            Notice::Delayed { .. } => ("delayed", '4'),
            Notice::Relayed(_) => ("relayed", '2'),
        };
        assert_eq!(value(group, "Action"), action);
        assert!(value(group, "Status").starts_with(class), "{group:?}");
        let path = facts.envelope.recipients[*index].path.to_string();
        let told = value(group, "Final-Recipient");
        if path.is_ascii() || envelope.smtputf8 {
            assert_eq!(told.split_once("; ").expect("a type").1, path);
        }
    }

    let kind = value(&unfolded(halves(returned).0), "Content-Type");
    assert!(
        ["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"]
            .contains(&&*kind)
    );
    let whole = kind == "message/rfc822" || kind == "message/global";
    // RFC 8689 §5, RFC 3461 §4.3.
    let asked = facts.envelope.ret != Some(Ret::Headers) && facts.envelope.tls != TlsRequest::Required;
    assert!(!whole || (asked && facts.complete && facts.original.len() <= RETURNED_BYTES_MAX));
}

type Fields = Vec<(String, String)>;

fn halves(message: &[u8]) -> (&[u8], &[u8]) {
    let at = message.windows(4).position(|window| window == b"\r\n\r\n").expect("an empty line");
    (&message[..at + 2], &message[at + 4..])
}

fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// Name and value of each field; panics where a line is none.
fn unfolded(header: &[u8]) -> Fields {
    let text = std::str::from_utf8(header).expect("our header sections are UTF-8");
    let mut fields: Fields = Vec::new();
    for line in text.split_terminator("\r\n") {
        if line.starts_with([' ', '\t']) {
            fields.last_mut().expect("a field to go on").1.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{line:?}");
            fields.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }
    fields
}

fn value(fields: &Fields, name: &str) -> String {
    let found = fields.iter().find(|(field, _)| field == name);
    found.unwrap_or_else(|| panic!("{name} is missing in {fields:?}")).1.clone()
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let (open, close) = (format!("--{boundary}\r\n"), format!("--{boundary}--\r\n"));
    let mut starts = Vec::new();
    let mut end = None;
    let mut at = 0;
    for line in body.split_inclusive(|b| *b == b'\n') {
        assert!(end.is_none(), "nothing after the last boundary");
        if line == open.as_bytes() {
            starts.push((at, at + line.len()));
        } else if line == close.as_bytes() {
            end = Some(at);
        }
        at += line.len();
    }
    let end = end.expect("a last boundary");
    let ends = starts.iter().skip(1).map(|(line, _)| *line).chain([end]);
    // The line end before a boundary is the boundary's.
    starts.iter().zip(ends).map(|((_, from), to)| &body[*from..to - 2]).collect()
}

fn groups(status: &[u8]) -> Vec<&[u8]> {
    let mut groups = Vec::new();
    let mut rest = status;
    while let Some(at) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
        groups.push(&rest[..at + 2]);
        rest = &rest[at + 4..];
    }
    groups.push(rest);
    groups
}

/// Lines as the intake leaves them.
fn mended(content: &[u8]) -> Vec<u8> {
    let (mut lines, mut out) = (Normalizer::default(), Vec::new());
    lines.feed(content, &mut out);
    lines.finish(&mut out);
    out
}

/// MAIL as a client may say it.
fn sender(input: &mut Input<'_>) -> Option<(Envelope, bool)> {
    let line = [b"MAIL FROM:", input.short()].concat();
    let Ok(Command::Mail(mail)) = command::parse(&line) else { return None };
    let tls = match (mail.require_tls, input.flag()) {
        (true, _) => TlsRequest::Required,
        (false, true) => TlsRequest::NotRequired,
        (false, false) => TlsRequest::None,
    };
    let envelope = Envelope {
        reverse_path: mail.path,
        recipients: Vec::new(),
        body: mail.body.unwrap_or_default(),
        smtputf8: mail.smtputf8,
        ret: mail.ret,
        envid: mail.envid,
        tls,
    };
    Some((envelope, mail.smtputf8))
}

/// RCPT as a client may say it.
fn recipient(input: &mut Input<'_>, smtputf8: bool) -> Option<Recipient> {
    let line = [b"RCPT TO:", input.short()].concat();
    let Ok(Command::Rcpt(rcpt)) = command::parse(&line) else { return None };
    if rcpt.utf8 && !smtputf8 {
        return None;
    }
    let path = match rcpt.to {
        To::Mailbox(mailbox) => mailbox,
        To::Postmaster(local) => Mailbox::parse(&format!("{local}@relay.example.org")).ok()?,
    };
    Some(Recipient { path, notify: rcpt.notify, orcpt: rcpt.orcpt })
}

fn notice(input: &mut Input<'_>) -> Notice {
    let reply = reply(input);
    if input.octet() % 3 == 2
        && let Some(reply) = reply
    {
        return Notice::Relayed(reply);
    }
    let failure = Failure {
        scope: Scope::Host,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, u16::from(input.octet()), u16::from(input.octet())),
        text: input.text(),
        host: input.flag().then(|| input.text()),
        reply,
        rule: None,
    };
    match input.flag() {
        true => Notice::Failed(failure),
        false => Notice::Delayed { failure, will_retry_until: instant(input) },
    }
}

/// What a server said, as the decoder gives it.
fn reply(input: &mut Input<'_>) -> Option<Reply> {
    let said = [input.long(), b"\r\n"].concat();
    Decoder::default().feed(&said).1.ok().flatten()
}

fn instant(input: &mut Input<'_>) -> Timestamp {
    let second = 1_700_000_000 + i64::from(input.octet()) * 86_400;
    Timestamp::from_second(second).expect("a time of our days")
}
