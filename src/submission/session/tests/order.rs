//! What may be said when, and by whom.

use super::support::{Setting, Talk};
use crate::submission::{ListenerAuth, ListenerTls};

async fn keywords(talk: &mut Talk) -> Vec<String> {
    let reply = talk.ask("EHLO client.example", "250-relay.example.org\r\n").await;
    let mut keywords: Vec<String> = reply.lines().skip(1).map(|line| line[4..].to_owned()).collect();
    keywords.sort();
    keywords
}

const ALWAYS: [&str; 8] = [
    "8BITMIME",
    "CHUNKING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "LIMITS RCPTMAX=1000",
    "PIPELINING",
    "SIZE 50000000",
    "SMTPUTF8",
];

#[tokio::test]
async fn ehlo_offers_what_the_listener_and_the_connection_allow() {
    let setting = Setting::trusted();
    let mut talk = setting.connect();
    talk.expect("220 relay.example.org ESMTP\r\n").await;
    assert_eq!(keywords(&mut talk).await, ALWAYS);

    let mut setting = Setting::submission();
    let mut talk = setting.connect();
    talk.expect("220").await;
    let with = |extra: &[&str]| {
        let mut all: Vec<_> = ALWAYS.iter().chain(extra).map(ToString::to_string).collect();
        all.sort();
        all
    };
    assert_eq!(keywords(&mut talk).await, with(&["STARTTLS"]));
    let mut talk = talk.starttls().await;
    assert_eq!(keywords(&mut talk).await, with(&["AUTH PLAIN LOGIN", "REQUIRETLS"]));

    setting.listener.allow_plaintext_auth = true;
    let mut talk = setting.connect();
    talk.expect("220").await;
    assert_eq!(keywords(&mut talk).await, with(&["AUTH PLAIN LOGIN", "STARTTLS"]));

    setting.tls = None;
    let mut talk = setting.connect();
    talk.expect("220").await;
    assert_eq!(keywords(&mut talk).await, with(&["AUTH PLAIN LOGIN"]));
}

#[tokio::test]
async fn implicit_tls_speaks_from_the_first_octet() {
    let mut setting = Setting::submission();
    setting.listener.tls = ListenerTls::Implicit;
    let mut talk = setting.connect().handshake().await;
    talk.expect("220").await;
    assert!(keywords(&mut talk).await.contains(&"AUTH PLAIN LOGIN".to_owned()));
    talk.ask("STARTTLS", "503 5.5.1").await;
}

#[tokio::test]
async fn commands_out_of_order_get_503_and_the_session_goes_on() {
    let setting = Setting::trusted();
    let mut talk = setting.connect();
    talk.expect("220").await;
    talk.ask("MAIL FROM:<a@example.com>", "503 5.5.1").await;
    talk.ask("EHLO client.example", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "503 5.5.1").await;
    talk.ask("DATA", "503 5.5.1").await;
    talk.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
    talk.ask("MAIL FROM:<a@example.com>", "503 5.5.1").await;
    talk.ask("DATA", "503 5.5.1").await;
    talk.ask("RCPT TO:<bad>", "554 5.1.2").await;
    talk.ask("DATA", "554 5.5.1").await;
    talk.ask("NOOP", "250 2.0.0").await;
    talk.ask("VRFY b", "252 2.0.0").await;
    talk.ask("EXPN b", "502 5.5.1").await;
    talk.ask("HELP", "214 2.0.0").await;
    talk.ask("RSET", "250 2.0.0").await;
    talk.message("Subject: x\r\n\r\ny", "250 2.0.0 Ok: queued as 1-00000001").await;
    talk.ask("QUIT", "221 2.0.0").await;
    talk.closed().await;
    assert_eq!(setting.queue.count(), 1);
}

#[tokio::test]
async fn ehlo_and_rset_end_a_transaction() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    for line in ["EHLO client.example", "RSET", "HELO client.example"] {
        talk.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
        talk.ask("RCPT TO:<b@example.net>", "250 2.1.5").await;
        talk.ask(line, "250").await;
        talk.ask("DATA", "503 5.5.1").await;
    }
}

#[tokio::test]
async fn a_refused_mail_leaves_no_transaction() {
    let mut setting = Setting::trusted();
    setting.options.message_size = 1000;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com> SIZE=1001", "552 5.3.4").await;
    talk.ask("RCPT TO:<b@example.net>", "503 5.5.1").await;
    talk.ask("MAIL FROM:<a@example.com> SIZE=1000", "250 2.1.0").await;
    talk.ask("RCPT TO:<b@example.net>", "250 2.1.5").await;
    talk.ask("RSET", "250").await;
    talk.ask("MAIL FROM:<a@example.com> REQUIRETLS", "550 5.7.10").await;
    talk.ask("MAIL FROM:<a@example.com> XFOO", "555 5.5.4").await;
    talk.ask("RCPT TO:<b@example.net>", "503 5.5.1").await;
}

#[tokio::test]
async fn nobody_relays_who_is_neither_trusted_nor_authenticated() {
    use ListenerAuth::{None as Without, Optional, Required};
    let stranger = "198.51.100.7:1";
    let friend = "192.0.2.9:1";
    for (auth, tls, plaintext, peer, reply) in [
        (Without, ListenerTls::None, false, stranger, "554 5.7.1"),
        (Without, ListenerTls::StartTls, false, stranger, "554 5.7.1"),
        (Without, ListenerTls::None, false, friend, "250 2.1.0"),
        (Without, ListenerTls::None, false, "[::ffff:192.0.2.9]:1", "250 2.1.0"),
        (Without, ListenerTls::None, false, "[::1]:1", "554 5.7.1"),
        (Optional, ListenerTls::StartTls, false, stranger, "530 5.7.0"),
        (Optional, ListenerTls::StartTls, false, friend, "250 2.1.0"),
        (Optional, ListenerTls::None, true, stranger, "530 5.7.0"),
        (Optional, ListenerTls::None, false, stranger, "554 5.7.1"),
        (Required, ListenerTls::StartTls, false, friend, "530 5.7.0"),
        (Required, ListenerTls::None, true, friend, "530 5.7.0"),
        (Required, ListenerTls::None, true, stranger, "530 5.7.0"),
    ] {
        let mut setting = Setting::submission();
        setting.listener.auth = auth;
        setting.listener.tls = tls;
        setting.listener.allow_plaintext_auth = plaintext;
        setting.peer = peer;
        let mut talk = setting.greeted().await;
        talk.ask("MAIL FROM:<a@example.com>", reply).await;
        if !reply.starts_with('2') {
            let encrypt_first = auth == Required && tls == ListenerTls::StartTls && !plaintext;
            let refusal = if encrypt_first { "530 5.7.0" } else { "503 5.5.1" };
            talk.ask("RCPT TO:<b@example.net>", refusal).await;
            talk.ask("DATA", refusal).await;
            talk.ask("BDAT 0 LAST", refusal).await;
        }
    }
}

#[tokio::test]
async fn where_tls_must_come_first_nothing_else_is_heard() {
    let setting = Setting::submission();
    let mut talk = setting.greeted().await;
    for line in ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA", "RSET", "VRFY b", "HELP"] {
        talk.ask(line, "530 5.7.0").await;
    }
    talk.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "538 5.7.11").await;
    talk.ask("NOOP", "250").await;
    // The octets of a refused chunk are no commands.
    talk.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n").await;
    talk.expect("530 5.7.0").await;
    talk.expect("250 2.0.0").await;
    let mut talk = talk.starttls().await;
    talk.ask("EHLO client.example", "250").await;
    talk.ask("RSET", "250").await;
    talk.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    let mut talk = setting.greeted().await;
    talk.ask("HELO client.example", "530 5.7.0").await;
    talk.ask("QUIT", "221").await;
}

#[tokio::test]
async fn a_client_a_proxy_cannot_name_is_in_no_trusted_network() {
    let mut setting = Setting::trusted();
    setting.nameless = true;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "554 5.7.1").await;
}

#[tokio::test]
async fn starttls_forgets_everything_said_before() {
    let mut setting = Setting::submission();
    setting.listener.auth = ListenerAuth::Optional;
    setting.listener.allow_plaintext_auth = true;
    setting.peer = "192.0.2.9:1";
    let mut talk = setting.greeted().await;
    talk.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0").await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    let mut talk = talk.starttls().await;
    // Name, AUTH and transaction are gone.
    talk.ask("MAIL FROM:<a@example.com>", "503 5.5.1").await;
    talk.ask("EHLO client.example", "250").await;
    talk.ask("DATA", "503 5.5.1").await;
    talk.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0").await;
    talk.ask("STARTTLS", "503 5.5.1").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert!(setting.queue.last().1.contains(" with ESMTPSA id "));
}

#[tokio::test]
async fn input_in_clear_after_starttls_ends_the_session_unheard() {
    let setting = Setting::submission();
    for injected in ["RSET\r\n", "x", "EHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n"] {
        let mut talk = setting.greeted().await;
        talk.send(format!("STARTTLS\r\n{injected}")).await;
        talk.expect("554 5.5.0").await;
        talk.closed().await;
    }
    let mut talk = setting.greeted().await;
    talk.ask("STARTTLS x", "501 5.5.4").await;
    talk.ask("STARTTLS", "220").await;
    // Injected a moment later it is a broken handshake.
    talk.send("RSET\r\n").await;
    while talk.fill().await > 0 {}
}

#[tokio::test]
async fn starttls_is_refused_where_it_cannot_be() {
    let mut talk = Setting::trusted().greeted().await;
    talk.ask("STARTTLS", "502 5.5.1").await;
    let mut setting = Setting::submission();
    setting.tls = None;
    let mut talk = setting.greeted().await;
    talk.ask("STARTTLS", "454 4.7.0").await;
    talk.ask("NOOP", "250").await;
}

#[tokio::test]
async fn a_pipelined_group_is_answered_in_one_write_and_nothing_is_lost() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.send(
        "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<bad>\r\n\
         RCPT TO:<c@example.net>\r\nDATA\r\n",
    )
    .await;
    talk.fill().await;
    assert_eq!(talk.pending_lines(), 5);
    for reply in ["250 2.1.0", "250 2.1.5", "554 5.1.2", "250 2.1.5", "354"] {
        talk.expect(reply).await;
    }
    // The next transaction rides behind the dot.
    talk.send("Subject: x\r\n\r\ny\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<d@example.net>\r\nDATA\r\n").await;
    for reply in ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"] {
        talk.expect(reply).await;
    }
    let (message, _) = setting.queue.last();
    assert_eq!(message.envelope.recipients.len(), 2);
    talk.send("z\r\n.\r\nQUIT\r\n").await;
    talk.expect("250 2.0.0").await;
    talk.expect("221").await;
    let domains: Vec<_> = setting.prefetched.lock().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(domains, ["example.net"; 3]);
}

#[tokio::test]
async fn a_client_that_does_not_wait_where_it_must_is_cut_off() {
    let setting = Setting::trusted();
    for (greet, burst) in [
        (false, "EHLO client.example\r\nMAIL FROM:<a@example.com>\r\n"),
        (false, "HELO client.example\r\nMAIL FROM:<a@example.com>\r\n"),
        (false, "NOOP\r\nNOOP\r\n"),
        (false, "GET / HTTP/1.1\r\nHost: relay.example.org\r\n\r\n"),
        (true, "EHLO client.example\r\nNOOP\r\n"),
        (true, "DATA\r\nx\r\n.\r\n"),
    ] {
        let mut talk = setting.connect();
        talk.expect("220").await;
        if greet {
            talk.ask("EHLO client.example", "250").await;
            talk.ask("MAIL FROM:<a@example.com>", "250").await;
            talk.ask("RCPT TO:<b@example.net>", "250").await;
        }
        talk.send(burst).await;
        talk.expect("554 5.5.0").await;
        talk.closed().await;
    }
    assert_eq!(setting.queue.count(), 0);
    // HELO: no PIPELINING was offered.
    let mut talk = setting.connect();
    talk.expect("220").await;
    talk.ask("HELO client.example", "250 relay.example.org\r\n").await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.send("RCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\n").await;
    talk.expect("554 5.5.0").await;
    talk.closed().await;
}

#[tokio::test]
async fn an_io_that_failed_is_never_touched_again() {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    #[derive(Default)]
    struct Fragile {
        reads_first: bool,
        failed: bool,
    }
    impl Fragile {
        fn fail<T>(&mut self) -> Poll<io::Result<T>> {
            assert!(!self.failed, "touched after its error");
            self.failed = true;
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    impl AsyncRead for Fragile {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.fail()
        }
    }
    impl AsyncWrite for Fragile {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
            if self.reads_first && !self.failed { Poll::Ready(Ok(b.len())) } else { self.fail() }
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.reads_first && !self.failed { Poll::Ready(Ok(())) } else { self.fail() }
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.fail()
        }
    }
    let setting = Setting::trusted();
    for reads_first in [false, true] {
        let fragile = Fragile { reads_first, failed: false };
        setting.run(Box::new(fragile)).await.expect("no panic");
    }
}
