//! Limits of size, number and time, shutdown, and rubbish.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::support::{AGES, Setting};

#[tokio::test]
async fn an_overlong_command_line_gets_one_500_and_the_next_line_is_heard() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    let noop = |octets: usize| format!("NOOP {}", "x".repeat(octets - 7));
    talk.ask(&noop(4096), "250").await;
    talk.ask(&noop(4097), "500 5.5.2").await;
    talk.ask(&noop(16_384), "500 5.5.2").await;
    // In one piece, with a bare LF and a bare CR in it, and in many pieces.
    talk.send(format!("{}\nx\rx\r\r\nNOOP\r\n", noop(9000))).await;
    talk.expect("500 5.5.2").await;
    talk.expect("250").await;
    for _ in 0..2000 {
        talk.send("xxxxxxxxx\r").await;
    }
    talk.send("\nNOOP\r\n").await;
    talk.expect("500 5.5.2").await;
    talk.expect("250").await;
}

#[tokio::test]
async fn a_20_mb_command_line_is_skipped_and_a_20_mb_content_line_refused() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        talk.send(&chunk).await;
    }
    talk.send("\r\n").await;
    talk.expect("500 5.5.2").await;
    talk.begin().await;
    talk.send("Subject: x\r\n\r\n").await;
    for _ in 0..20 {
        talk.send(&chunk).await;
    }
    talk.send("\r\n.\r\n").await;
    talk.expect("550 5.6.0").await;
    // The client did nothing that could smuggle: it may go on.
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert_eq!(setting.queue.count(), 1);
}

#[tokio::test]
async fn a_large_message_goes_to_the_writer_in_bounded_pieces() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    let line = format!("{}\r\n", "y".repeat(76));
    let content = format!("Subject: x\r\n\r\n{}", line.repeat(50_000));
    talk.message(&content, "250").await;
    assert_eq!(setting.queue.last_content(), format!("{content}\r\n"));
    assert!(setting.queue.largest_write() > 0 && setting.queue.largest_write() <= 512 << 10);
}

#[tokio::test]
async fn size_is_believed_when_too_large_and_never_when_small() {
    let mut setting = Setting::trusted();
    setting.options.message_size = 1000;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com> SIZE=1001", "552 5.3.4").await;
    talk.ask("MAIL FROM:<a@example.com> SIZE=99999999999999999999", "552 5.3.4").await;
    talk.ask("MAIL FROM:<a@example.com> SIZE=1", "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.ask("DATA", "354").await;
    talk.send(format!("{}\r\n.\r\n", "x\r\n".repeat(400))).await;
    talk.expect("552 5.3.4").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert_eq!(setting.queue.count(), 1);
}

#[tokio::test]
async fn recipients_are_limited_and_the_rest_of_the_message_stands() {
    let mut setting = Setting::trusted();
    setting.options.recipients = 3;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    for n in 0..3 {
        talk.ask(&format!("RCPT TO:<b{n}@example.net>"), "250").await;
    }
    talk.ask("RCPT TO:<b4@example.net>", "452 4.5.3").await;
    talk.ask("DATA", "354").await;
    talk.send("x\r\n.\r\n").await;
    talk.expect("250").await;
    assert_eq!(setting.queue.last().0.envelope.recipients.len(), 3);
}

#[tokio::test]
async fn a_hundred_thousand_recipients_end_the_session_long_before() {
    let mut setting = Setting::trusted();
    setting.options.recipients = 100;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    for n in 0..100 {
        talk.ask(&format!("RCPT TO:<b{n}@example.net>"), "250").await;
    }
    for n in 0..1000 {
        talk.ask(&format!("RCPT TO:<c{n}@example.net>"), "452 4.5.3").await;
    }
    talk.ask("RCPT TO:<d@example.net>", "452 4.5.3").await;
    talk.expect("421 4.5.3").await;
    talk.closed().await;
}

#[tokio::test]
async fn too_many_errors_end_the_session_but_bad_addresses_do_not() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    for _ in 0..50 {
        talk.ask("RCPT TO:<a@b..c>", "501 5.1.3").await;
    }
    for _ in 0..9 {
        talk.ask("NONSENSE", "500 5.5.1").await;
    }
    talk.ask("NONSENSE", "500 5.5.1").await;
    talk.expect("421 4.7.0").await;
    talk.closed().await;
}

#[tokio::test]
async fn a_stranger_who_asks_again_and_again_is_cut_off() {
    let mut setting = Setting::trusted();
    setting.peer = "198.51.100.7:1";
    let mut talk = setting.greeted().await;
    for _ in 0..10 {
        talk.ask("MAIL FROM:<a@example.com>", "554 5.7.1").await;
    }
    talk.expect("421 4.7.0").await;
    talk.closed().await;
}

#[tokio::test]
async fn commands_that_lead_nowhere_are_limited_between_messages() {
    let mut setting = Setting::trusted();
    setting.options.junk_commands = 20;
    let mut talk = setting.greeted().await;
    // Well-behaved clients reset between messages, and keep a session open.
    for _ in 0..15 {
        for _ in 0..6 {
            talk.ask("RSET", "250").await;
            talk.ask("NOOP", "250").await;
        }
        talk.message("Subject: x\r\n\r\ny", "250").await;
    }
    talk.send("NOOP\r\n".repeat(1000)).await;
    for _ in 0..29 {
        talk.expect("250").await;
    }
    talk.expect("421 4.7.0").await;
    talk.closed().await;
    assert_eq!(setting.queue.count(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_silent_and_a_trickling_client_run_out_of_time() {
    let setting = Setting::trusted();
    let mut talk = setting.connect();
    talk.expect("220").await;
    talk.expect("421 4.4.2").await;
    talk.closed().await;

    // An octet now and then does not make a command.
    let mut talk = setting.greeted().await;
    let begun = tokio::time::Instant::now();
    for _ in 0..4 {
        talk.send("N").await;
        tokio::time::sleep(Duration::from_secs(70)).await;
    }
    talk.expect("421 4.4.2").await;
    assert_eq!(begun.elapsed(), Duration::from_secs(300));
    talk.closed().await;

    // Commands restart the clock.
    let mut talk = setting.greeted().await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        talk.ask("NOOP", "250").await;
    }
}

#[tokio::test(start_paused = true)]
async fn content_has_a_limit_between_pieces_and_one_for_all() {
    let setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.begin().await;
    talk.send("half a mess").await;
    talk.expect("421 4.4.2").await;
    talk.closed().await;

    let mut talk = setting.greeted().await;
    talk.begin().await;
    let begun = tokio::time::Instant::now();
    for _ in 0..60 {
        talk.send("x").await;
        tokio::time::sleep(Duration::from_secs(59)).await;
    }
    talk.expect("421 4.4.2").await;
    assert!(begun.elapsed() <= Duration::from_secs(3600));
    assert_eq!(setting.queue.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    let setting = Setting::trusted();
    let (mut ours, theirs) = tokio::io::duplex(64);
    let session = setting.run(Box::new(theirs));
    let _ = ours.write_all(b"EHLO client.example\r\n").await;
    tokio::time::timeout(AGES, session).await.expect("it ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_comes_is_given_up() {
    let setting = Setting::submission();
    let mut talk = setting.greeted().await;
    talk.ask("STARTTLS", "220").await;
    let begun = tokio::time::Instant::now();
    talk.closed().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_idle_sessions_and_lets_a_transfer_end() {
    let setting = Setting::trusted();
    let mut idle = setting.greeted().await;
    let mut open = setting.greeted().await;
    open.ask("MAIL FROM:<a@example.com>", "250").await;
    let mut busy = setting.greeted().await;
    busy.begin().await;
    busy.send("Subject: x\r\n\r\n").await;
    let mut stuck = setting.greeted().await;
    stuck.begin().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    setting.shutdown.cancel();
    for talk in [&mut idle, &mut open] {
        talk.expect("421 4.3.2").await;
        talk.closed().await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    busy.send("y\r\n.\r\n").await;
    busy.expect("250 2.0.0").await;
    busy.expect("421 4.3.2").await;
    busy.closed().await;
    let begun = tokio::time::Instant::now();
    stuck.expect("421 4.4.2").await;
    assert!(begun.elapsed() <= Duration::from_secs(20));
    assert_eq!(setting.queue.count(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let setting = Setting::trusted();
    for cut in ["MAIL FR", "MAIL FROM:<a@example.com>\r\n", "BDAT 10 LAST\r\nabc"] {
        let mut talk = setting.greeted().await;
        talk.send(cut).await;
        drop(talk);
    }
    let mut talk = setting.greeted().await;
    talk.begin().await;
    talk.send("Subject: x\r\n\r\ny\r\n.\r").await;
    talk.io.shutdown().await.unwrap();
    talk.closed().await;
    assert_eq!(setting.queue.count(), 0);
}

/// Pieces of talk that are likely to hurt.
fn rubbish() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"EHLO x\r\n".to_vec()),
        Just(b"MAIL FROM:<a@example.com> BODY=8BITMIME\r\n".to_vec()),
        Just(b"RCPT TO:<b@example.net>\r\n".to_vec()),
        Just(b"DATA\r\n".to_vec()),
        Just(b"BDAT 7\r\n".to_vec()),
        Just(b"BDAT 3 LAST\r\n".to_vec()),
        Just(b"AUTH PLAIN\r\n".to_vec()),
        Just(b"STARTTLS\r\n".to_vec()),
        Just(b"RSET\r\n".to_vec()),
        Just(b"\r\n.\r\n".to_vec()),
        Just(b"\n.\n".to_vec()),
        Just(vec![b'x'; 5000]),
    ];
    prop::collection::vec(piece, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_input_panics_or_hangs_a_session(pieces in rubbish(), tls in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut setting = if tls { Setting::submission() } else { Setting::trusted() };
            setting.listener.allow_plaintext_auth = true;
            let (mut ours, theirs) = tokio::io::duplex(1 << 20);
            let session = setting.run(Box::new(theirs));
            for piece in &pieces {
                let _ = ours.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let ended = tokio::time::timeout(AGES, session).await;
            ended.expect("it ends by its time limits").expect("no panic");
        });
    }
}
