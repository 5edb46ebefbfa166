use super::*;
use crate::mail::mime::reader::Entity;
use crate::mail::{Mailbox, Notify, NotifyWhen, Permanence, Ret, Scope};

const ORIGINAL: &[u8] = b"Received: from a by b\r\nFrom: <alice@example.com>\r\n\
    Message-ID: <1@example.com>\r\nSubject: hello\r\n\r\nfirst line\r\n.dot\r\n";

fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse(&format!("<{from}>")).unwrap(),
        recipients: to.iter().map(|to| Recipient::plain(Mailbox::parse(to).unwrap())).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        tls: TlsRequest::None,
    }
}

fn refused(text: &str) -> Failure {
    Failure {
        scope: Scope::Recipient,
        permanence: Permanence::Permanent,
        status: EnhancedStatus::new(5, 1, 1),
        text: "mx.example.net refused the recipient".to_owned(),
        host: Some("mx.example.net".to_owned()),
        reply: Some(Reply::new(550, EnhancedStatus::new(5, 1, 1), text)),
        rule: None,
    }
}

fn forbidden() -> Failure {
    Failure {
        scope: Scope::Host,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, 7, 5),
        text: "the certificate of mx.example.net has expired".to_owned(),
        host: Some("mx.example.net".to_owned()),
        reply: None,
        rule: Some("mta-sts enforce".to_owned()),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn notice(envelope: &Envelope, recipients: Vec<(usize, Notice)>, original: &[u8]) -> Option<ComposedNotice> {
    compose(&NoticeFacts {
        hostname: &Domain::parse("relay.example.org").unwrap(),
        envelope,
        queue_id: "1-0000000A".to_owned(),
        received_at: at("2026-11-20T10:00:00Z"),
        now: at("2026-11-20T10:00:05Z"),
        recipients,
        original,
        complete: true,
        random: 0x1234,
    })
}

fn parts(notice: &ComposedNotice) -> (Entity, String, String, Entity) {
    let whole = Entity::read(&notice.content);
    assert_eq!(whole.kind(), "multipart/report");
    assert_eq!(whole.parts.len(), 3, "RFC 6522 §3");
    let text = whole.parts[0].text().to_owned();
    let status = whole.parts[1].text().to_owned();
    let returned = whole.parts[2].clone();
    (whole, text, status, returned)
}

#[test]
fn a_failure_is_told_in_words_and_in_fields_and_the_message_returned() {
    let mut envelope = envelope("alice@example.com", &["bob@example.net", "carol@example.net"]);
    envelope.envid = Some("QQ+2B314".to_owned());
    envelope.recipients[1].orcpt = Some("rfc822;Carol+2Bx@Example.NET".to_owned());
    let made = notice(
        &envelope,
        vec![(0, Notice::Failed(refused("no such user"))), (1, Notice::Failed(forbidden()))],
        ORIGINAL,
    )
    .unwrap();
    let golden = concat!(
        "From: Mail Delivery System <MAILER-DAEMON@relay.example.org>\r\n",
        "To: <alice@example.com>\r\n",
        "Subject: Undelivered mail returned to sender\r\n",
        "Date: Fri, 20 Nov 2026 10:00:05 +0000\r\n",
        "Message-ID: <1-0000000A.0000000000001234@relay.example.org>\r\n",
        "In-Reply-To: <1@example.com>\r\n",
        "References: <1@example.com>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "MIME-Version: 1.0\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;\r\n",
        " boundary=\"=_0000000000001234\"\r\n",
        "\r\n",
        "--=_0000000000001234\r\n",
        "Content-Type: text/plain; charset=us-ascii\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "Content-Description: Notification\r\n",
        "\r\n",
        "This is the mail system at relay.example.org.\r\n",
        "\r\n",
        "Your message could not be delivered to the following recipients. It will not\r\n",
        "be tried again.\r\n",
        "\r\n",
        "  <bob@example.net>\r\n",
        "    5.1.1 mx.example.net refused the recipient\r\n",
        "    Host: mx.example.net\r\n",
        "    Its answer: 550 5.1.1 no such user\r\n",
        "    Status: 5.1.1\r\n",
        "    What to do: Check the address for mistakes. If it is right, ask the\r\n",
        "    recipient in another way whether it still exists.\r\n",
        "\r\n",
        "  <carol@example.net>\r\n",
        "    5.7.5 the certificate of mx.example.net has expired\r\n",
        "    Host: mx.example.net\r\n",
        "    Rule that forbade delivery: mta-sts enforce\r\n",
        "    Status: 5.7.5\r\n",
        "    What to do: Nothing is wrong with your message: it waits for a safe way\r\n",
        "    to the recipient, and there is none. Whoever runs the recipient's mail\r\n",
        "    system can mend that: let them see this message.\r\n",
        "\r\n",
        "The message was accepted on Fri, 20 Nov 2026 10:00:00 +0000 and is known\r\n",
        "here as 1-0000000A.\r\n",
        "The message is attached.\r\n",
        "\r\n",
        "--=_0000000000001234\r\n",
        "Content-Type: message/delivery-status\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "Content-Description: Delivery report\r\n",
        "\r\n",
        "Original-Envelope-Id: QQ+314\r\n",
        "Reporting-MTA: dns; relay.example.org\r\n",
        "Arrival-Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n",
        "\r\n",
        "Final-Recipient: rfc822; bob@example.net\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Remote-MTA: dns; mx.example.net\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Last-Attempt-Date: Fri, 20 Nov 2026 10:00:05 +0000\r\n",
        "\r\n",
        "Original-Recipient: rfc822; Carol+x@Example.NET\r\n",
        "Final-Recipient: rfc822; carol@example.net\r\n",
        "Action: failed\r\n",
        "Status: 5.7.5\r\n",
        "Last-Attempt-Date: Fri, 20 Nov 2026 10:00:05 +0000\r\n",
        "\r\n",
        "--=_0000000000001234\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "Content-Description: Undelivered message\r\n",
        "\r\n",
        "Received: from a by b\r\n",
        "From: <alice@example.com>\r\n",
        "Message-ID: <1@example.com>\r\n",
        "Subject: hello\r\n",
        "\r\n",
        "first line\r\n",
        ".dot\r\n",
        "\r\n",
        "--=_0000000000001234--\r\n",
    );
    assert_eq!(String::from_utf8(made.content.clone()).unwrap(), golden);
    let (_, _, _, returned) = parts(&made);
    assert_eq!(returned.body, ORIGINAL);
}

#[test]
fn the_envelope_of_a_notice_can_cause_no_further_notice() {
    let mut envelope = envelope("alice@example.com", &["bob@example.net"]);
    envelope.ret = Some(Ret::Full);
    envelope.envid = Some("x".to_owned());
    envelope.recipients[0].notify =
        Some(Notify::When(NotifyWhen { success: true, failure: true, delay: true }));
    let made = notice(&envelope, vec![(0, Notice::Failed(refused("no")))], ORIGINAL).unwrap();
    assert_eq!(
        made.envelope,
        Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::plain(Mailbox::parse("alice@example.com").unwrap())],
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            tls: TlsRequest::None,
        }
    );
}

#[test]
fn a_null_reverse_path_or_nobody_to_tell_of_makes_no_notice() {
    let failed = || vec![(0, Notice::Failed(refused("no")))];
    assert_eq!(notice(&envelope("", &["bob@example.net"]), failed(), ORIGINAL), None);
    let bounced = envelope("alice@example.com", &["bob@example.net"]);
    assert_eq!(notice(&bounced, vec![], ORIGINAL), None);
    assert_eq!(notice(&bounced, vec![(7, failed().remove(0).1)], ORIGINAL), None);
}

#[test]
fn a_delay_is_a_warning_with_an_end_and_returns_the_header_only() {
    let until = at("2026-11-25T10:00:00Z");
    let delayed = Notice::Delayed { failure: forbidden(), will_retry_until: until };
    let made =
        notice(&envelope("alice@example.com", &["bob@example.net"]), vec![(0, delayed)], ORIGINAL).unwrap();
    let (whole, text, status, returned) = parts(&made);
    assert_eq!(whole.field("Subject"), Some("Delayed mail (still being tried)"));
    assert!(text.contains("this is only a warning"), "{text}");
    assert!(text.contains("Tried until: Wed, 25 Nov 2026 10:00:00 +0000"), "{text}");
    assert!(status.contains("Action: delayed\r\nStatus: 4.7.5\r\n"), "{status}");
    assert!(status.contains("Will-Retry-Until: Wed, 25 Nov 2026 10:00:00 +0000\r\n"), "{status}");
    assert_eq!(returned.kind(), "text/rfc822-headers");
    assert!(returned.text().ends_with("Subject: hello\r\n"), "{}", returned.text());
}

#[test]
fn only_a_host_that_answered_is_named_and_only_delays_say_until_when() {
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net"]),
        vec![(0, Notice::Failed(forbidden()))],
        ORIGINAL,
    )
    .unwrap();
    let (_, _, status, _) = parts(&made);
    for absent in ["Remote-MTA", "Diagnostic-Code", "Will-Retry-Until", "Original-Recipient", "Envelope-Id"] {
        assert!(!status.contains(absent), "{absent} in {status}");
    }
}

#[test]
fn a_relayed_message_is_told_with_the_reply_and_the_header_even_with_ret_full() {
    let mut envelope = envelope("alice@example.com", &["bob@example.net"]);
    envelope.ret = Some(Ret::Full);
    let reply = Reply { code: 250, enhanced: None, lines: vec!["queued as 7".to_owned()] };
    let made = notice(&envelope, vec![(0, Notice::Relayed(reply))], ORIGINAL).unwrap();
    let (whole, text, status, returned) = parts(&made);
    assert_eq!(whole.field("Subject"), Some("Mail relayed successfully"));
    assert!(text.contains("Answer: 250 queued as 7"), "{text}");
    assert!(status.contains("Action: relayed\r\nStatus: 2.0.0\r\n"), "{status}");
    assert!(status.contains("Diagnostic-Code: smtp; 250 queued as 7\r\n"), "{status}");
    assert_eq!(returned.kind(), "text/rfc822-headers");
}

#[test]
fn several_kinds_fit_in_one_notice() {
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net", "carol@example.net"]),
        vec![
            (0, Notice::Failed(refused("no"))),
            (1, Notice::Relayed(Reply::new(250, EnhancedStatus::new(2, 1, 5), "ok"))),
        ],
        ORIGINAL,
    )
    .unwrap();
    let (whole, _, status, _) = parts(&made);
    assert_eq!(whole.field("Subject"), Some("Mail delivery report"));
    assert!(status.contains("Action: failed") && status.contains("Status: 2.1.5"), "{status}");
}

#[test]
fn what_is_returned_follows_ret_size_and_requiretls() {
    let kind = |change: fn(&mut Envelope), original: &[u8]| {
        let mut envelope = envelope("alice@example.com", &["bob@example.net"]);
        change(&mut envelope);
        let made = notice(&envelope, vec![(0, Notice::Failed(refused("no")))], original).unwrap();
        let (_, text, _, returned) = parts(&made);
        assert!(
            !String::from_utf8_lossy(&returned.body).contains("SECRET")
                || returned.kind() == "message/rfc822"
        );
        (returned.kind().to_owned(), text.lines().last().unwrap().to_owned())
    };
    let message = b"Subject: x\r\n\r\nSECRET\r\n".to_vec();
    let mut long = message.clone();
    long.extend(b"line\r\n".repeat(10_000));
    let mut long_line = message.clone();
    long_line.extend(b"x".repeat(2000));

    assert_eq!(kind(|_| {}, &message).0, "message/rfc822");
    assert_eq!(kind(|e| e.ret = Some(Ret::Full), &message).0, "message/rfc822");
    assert_eq!(kind(|e| e.ret = Some(Ret::Headers), &message).0, "text/rfc822-headers");
    let (returned, remark) = kind(|e| e.ret = Some(Ret::Full), &long);
    assert_eq!(returned, "text/rfc822-headers");
    assert!(remark.contains("long"), "{remark}");
    assert_eq!(kind(|_| {}, &long_line).0, "text/rfc822-headers");
    let requiretls = |e: &mut Envelope| {
        e.tls = TlsRequest::Required;
        e.ret = Some(Ret::Full);
    };
    assert_eq!(kind(requiretls, &message).0, "text/rfc822-headers");
}

#[test]
fn a_notice_travels_as_protected_as_the_message_did_and_never_less_than_others() {
    for (asked, wanted) in [
        (TlsRequest::Required, TlsRequest::Required),
        (TlsRequest::NotRequired, TlsRequest::None),
        (TlsRequest::None, TlsRequest::None),
    ] {
        let original = Envelope { tls: asked, ..envelope("alice@example.com", &["bob@example.net"]) };
        let failed = vec![(0, Notice::Failed(refused("no")))];
        assert_eq!(notice(&original, failed, ORIGINAL).unwrap().envelope.tls, wanted, "{asked:?}");
    }
}

#[test]
fn an_endless_header_is_cut_at_a_line_end() {
    let original = [b"A: b\r\n".repeat(20_000), b"\r\nbody\r\n".to_vec()].concat();
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net"]),
        vec![(0, Notice::Failed(refused("no")))],
        &original,
    )
    .unwrap();
    let (_, _, _, returned) = parts(&made);
    assert!(returned.body.len() <= RETURNED_BYTES_MAX);
    assert!(returned.text().ends_with("A: b\r\n"));
}

#[test]
fn a_message_that_cannot_be_read_any_more_is_bounced_without_it_and_says_so() {
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net"]),
        vec![(0, Notice::Failed(refused("no")))],
        b"",
    )
    .unwrap();
    let (_, text, _, returned) = parts(&made);
    assert!(text.contains("cannot be read any more"), "{text}");
    assert_eq!(returned.kind(), "text/rfc822-headers");
    assert!(returned.text().trim().is_empty());
}

#[test]
fn eight_bit_text_is_returned_as_such_and_declared() {
    let original = "Subject: x\r\n\r\nGrüße\r\n".as_bytes();
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net"]),
        vec![(0, Notice::Failed(refused("no")))],
        original,
    )
    .unwrap();
    let (_, _, _, returned) = parts(&made);
    assert_eq!(returned.kind(), "message/rfc822");
    assert_eq!(returned.body, original);
    assert_eq!(made.envelope.body, BodyType::EightBitMime);
    assert!(!made.envelope.smtputf8);
}

#[test]
fn a_sender_with_an_ascii_address_gets_an_ascii_notice_about_utf8_recipients() {
    let mut envelope = envelope("alice@example.com", &["grün@bücher.example"]);
    envelope.smtputf8 = true;
    let original = "Subject: Grüße\r\n\r\nGrüße\r\n".as_bytes();
    let made = notice(&envelope, vec![(0, Notice::Failed(refused("grün gibt es nicht")))], original).unwrap();
    assert!(made.content.is_ascii());
    assert!(!made.envelope.smtputf8);
    assert_eq!(made.envelope.body, BodyType::SevenBit);
    let (_, text, status, returned) = parts(&made);
    assert!(text.contains("<grün@xn--bcher-kva.example>"), "{text}");
    assert!(status.contains("Final-Recipient: utf-8; gr\\x{FC}n@xn--bcher-kva.example"), "{status}");
    assert!(status.contains("Diagnostic-Code: smtp; 550 5.1.1 gr?n gibt es nicht"), "{status}");
    assert_eq!(returned.kind(), "message/global");
    assert_eq!(returned.body, original);

    envelope.ret = Some(Ret::Headers);
    let made = notice(&envelope, vec![(0, Notice::Failed(refused("nein")))], original).unwrap();
    let (_, _, _, returned) = parts(&made);
    assert_eq!(returned.kind(), "message/global-headers");
    assert_eq!(returned.text(), "Subject: Grüße\r\n");
}

#[test]
fn a_sender_with_a_utf8_address_gets_a_global_notice() {
    let mut envelope = envelope("käthe@example.com", &["grün@example.net"]);
    envelope.smtputf8 = true;
    let made = notice(&envelope, vec![(0, Notice::Failed(refused("nein")))], ORIGINAL).unwrap();
    assert!(made.envelope.smtputf8);
    assert_eq!(made.envelope.body, BodyType::EightBitMime);
    let (whole, _, status, _) = parts(&made);
    assert_eq!(whole.field("To"), Some("<käthe@example.com>"));
    assert_eq!(whole.parts[1].kind(), "message/global-delivery-status");
    assert!(status.contains("Final-Recipient: utf-8; grün@example.net"), "{status}");
}

#[test]
fn a_header_in_no_known_charset_does_not_harm_the_notice() {
    let original = b"Subject: gr\xfcn\r\n\r\nbody\r\n";
    let made = notice(
        &envelope("alice@example.com", &["bob@example.net"]),
        vec![(0, Notice::Failed(refused("no")))],
        original,
    )
    .unwrap();
    assert!(made.content.is_ascii());
    let (_, _, _, returned) = parts(&made);
    assert_eq!(returned.kind(), "text/rfc822-headers");
    assert_eq!(returned.body, b"Subject: gr\xfcn\r\n");
}

#[test]
fn hostile_replies_and_ids_cannot_forge_fields() {
    let mut envelope = envelope("alice@example.com", &["bob@example.net"]);
    envelope.envid = Some("x+0D+0AAction: delivered".to_owned());
    envelope.recipients[0].orcpt = Some("rfc822;a+0D+0AStatus: 2.0.0".to_owned());
    let mut failure = refused(&"x".repeat(5000));
    failure.text = "evil\r\n--=_0000000000001234--\r\n".to_owned();
    let original = b"Message-ID: <a b>\r\n\r\n--=_0000000000001234\r\n";
    let made = notice(&envelope, vec![(0, Notice::Failed(failure))], original).unwrap();
    let (whole, _, status, returned) = parts(&made);
    assert!(!status.contains("\r\nAction: delivered"), "{status}");
    assert!(!status.contains("\r\nStatus: 2.0.0"), "{status}");
    assert!(status.lines().all(|line| line.len() <= 998));
    assert_eq!(returned.body, original);
    assert_eq!(whole.field("In-Reply-To"), None);
}

#[test]
fn a_thousand_recipients_are_all_in_the_fields_and_a_hundred_in_words() {
    let to: Vec<String> = (0..1000).map(|n| format!("user{n}@example.net")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let all = (0..1000).map(|n| (n, Notice::Failed(refused("no")))).collect();
    let made = notice(&envelope("alice@example.com", &to), all, ORIGINAL).unwrap();
    let (_, text, status, _) = parts(&made);
    assert_eq!(status.matches("Final-Recipient:").count(), 1000);
    assert_eq!(text.matches("<user").count(), 100);
    assert!(text.contains("and 900 more"), "{text}");
}
