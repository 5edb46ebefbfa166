//! Mail in over real sockets: who may submit, what is refused, and what never gets through.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::RecordType;

use support::client::{Client, message, queue_id};
use support::daemon::HOSTNAME;
use support::dns::Fault;
use support::mx::Arrival;
use support::world::World;

async fn world() -> World {
    let world = World::start(1, &[], "").await;
    world.good_domain("away.test", 0);
    world
}

fn plain(name: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{name}\0{password}"))
}

/// The values of a header field.
fn fields(arrival: &Arrival, name: &str) -> Vec<String> {
    let text = arrival.text();
    let header = text.split("\r\n\r\n").next().expect("a header").to_owned();
    let prefix = format!("{}:", name.to_ascii_lowercase());
    header
        .replace("\r\n\t", " ")
        .replace("\r\n ", " ")
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with(&prefix))
        .map(|line| line[prefix.len()..].trim().to_owned())
        .collect()
}

async fn secured(world: &World) -> Client {
    let client = Client::connect(world.daemon.submission).await;
    client.starttls(world.pki.root_der(), HOSTNAME).await.0
}

#[tokio::test]
async fn a_user_submits_over_starttls_and_implicit_tls_with_plain_and_login() {
    let world = world().await;
    let mut starttls = secured(&world).await;
    assert!(starttls.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await.starts_with("235 2.7.0"));
    let mut implicit = Client::connect_tls(world.daemon.submissions, world.pki.root_der(), HOSTNAME).await;
    assert_eq!(implicit.say("AUTH LOGIN").await, "334 VXNlcm5hbWU6");
    assert_eq!(implicit.say(&STANDARD.encode("alice")).await, "334 UGFzc3dvcmQ6");
    assert!(implicit.say(&STANDARD.encode("secret")).await.starts_with("235 2.7.0"));
    for (number, client) in [&mut starttls, &mut implicit].into_iter().enumerate() {
        queue_id(&client.submit("a@home.test", &["b@away.test"], &message("mine")).await);
        let arrivals = world.arrivals(0, number + 1).await;
        let received = fields(arrivals.last().expect("it arrived"), "Received");
        assert!(received[0].contains("with ESMTPSA") && received[0].contains("TLS"), "{received:?}");
    }
}

#[tokio::test]
async fn nobody_relays_with_a_wrong_password_or_without_one() {
    let world = world().await;
    let mut client = secured(&world).await;
    for (name, password) in [("alice", "Secret"), ("bob", "secret"), ("alice", "")] {
        let reply = client.say(&format!("AUTH PLAIN {}", plain(name, password))).await;
        assert!(
            reply.starts_with("535 5.7.8") || reply.starts_with("454") || reply.starts_with("501"),
            "{reply}"
        );
    }
    let refused = client.submit("a@home.test", &["b@away.test"], &message("no")).await;
    assert!(refused.starts_with("530 5.7.0"), "{refused}");

    let mut client = Client::connect(world.daemon.submission).await;
    assert!(client.say("MAIL FROM:<a@home.test>").await.starts_with("530 5.7.0"));
    let clear = client.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await;
    assert!(clear.starts_with("538"), "no password in clear: {clear}");
    assert!(client.say("MAIL FROM:<a@home.test>").await.starts_with("530 5.7.0"));

    let mut client = Client::connect(world.daemon.stranger).await;
    let refused = client.submit("a@home.test", &["b@away.test"], &message("no")).await;
    assert!(refused.starts_with("554 5.7.1"), "{refused}");
    assert!(client.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await.starts_with("502"));
    assert!(world.daemon.json(&["queue", "list"]).await.is_empty());
}

#[tokio::test]
async fn each_listener_offers_what_it_does() {
    let world = world().await;
    let (mut clear, _) = Client::dial(world.daemon.submission).await;
    let before = clear.say("EHLO client.world.test").await;
    let (_, after) =
        Client::connect(world.daemon.submission).await.starttls(world.pki.root_der(), HOSTNAME).await;
    let (mut trusted, _) = Client::dial(world.daemon.smarthost).await;
    let smarthost = trusted.say("EHLO client.world.test").await;
    for keyword in
        ["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"]
    {
        for hello in [&before, &after, &smarthost] {
            assert!(hello.lines().any(|line| &line[4..] == keyword), "{keyword}: {hello}");
        }
    }
    let has = |hello: &str, keyword: &str| hello.lines().any(|line| line[4..].starts_with(keyword));
    assert!(has(&before, "STARTTLS") && !has(&before, "AUTH"), "{before}");
    assert!(!has(&after, "STARTTLS") && has(&after, "AUTH PLAIN LOGIN"), "{after}");
    assert!(!has(&smarthost, "STARTTLS") && !has(&smarthost, "AUTH"), "{smarthost}");
}

#[tokio::test]
async fn date_and_message_id_are_added_for_users_and_for_nobody_else() {
    let world = world().await;
    let mut user = secured(&world).await;
    user.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await;
    let bare = "From: <a@home.test>\r\nSubject: bare\r\n\r\nwords\r\n";
    let whole = "Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@home.test>\r\nSubject: whole\r\n\r\nwords\r\n";
    queue_id(&user.submit("a@home.test", &["b@away.test"], bare).await);
    queue_id(&user.submit("a@home.test", &["b@away.test"], whole).await);
    world.submit("a@home.test", &["b@away.test"], bare).await;
    let arrivals = world.arrivals(0, 3).await;
    for arrival in &arrivals {
        let (dates, ids) = (fields(arrival, "Date"), fields(arrival, "Message-ID"));
        let authenticated = fields(arrival, "Received")[0].contains("ESMTPSA");
        match (fields(arrival, "Subject")[0].as_str(), authenticated) {
            ("whole", _) => {
                assert_eq!(dates, ["Mon, 2 Nov 2026 10:00:00 +0000"]);
                assert_eq!(ids, ["<1@home.test>"]);
            }
            (_, true) => {
                assert_eq!((dates.len(), ids.len()), (1, 1));
                assert!(ids[0].ends_with("@relay.world.test>"), "{ids:?}");
            }
            (_, false) => assert_eq!((dates.len(), ids.len()), (0, 0)),
        }
    }
}

#[tokio::test]
async fn no_line_end_but_crlf_can_smuggle_a_second_message() {
    let world = world().await;
    for stray in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n\0.\r\n", "\r\r\n.\r\n"]
    {
        let mut client = Client::connect(world.daemon.smarthost).await;
        client.say("MAIL FROM:<a@home.test>").await;
        client.say("RCPT TO:<b@away.test>").await;
        assert!(client.say("DATA").await.starts_with("354"));
        let second = "MAIL FROM:<evil@home.test>\r\nRCPT TO:<c@away.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
        client.send(format!("Subject: first\r\n\r\nwords{stray}{second}").as_bytes()).await;
        let reply = client.reply().await;
        assert!(reply.starts_with("550 5.5.2"), "{stray:?}: {reply}");
        assert_eq!(client.reply().await, "", "{stray:?}: the session ends");
    }
    let mut client = Client::connect(world.daemon.smarthost).await;
    queue_id(&client.submit("a@home.test", &["b@away.test"], &message("honest")).await);
    world.drained().await;
    let arrivals = world.farm.hosts[0].accepted();
    assert_eq!(arrivals.len(), 1);
    assert!(arrivals[0].text().contains("Subject: honest"));
}

#[tokio::test]
async fn what_was_said_before_starttls_is_forgotten() {
    let world = world().await;
    let mut client = Client::connect(world.daemon.submission).await;
    // One segment: whatever answers inside TLS must not be the injected command.
    client.send(b"STARTTLS\r\nNOOP injected\r\nMAIL FROM:<evil@home.test>\r\n").await;
    let reply = client.reply().await;
    if reply.starts_with("220") {
        let mut inside = client.handshake(world.pki.root_der(), HOSTNAME).await;
        let reply = inside.say("EHLO client.world.test").await;
        assert!(reply.lines().count() > 3, "the answer is to EHLO: {reply}");
    } else {
        assert!(reply.starts_with('5'), "{reply}");
    }
    let client = Client::connect(world.daemon.submission).await;
    let mut inside = client.upgrade(world.pki.root_der(), HOSTNAME).await;
    let reply = inside.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await;
    assert!(reply.starts_with("503"), "EHLO before TLS does not count after it: {reply}");
}

#[tokio::test]
async fn chunks_and_pipelined_commands_arrive_like_any_message() {
    let world = world().await;
    let mut client = Client::connect(world.daemon.smarthost).await;
    client
        .send(
            b"MAIL FROM:<a@home.test> BODY=8BITMIME\r\nRCPT TO:<b@away.test>\r\nRCPT TO:<nobody>\r\n\
              BDAT 16\r\nSubject: chunks\nBDAT 10 LAST\r\n\r\n.a\r\n.\r\n.",
        )
        .await;
    let mut replies = Vec::new();
    for _ in 0..5 {
        replies.push(client.reply().await);
    }
    assert!(replies[0].starts_with("250") && replies[1].starts_with("250"), "{replies:?}");
    assert!(replies[2].starts_with('5') && replies[3].starts_with("250"), "{replies:?}");
    queue_id(&replies[4]);
    let arrival = world.arrivals(0, 1).await.remove(0);
    assert!(arrival.text().ends_with("Subject: chunks\r\n\r\n.a\r\n.\r\n.\r\n"), "{}", arrival.text());
    assert_eq!(arrival.rcpts.len(), 1);

    client.send(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@away.test>\r\nDATA\r\n").await;
    for code in ["250", "250", "354"] {
        assert!(client.reply().await.starts_with(code));
    }
    client.send(b"Subject: pipelined\r\n\r\n..dot\r\n.\r\nNOOP\r\nQUIT\r\n").await;
    queue_id(&client.reply().await);
    assert!(client.reply().await.starts_with("250"));
    assert!(client.reply().await.starts_with("221"));
    assert!(world.arrivals(0, 2).await[1].text().ends_with("\r\n.dot\r\n"));
}

#[tokio::test]
async fn addresses_and_parameters_go_on_to_the_letter() {
    let world = world().await;
    world.farm.hosts[0].adjust(|behaviour| behaviour.extensions.push("DSN".to_owned()));
    let mut client = Client::connect(world.daemon.smarthost).await;
    let literal = format!("<LITERAL@[{}]>", world.farm.hosts[0].ip);
    for (from, to, mail, rcpt) in [
        (
            r#"<"a\ \"b\" <c>"@home.test> SIZE=99 RET=HDRS ENVID=x+2By"#,
            r#"<"Two  Words"@AWAY.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;Two+2BWords@first.test"#,
            r#"MAIL FROM:<"a\ \"b\" <c>"@home.test>"#,
            r#"RCPT TO:<"Two  Words"@away.test>"#,
        ),
        (
            "<User+Tag@home.test>",
            "<User+Tag@away.test>",
            "MAIL FROM:<User+Tag@home.test>",
            "RCPT TO:<User+Tag@away.test>",
        ),
        (
            "<grüße@bücher.test> SMTPUTF8",
            "<ünï@away.test>",
            "MAIL FROM:<grüße@xn--bcher-kva.test>",
            "RCPT TO:<ünï@away.test>",
        ),
        ("<>", literal.as_str(), "MAIL FROM:<>", literal.as_str()),
    ] {
        let before = world.farm.hosts[0].accepted().len();
        queue_id(&client.submit(from, &[to], &message("letters")).await);
        let arrival = world.arrivals(0, before + 1).await.pop().expect("it arrived");
        assert!(arrival.mail.starts_with(mail), "{}", arrival.mail);
        assert!(arrival.rcpts[0].contains(rcpt), "{:?}", arrival.rcpts);
        for word in
            from.split(' ').skip(1).filter(|word| word.starts_with("RET=") || word.starts_with("ENVID="))
        {
            assert!(arrival.mail.contains(word), "{word}: {}", arrival.mail);
        }
        for word in to.split(' ').filter(|word| word.starts_with("NOTIFY=") || word.starts_with("ORCPT=")) {
            assert!(arrival.rcpts[0].contains(word), "{word}: {:?}", arrival.rcpts);
        }
        assert_eq!(arrival.mail.contains(" SMTPUTF8"), from.contains(" SMTPUTF8"), "{}", arrival.mail);
    }
}

#[tokio::test]
async fn chunks_with_stray_line_ends_reach_a_host_without_chunking_as_one_message() {
    let world = world().await;
    // By BDAT, where stray line ends are mended on every listener.
    let mut client = Client::connect(world.daemon.smarthost).await;
    client.say("MAIL FROM:<a@home.test>").await;
    client.say("RCPT TO:<b@away.test>").await;
    let content = "Subject: one\n\nwords\n.\nMAIL FROM:<evil@home.test>\r\n.\r\nDATA\r.\r";
    client.send(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes()).await;
    queue_id(&client.reply().await);
    world.drained().await;
    let arrivals = world.farm.hosts[0].accepted();
    assert_eq!(arrivals.len(), 1);
    let text = arrivals[0].text();
    let wanted = "Subject: one\r\n\r\nwords\r\n.\r\nMAIL FROM:<evil@home.test>\r\n.\r\nDATA\r\n.\r\n";
    assert!(text.ends_with(wanted), "{text}");
    assert!(!arrivals[0].chunked, "the host knows DATA alone");
}

#[tokio::test]
async fn a_name_server_that_says_nothing_delays_no_reply() {
    let world = world().await;
    world.dns.fault("away.test", RecordType::MX, Some(Fault::Silence));
    let begun = std::time::Instant::now();
    let mut client = Client::connect(world.daemon.smarthost).await;
    queue_id(&client.submit("a@home.test", &["b@away.test"], &message("prompt")).await);
    // RFC 6409 §5.3 gives two minutes; nothing is waited for here.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_session_goes_on() {
    let world = World::start(1, &[], "[limits]\nmessage_size = \"100KB\"\n").await;
    world.good_domain("away.test", 0);
    let mut client = Client::connect(world.daemon.smarthost).await;
    assert!(client.say("MAIL FROM:<a@home.test> SIZE=100001").await.starts_with("552 5.3.4"));
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(10_000));
    let reply = client.submit("a@home.test", &["b@away.test"], &large).await;
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    client.say("MAIL FROM:<a@home.test>").await;
    client.say("RCPT TO:<b@away.test>").await;
    client.send(format!("BDAT {} LAST\r\n{large}", large.len()).as_bytes()).await;
    assert!(client.reply().await.starts_with("552 5.3.4"));
    queue_id(&client.submit("a@home.test", &["b@away.test"], &message("small")).await);
    world.drained().await;
    assert_eq!(world.farm.hosts[0].accepted().len(), 1);
}

#[tokio::test]
async fn nonsense_gets_the_replies_of_the_rfc_and_the_session_goes_on() {
    let world = world().await;
    let mut client = Client::connect(world.daemon.smarthost).await;
    let long = format!("NOOP {}", "x".repeat(9_000));
    for (line, code) in [
        ("XYZZY", "500"),
        ("DATA", "503"),
        ("RCPT TO:<b@away.test>", "503"),
        ("MAIL FROM:a@home.test>", "501"),
        ("MAIL FROM:<a@home.test> NONSENSE=1", "555"),
        ("EXPN list", "502"),
        ("VRFY b", "252"),
        (long.as_str(), "500"),
        ("HELP", "214"),
    ] {
        let reply = client.say(line).await;
        assert!(reply.starts_with(code), "{}: {reply}", &line[..line.len().min(40)]);
    }
    queue_id(&client.submit("a@home.test", &["b@away.test"], &message("still here")).await);
    client.send(&[0xff, 0x00, 0xfe, b'\r', b'\n']).await;
    assert!(client.reply().await.starts_with("50"));
    world.arrivals(0, 1).await;
}

#[tokio::test]
async fn a_message_that_has_been_around_too_often_is_refused() {
    let world = world().await;
    let hops = "Received: from a by b; Mon, 2 Nov 2026 10:00:00 +0000\r\n".repeat(101);
    let mut client = Client::connect(world.daemon.smarthost).await;
    let reply = client.submit("a@home.test", &["b@away.test"], &format!("{hops}{}", message("loop"))).await;
    assert!(reply.starts_with("554 5.4.6"), "{reply}");
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_nothing_behind() {
    let world = world().await;
    let spool = world.daemon.data_dir().join("queue/spool");
    let left = || std::fs::read_dir(&spool).map_or(0, Iterator::count);
    for size in [10, 300_000] {
        let mut client = Client::connect(world.daemon.smarthost).await;
        client.say("MAIL FROM:<a@home.test>").await;
        client.say("RCPT TO:<b@away.test>").await;
        assert!(client.say("DATA").await.starts_with("354"));
        client.send(format!("Subject: half\r\n\r\n{}", "0123456\r\n".repeat(size)).as_bytes()).await;
        if size > 10 {
            support::eventually("the content to be spooled", || async { (left() == 1).then_some(()) }).await;
        }
        drop(client);
        support::eventually("it to be thrown away", || async { (left() == 0).then_some(()) }).await;
    }
    assert!(world.daemon.json(&["queue", "list"]).await.is_empty());
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}
