//! A conversation with hosts that are slow, each within the time it is given.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, DuplexStream, duplex};
use tokio::time::sleep;

use super::content::BLOCK_BYTES;
use super::*;
use crate::mail::{BodyType, Mailbox, ReversePath};
use crate::net::tls::ClientOptions;
use crate::smtp::client::TransactionRecipient;
use crate::tlspolicy::Rule;

const MINUTE: Duration = Duration::from_secs(60);
/// What lies between us and a host that reads nothing ahead.
const NARROW: usize = 1024;
const WIDE: usize = 64 * 1024;

fn plan() -> TlsPlan {
    let name = Domain::parse("mx.example.org").unwrap();
    TlsPlan {
        require: Requirement::Opportunistic,
        sni: name.clone(),
        name,
        mx_status: DnssecStatus::Insecure,
        report_on: Vec::new(),
        rule: Rule::Opportunistic,
        local_text: None,
    }
}

fn transaction(recipients: usize, size: u64) -> Transaction {
    let recipient = |n| TransactionRecipient {
        path: Mailbox::parse(&format!("u{n}@example.org")).unwrap(),
        notify: None,
        orcpt: None,
    };
    Transaction {
        reverse_path: ReversePath::parse("<a@example.net>").unwrap(),
        recipients: (0..recipients).map(recipient).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        require_tls: false,
        size,
    }
}

/// A conversation with a host that is behind the other end, and the host's lines so far.
async fn open<F>(
    window: usize,
    hostname: Option<&str>,
    host: impl FnOnce(BufReader<DuplexStream>) -> F,
) -> Conversation
where
    F: Future<Output = ()> + Send + 'static,
{
    let (near, far) = duplex(window);
    tokio::spawn(host(BufReader::new(far)));
    let connection = Connection {
        stream: Box::new(near),
        local: None,
        remote: "192.0.2.1:25".parse().unwrap(),
        hostname: hostname.map(|name| Domain::parse(name).unwrap()),
    };
    let tls = ClientTls::new(&ClientOptions::default()).unwrap();
    let ours = Domain::parse("relay.example.net").unwrap();
    let manner = Manner { tls: TlsUse::IfOffered, credentials: None, ehlo_name: &ours };
    let opened = Conversation::open(connection, tls, &plan(), &manner, Timeouts::default()).await;
    assert!(opened.1.is_ok());
    opened.0
}

/// Greets, and answers a line at a time: `answer` gives the time it takes and the words.
async fn serve(
    mut stream: BufReader<DuplexStream>,
    extensions: &str,
    answer: impl Fn(&str) -> Option<(Duration, &'static str)>,
) {
    let _ = stream.get_mut().write_all(b"220 mx.example.org\r\n").await;
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line).await {
        if line.starts_with("EHLO") {
            let reply = format!("250-mx.example.org\r\n{extensions}250 OK\r\n");
            let _ = stream.get_mut().write_all(reply.as_bytes()).await;
        } else if let Some((after, reply)) = answer(&line) {
            sleep(after).await;
            let _ = stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await;
        } else {
            // An octet a minute.
            loop {
                sleep(MINUTE).await;
                if stream.read_u8().await.is_err() {
                    return;
                }
            }
        }
        line.clear();
    }
}

fn text(conversation: &Conversation) -> String {
    match conversation.end() {
        SessionEnd::Lost { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_its_full_time_for_each_of_many_recipients_is_left() {
    for extensions in ["", "250-PIPELINING\r\n"] {
        let host = |stream| serve(stream, extensions, |_| Some((4 * MINUTE, "250 ok")));
        let mut conversation = open(WIDE, None, host).await;
        let begun = Instant::now();
        let body = Body::Memory(bytes::Bytes::from_static(b"a\r\n"));
        let end = conversation.carry(transaction(100, 3), &body).await;
        assert!(matches!(end, TransactionEnd::Broken { uncertain: false, .. }), "{end:?}");
        assert_eq!(begun.elapsed().as_secs(), Timeouts::default().envelope().as_secs());
        assert!(
            text(&conversation).contains("no end of the envelope within 1020 s"),
            "{}",
            text(&conversation)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_slow_and_in_time_gets_its_mail() {
    let host = |stream| {
        serve(stream, "250-CHUNKING\r\n", |line| match line {
            _ if line.starts_with("BDAT") => Some((9 * MINUTE, "250 ok")),
            _ => Some((4 * MINUTE, "250 ok")),
        })
    };
    let mut conversation = open(WIDE, None, host).await;
    conversation.use_chunking(true);
    let body = Body::Memory(bytes::Bytes::from_static(b""));
    let end = conversation.carry(transaction(2, 0), &body).await;
    assert!(
        matches!(&end, TransactionEnd::Answered(replies) if replies.iter().all(|r| r.is_positive())),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_reads_an_octet_a_minute_is_left_in_minutes_and_not_in_hours() {
    for (extensions, chunking) in [("", false), ("250-CHUNKING\r\n", true)] {
        let host = |stream| {
            serve(stream, extensions, |line| match line {
                "DATA\r\n" => Some((Duration::ZERO, "354 go")),
                _ if line.starts_with("MAIL") || line.starts_with("RCPT") => Some((Duration::ZERO, "250 ok")),
                _ => None,
            })
        };
        let mut conversation = open(NARROW, None, host).await;
        conversation.use_chunking(chunking);
        let content = b"0123456789abcdef\r\n".repeat(40_000);
        let body = Body::Memory(content.into());
        let begun = Instant::now();
        let end = conversation.carry(transaction(1, body.len()), &body).await;
        assert!(matches!(end, TransactionEnd::Broken { uncertain: false, .. }), "{end:?}");
        assert!(begun.elapsed() <= 5 * MINUTE, "{:?}", begun.elapsed());
        assert!(text(&conversation).contains("while sending message content"), "{}", text(&conversation));
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_counts_over_all_content_however_lively_each_block_is() {
    let timeouts = Timeouts::default();
    assert_eq!(timeouts.content(0), Some(timeouts.body));
    assert_eq!(timeouts.content(8 * 1024 * 60), Some(timeouts.body + MINUTE));
    assert_eq!(Timeouts { octets_per_second: 0, ..timeouts.clone() }.content(1), None);
    // 64 KiB within each three minutes: no block is late.
    let (near, mut far) = duplex(64);
    tokio::spawn(async move {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            sleep(2 * MINUTE).await;
            if far.read_exact(&mut block).await.is_err() {
                return;
            }
        }
    });
    let body = Body::Memory(vec![b'x'; 20 * BLOCK_BYTES].into());
    let mut stream: Box<dyn Stream> = Box::new(near);
    let begun = Instant::now();
    let sent = send_body(&mut stream, &body, timeouts.body, &timeouts).await;
    assert_eq!(begun.elapsed().as_secs(), 340);
    assert!(sent.unwrap_err().contains("content not taken within 340 s"));
}

#[tokio::test]
async fn the_name_of_the_source_address_is_said_in_ehlo() {
    for (hostname, said) in [(None, "relay.example.net"), (Some("out2.example.net"), "out2.example.net")] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let host = |mut stream: BufReader<DuplexStream>| async move {
            let _ = stream.get_mut().write_all(b"220 mx.example.org\r\n").await;
            let mut line = String::new();
            let _ = stream.read_line(&mut line).await;
            let _ = tell.send(line);
            let _ = stream.get_mut().write_all(b"250 mx.example.org\r\n").await;
        };
        let _conversation = open(WIDE, hostname, host).await;
        assert_eq!(told.recv().await.unwrap(), format!("EHLO {said}\r\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lively_connection_gets_a_message_in_one_flight_and_no_other() {
    for (pause, closes, flies) in [(0, false, true), (2000, false, false), (0, true, false)] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let host = move |mut stream: BufReader<DuplexStream>| async move {
            let _ = stream.get_mut().write_all(b"220 mx.example.org\r\n").await;
            let (mut line, mut mails) = (String::new(), 0);
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let verb = line.get(..4).unwrap_or_default().to_owned();
                if verb == "BDAT" {
                    let mut content = [0; 5];
                    let _ = stream.read_exact(&mut content).await;
                } else if verb == "MAIL" {
                    mails += 1;
                }
                // What is in the buffer came in the same write.
                let _ = tell.send((mails, verb.clone(), !stream.buffer().is_empty()));
                let reply = match verb.as_str() {
                    "EHLO" => "250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
                    _ => "250 ok\r\n",
                };
                let _ = stream.get_mut().write_all(reply.as_bytes()).await;
                if verb == "BDAT" && closes {
                    return;
                }
                line.clear();
            }
        };
        let mut conversation = open(WIDE, None, host).await;
        conversation.use_chunking(true);
        let body = Body::Memory(bytes::Bytes::from_static(b"abc\r\n"));
        let first = conversation.carry(transaction(1, 5), &body).await;
        assert!(matches!(&first, TransactionEnd::Answered(replies) if replies[0].is_positive()), "{first:?}");
        sleep(Duration::from_millis(pause)).await;
        let second = conversation.carry(transaction(1, 5), &body).await;
        let mut seen = Vec::new();
        while let Ok(one) = told.try_recv() {
            seen.push(one);
        }
        let rcpt_with_content =
            seen.iter().filter(|(_, verb, more)| verb == "RCPT" && *more).map(|one| one.0);
        assert_eq!(rcpt_with_content.collect::<Vec<_>>(), if flies { vec![2] } else { vec![] });
        if closes {
            // Seen before anything was sent: another connection can have it without a doubt.
            assert!(matches!(second, TransactionEnd::Broken { uncertain: false, .. }), "{second:?}");
        } else {
            assert!(matches!(&second, TransactionEnd::Answered(all) if all[0].is_positive()), "{second:?}");
        }
    }
}
