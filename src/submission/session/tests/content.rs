//! DATA, BDAT, and what becomes of a message.

use super::support::{Setting, Talk};
use crate::mail::{BodyType, Notify, NotifyWhen, Ret, TlsRequest};
use crate::smtp::body::BareNewlines;
use crate::store::Health;
use crate::submission::{ListenerAuth, ReceivedClient};

#[tokio::test]
async fn a_message_is_queued_as_it_came_behind_our_received_field() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    let content = "Subject: x\r\nDate: bad\r\n\r\n..dot\r\n.";
    talk.begin().await;
    talk.send("Subject: x\r\nDate: bad\r\n\r\n...dot\r\n..\r\n.\r\n").await;
    talk.expect("250 2.0.0 Ok: queued as 1-00000001").await;
    let (message, stored) = setting.queue.last();
    let received = "Received: from client.example ([192.0.2.9])\r\n\
                    \tby relay.example.org with ESMTP id 1-00000001\r\n\
                    \tfor <b@example.net>;\r\n\
                    \tMon, 02 Nov 2026 12:00:00 +0000\r\n";
    assert_eq!(stored, format!("{received}{content}\r\n"));
    assert_eq!(message.id.to_string(), "1-00000001");
    assert_eq!(message.envelope.reverse_path.to_string(), "<a@example.com>");
    assert_eq!(message.envelope.body, BodyType::SevenBit);
    assert!(!message.is_report && message.expires_at.is_none());
}

#[tokio::test]
async fn what_the_submitter_asked_for_is_kept() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask(
        "MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1 AUTH=<>",
        "250",
    )
    .await;
    talk.ask("RCPT TO:<grüße@bücher.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;G+2B@b.example", "250").await;
    talk.ask("RCPT TO:<POSTMASTER> NOTIFY=NEVER", "250").await;
    talk.ask("RCPT TO:<c@[192.0.2.77]>", "250").await;
    talk.ask("DATA", "354").await;
    talk.send("Subject: x\r\n.\r\n").await;
    talk.expect("250").await;
    let (message, stored) = setting.queue.last();
    let envelope = message.envelope;
    assert!(envelope.smtputf8 && envelope.body == BodyType::EightBitMime);
    assert_eq!((envelope.ret, envelope.envid.as_deref()), (Some(Ret::Headers), Some("QQ+2B1")));
    let paths: Vec<_> = envelope.recipients.iter().map(|to| to.path.to_string()).collect();
    assert_eq!(paths, ["grüße@xn--bcher-kva.example", "POSTMASTER@relay.example.org", "c@[192.0.2.77]"]);
    let when = NotifyWhen { success: true, failure: false, delay: true };
    assert_eq!(envelope.recipients[0].notify, Some(Notify::When(when)));
    assert_eq!(envelope.recipients[0].orcpt.as_deref(), Some("rfc822;G+2B@b.example"));
    assert_eq!(envelope.recipients[1].notify, Some(Notify::Never));
    assert!(stored.contains(" with UTF8SMTP id ") && !stored.contains("for <"), "{stored}");
    assert_eq!(setting.prefetched.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn requiretls_is_for_sessions_inside_tls_and_takes_no_value() {
    let trusted = Setting::trusted();
    let mut talk = trusted.greeted().await;
    assert!(!talk.ask("EHLO client.example", "250").await.contains("REQUIRETLS"));
    talk.ask("MAIL FROM:<a@example.com> REQUIRETLS", "550 5.7.10").await;
    talk.ask("RCPT TO:<b@example.net>", "503").await;

    let mut setting = Setting::submission();
    setting.listener.auth = ListenerAuth::Optional;
    setting.peer = "192.0.2.9:1";
    let mut talk = setting.greeted().await;
    assert!(!talk.ask("EHLO client.example", "250").await.contains("REQUIRETLS"));
    talk.ask("MAIL FROM:<a@example.com> REQUIRETLS", "530 5.7.10").await;
    let mut talk = talk.starttls().await;
    assert!(talk.ask("EHLO client.example", "250").await.contains("250-REQUIRETLS\r\n"));
    for wrong in ["REQUIRETLS=x", "REQUIRETLS=", "requiretls=1", "REQUIRETLS REQUIRETLS"] {
        talk.ask(&format!("MAIL FROM:<a@example.com> {wrong}"), "501 5.5.4").await;
    }
    // RFC 8689 §2: MAIL grows by 11 octets; here beside everything else at its longest.
    let local = "a".repeat(64);
    let domain = [&*"b".repeat(63), &*"c".repeat(63), &*"d".repeat(47), "example.com"].join(".");
    let line = format!(
        "MAIL FROM:<{local}@{domain}> SIZE=12345678 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID={} AUTH={} REQUIRETLS",
        "e".repeat(100),
        "f".repeat(500)
    );
    assert!(line.len() > 900, "{}", line.len());
    talk.ask(&line, "250 2.1.0").await;
    talk.ask("RSET", "250").await;
    talk.ask("MAIL FROM:<a@example.com> requiretls", "250 2.1.0").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.ask("DATA", "354").await;
    // RFC 8689 §3: the header has no say beside the parameter.
    talk.send("TLS-Required: No\r\n\r\nx\r\n.\r\n").await;
    talk.expect("250").await;
    assert_eq!(setting.queue.last().0.envelope.tls, TlsRequest::Required);
    assert!(setting.queue.last_content().starts_with("TLS-Required: No\r\n"));
}

#[tokio::test]
async fn the_header_tls_required_no_marks_the_message_and_stays_in_it() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    for (header, wanted) in [
        ("Subject: x\r\nTLS-Required: No\r\n", TlsRequest::NotRequired),
        ("Subject: x\r\n", TlsRequest::None),
        ("TLS-Required: Yes\r\n", TlsRequest::None),
        ("TLS-Required: No\r\nTLS-Required: No\r\n", TlsRequest::None),
        ("Subject: x\r\n\r\nTLS-Required: No\r\n", TlsRequest::None),
    ] {
        talk.message(format!("{header}\r\ny"), "250").await;
        assert_eq!(setting.queue.last().0.envelope.tls, wanted, "{header:?}");
        assert!(setting.queue.last_content().starts_with(header), "{header:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_ascii_needs_smtputf8_at_mail() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.ask("RCPT TO:<grüße@example.net>", "553 5.6.7").await;
    talk.send(b"RCPT TO:<\xff@example.net>\r\n").await;
    talk.expect("501 5.5.2").await;
}

#[tokio::test]
async fn eight_bit_content_is_marked_whatever_was_declared() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.message("Subject: x\r\n\r\ngrüße", "250").await;
    assert_eq!(setting.queue.last().0.envelope.body, BodyType::EightBitMime);
}

async fn authenticated(setting: &Setting) -> Talk {
    let mut talk = setting.greeted().await.starttls().await;
    talk.ask("EHLO client.example", "250").await;
    talk.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235").await;
    talk
}

#[tokio::test]
async fn only_an_authenticated_clients_message_is_completed_and_never_a_signed_one() {
    let setting = Setting::submission();
    let mut talk = authenticated(&setting).await;
    let date = "Date: Mon, 02 Nov 2026 12:00:00 +0000\r\n";
    talk.message("Subject: x\r\n\r\ny", "250").await;
    let content = setting.queue.last_content();
    let id = "Message-ID: <1-00000001.1793620800@relay.example.org>\r\n";
    assert_eq!(content, format!("{date}{id}Subject: x\r\n\r\ny\r\n"));
    talk.message("message-id: <a@b>\r\n\r\ny", "250").await;
    assert_eq!(setting.queue.last_content(), format!("{date}message-id: <a@b>\r\n\r\ny\r\n"));
    for whole in [
        "DATE: x\r\nMessage-Id: <a@b>\r\n\r\ny",
        "Subject: x\r\nDKIM-Signature: v=1\r\n\r\ny",
        "DKIM-Signature: v=1;\r\n\tb=x\r\n\r\n",
    ] {
        talk.message(whole, "250").await;
        assert_eq!(setting.queue.last_content(), format!("{whole}\r\n"));
    }
    assert!(setting.queue.last().1.contains("\r\n\ttls TLS_AES_"), "{}", setting.queue.last().1);
    assert!(setting.queue.last().1.contains("(TLSv1.3);"));

    let mut setting = Setting::submission();
    setting.listener.auth = ListenerAuth::Optional;
    setting.peer = "192.0.2.9:1";
    let mut talk = setting.greeted().await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert_eq!(setting.queue.last_content(), "Subject: x\r\n\r\ny\r\n");
}

#[tokio::test]
async fn text_without_a_header_does_not_become_one() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.message("hello there", "250").await;
    assert_eq!(setting.queue.last_content(), "\r\nhello there\r\n");
    talk.message("\r\nhello: there", "250").await;
    assert_eq!(setting.queue.last_content(), "\r\nhello: there\r\n");
    talk.begin().await;
    talk.send(".\r\n").await;
    talk.expect("250").await;
    assert_eq!(setting.queue.last_content(), "");
    talk.message("Subject: only", "250").await;
    assert_eq!(setting.queue.last_content(), "Subject: only\r\n");
}

#[tokio::test]
async fn a_hundred_hops_are_fine_and_one_more_is_a_loop() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    let hops =
        |n: usize| format!("{}Subject: x\r\n\r\nReceived: y", "Received: by a\r\n\tfor b\r\n".repeat(n));
    talk.message(hops(100), "250").await;
    talk.message(hops(101), "554 5.4.6").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    talk.message(format!("X: {}\r\n\r\ny", "\r\n y".repeat(90_000)), "552 5.3.4").await;
    assert_eq!(setting.queue.count(), 2);
}

#[tokio::test]
async fn nothing_can_be_smuggled_through_data() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r",
        "\n.\r",
        "\r.\r\n",
        "\r.\n",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\r\r\n.\r\r\n",
        "\r\n.\r\r\n",
        "\n\n.\r\n",
    ] {
        let setting = Setting::trusted();
        let mut talk = setting.greeted().await;
        talk.begin().await;
        let smuggled =
            format!("Subject: x\r\n\r\ny{end}MAIL FROM:<evil@example.com>\r\nRCPT TO:<v@example.net>\r\n");
        talk.send(format!("{smuggled}DATA\r\nevil\r\n.\r\n")).await;
        talk.expect("550 5.5.2").await;
        talk.closed().await;
        assert_eq!(setting.queue.count(), 0, "{end:?}");
    }
}

#[tokio::test]
async fn a_first_line_that_ends_in_lf_makes_nothing_lenient() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.begin().await;
    talk.send("Subject: x\nTo: y\n\ntext\n.\nMAIL FROM:<evil@example.com>\r\n.\r\n").await;
    talk.expect("550 5.5.2").await;
    talk.closed().await;
    assert_eq!(setting.queue.count(), 0);
}

#[tokio::test]
async fn where_bare_newlines_are_normalised_a_message_becomes_whole_lines_and_stays_one() {
    let mut setting = Setting::trusted();
    setting.listener.bare_newlines = BareNewlines::Normalise;
    let mut talk = setting.greeted().await;
    for (content, stored) in [
        ("Subject: x\nTo: y\n\nz\r..\n", "Subject: x\r\nTo: y\r\n\r\nz\r\n..\r\n\r\n"),
        (
            "Subject: x\r\n\r\ny\n.\nMAIL FROM:<evil@example.com>",
            "Subject: x\r\n\r\ny\r\n.\r\nMAIL FROM:<evil@example.com>\r\n",
        ),
        ("Subject: x\r\n\r\ny\n.\r\nz", "Subject: x\r\n\r\ny\r\n.\r\nz\r\n"),
        ("Subject: x\r\n\r\n..y\n..z", "Subject: x\r\n\r\n.y\r\n.z\r\n"),
    ] {
        talk.message(content, "250 2.0.0 Ok: queued").await;
        assert_eq!(setting.queue.last_content(), stored, "{content:?}");
    }
    assert_eq!(setting.queue.count(), 4);
    // Commands are commands, and a NUL has no good reading.
    talk.ask("NOOP\nNOOP", "500 5.5.2").await;
    talk.message("Subject: x\n\ny\0z", "550 5.5.2").await;
    talk.closed().await;
}

#[tokio::test]
async fn the_received_field_names_the_client_as_the_listener_says() {
    let mut setting = Setting::submission();
    for (wanted, named) in
        [(ReceivedClient::Full, true), (ReceivedClient::OmitForUsers, false), (ReceivedClient::Omit, false)]
    {
        setting.listener.received_client = wanted;
        let mut talk = authenticated(&setting).await;
        talk.message("Subject: x\r\n\r\ny", "250").await;
        let (_, stored) = setting.queue.last();
        let from = if named {
            "Received: from client.example ([198.51.100.7])\r\n"
        } else {
            "Received: from unknown\r\n"
        };
        assert!(stored.starts_with(from), "{stored}");
        assert_eq!(stored.contains("198.51.100.7") || stored.contains("client.example"), named);
    }
    let mut setting = Setting::trusted();
    for (wanted, named) in [(ReceivedClient::OmitForUsers, true), (ReceivedClient::Omit, false)] {
        setting.listener.received_client = wanted;
        let mut talk = setting.greeted().await;
        talk.message("Subject: x\r\n\r\ny", "250").await;
        assert_eq!(setting.queue.last().1.contains("192.0.2.9"), named);
    }
}

#[tokio::test]
async fn trace_and_hidden_copies_of_the_author_go_through_as_they_are() {
    let setting = Setting::submission();
    let mut talk = authenticated(&setting).await;
    let content = "Return-Path: <a@example.com>\r\nReceived: by a; date\r\nBCC: <c@example.net>\r\n\
                   Received: by b\r\n\tfolded\r\nDate: x\r\nMessage-ID: <a@b>\r\nX: \u{fc} \t \r\n\r\n \r\n";
    talk.message(content, "250").await;
    assert_eq!(setting.queue.last_content(), format!("{content}\r\n"));
}

#[tokio::test]
async fn a_bare_line_end_does_not_end_a_command() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.send("MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\r\n").await;
    talk.expect("500 5.5.2").await;
    talk.send("NOOP\rNOOP\r\n").await;
    talk.expect("500 5.5.2").await;
    talk.send("NO\0OP\r\n").await;
    talk.expect("500 5.5.2").await;
    talk.ask("RCPT TO:<b@example.net>", "503").await;
}

#[tokio::test]
async fn chunks_are_counted_to_the_octet_and_not_unstuffed() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    // One segment: envelope, two chunks, and the next command.
    talk.send(
        "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nBDAT 14\r\nSubject: x\r\n\r\n\
         BDAT 8 LAST\r\n..y\r\n.\r\nNOOP\r\n",
    )
    .await;
    for reply in ["250 2.1.0", "250 2.1.5", "250 2.0.0 14 octets", "250 2.0.0 Ok: queued", "250 2.0.0 Ok\r\n"]
    {
        talk.expect(reply).await;
    }
    assert_eq!(setting.queue.last_content(), "Subject: x\r\n\r\n..y\r\n.\r\n");

    for (chunks, want) in [
        ("BDAT 4\r\nA: bBDAT 0 LAST\r\n", "A: b\r\n"),
        ("BDAT 0\r\nBDAT 6 LAST\r\nA: b\r\n", "A: b\r\n"),
        ("BDAT 5\r\nA: b\rBDAT 6 LAST\r\n\n\nx\ry\n", "A: b\r\n\r\nx\r\ny\r\n"),
    ] {
        talk.ask("MAIL FROM:<a@example.com>", "250").await;
        talk.ask("RCPT TO:<b@example.net>", "250").await;
        talk.send(chunks).await;
        talk.expect("250").await;
        talk.expect("250 2.0.0 Ok: queued").await;
        assert_eq!(setting.queue.last_content(), want, "{chunks:?}");
    }
    talk.ask("DATA", "503").await;
}

#[tokio::test]
async fn data_and_bdat_do_not_mix() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.send("BDAT 6\r\nA: b\r\n").await;
    talk.expect("250 2.0.0 6 octets").await;
    talk.ask("DATA", "503 5.5.1").await;
    talk.ask("RCPT TO:<c@example.net>", "503 5.5.1").await;
    talk.ask("MAIL FROM:<c@example.com>", "503 5.5.1").await;
    talk.ask("RSET", "250").await;
    talk.ask("BDAT 0 LAST", "503 5.5.1").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert_eq!(setting.queue.count(), 1);
}

#[tokio::test]
async fn a_refused_chunk_is_read_to_its_end() {
    let mut setting = Setting::trusted();
    setting.options.message_size = 20;
    let mut talk = setting.greeted().await;
    talk.send("BDAT 6\r\nQUIT\r\nNOOP\r\n").await;
    talk.expect("503 5.5.1").await;
    talk.expect("250 2.0.0").await;
    // All recipients refused; the client could not know yet.
    talk.send("MAIL FROM:<>\r\nRCPT TO:<bad>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n").await;
    for reply in ["250 2.1.0", "554 5.1.2", "554 5.5.1", "250 2.0.0"] {
        talk.expect(reply).await;
    }
    // Too large, told at the chunk that made it so; what follows has no transaction.
    talk.ask("MAIL FROM:<>", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.send("BDAT 12\r\n0123456789\r\nBDAT 12\r\n0123456789\r\nBDAT 6 LAST\r\nQUIT\r\n").await;
    for reply in ["250 2.0.0 12 octets", "552 5.3.4", "503 5.5.1"] {
        talk.expect(reply).await;
    }
    talk.ask("MAIL FROM:<>", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.send("BDAT 3 LAST\r\na\0bNOOP\r\n").await;
    talk.expect("550 5.5.2").await;
    talk.expect("250 2.0.0").await;
    assert_eq!(setting.queue.count(), 0);
}

#[tokio::test]
async fn a_chunk_of_unknown_size_ends_the_session() {
    let setting = Setting::trusted();
    for line in ["BDAT", "BDAT x", "BDAT 10 LASTLY", "BDAT -1 LAST"] {
        let mut talk = setting.greeted().await;
        talk.ask("MAIL FROM:<a@example.com>", "250").await;
        talk.ask("RCPT TO:<b@example.net>", "250").await;
        talk.send(format!("{line}\r\nMAIL FROM:<evil@example.com>\r\n")).await;
        talk.expect("501 5.5.4").await;
        talk.closed().await;
    }
}

#[tokio::test]
async fn a_queue_in_trouble_is_told_at_mail_and_the_session_goes_on() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    setting.queue.set_health(Health::Full("secret".into()));
    let reply = talk.ask("MAIL FROM:<a@example.com>", "452 4.3.1").await;
    assert!(!reply.contains("secret"));
    setting.queue.set_health(Health::Low("secret".into()));
    talk.ask("MAIL FROM:<a@example.com> SIZE=1", "452 4.3.1").await;
    setting.queue.set_health(Health::Failed("secret".into()));
    talk.ask("MAIL FROM:<a@example.com>", "451 4.3.0").await;
    talk.ask("RCPT TO:<b@example.net>", "503").await;
    setting.queue.set_health(Health::Fine);
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    setting.queue.set_health(Health::Failed("secret".into()));
    talk.ask("DATA", "451 4.3.0").await;
    talk.ask("RCPT TO:<b@example.net>", "503").await;
}

#[tokio::test]
async fn little_room_keeps_new_mail_out_and_lets_what_has_begun_end() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    setting.queue.set_health(Health::Low("secret".into()));
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.ask("DATA", "354").await;
    talk.send("Subject: x\r\n\r\ny\r\n.\r\n").await;
    talk.expect("250 2.0.0 Ok: queued").await;
    talk.ask("MAIL FROM:<a@example.com>", "452 4.3.1").await;
    setting.queue.set_health(Health::Fine);
    talk.message("Subject: x\r\n\r\ny", "250").await;
}

#[tokio::test]
async fn a_queue_that_fails_at_the_end_keeps_no_message_and_says_so() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.begin().await;
    setting.queue.fill();
    talk.send("Subject: x\r\n\r\ny\r\n.\r\n").await;
    let reply = talk.expect("452 4.3.1").await;
    assert!(!reply.contains("secret"));
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.begin().await;
    setting.queue.smash();
    talk.send("Subject: x\r\n\r\ny\r\n.\r\n").await;
    talk.expect("451 4.3.0").await;
    talk.ask("NOOP", "250").await;
}

#[tokio::test]
async fn a_body_sink_that_fails_does_not_end_the_body() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.begin().await;
    talk.send("Subject: x\r\n\r\n").await;
    setting.queue.fill();
    // Enough to be written out, where it fails; then lines that look like commands.
    talk.send(format!("{}\r\n", "y".repeat(900)).repeat(2000)).await;
    talk.send("QUIT\r\nMAIL FROM:<evil@example.com>\r\n").await;
    talk.send("\r\n.\r\nNOOP\r\n").await;
    talk.expect("452 4.3.1").await;
    talk.expect("250 2.0.0").await;
    talk.ask("RCPT TO:<b@example.net>", "503").await;
    assert_eq!(setting.queue.count(), 0);
}
