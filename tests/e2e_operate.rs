//! The operator's side: queue and policy verbs, reload, stopping, and starts that are refused.

mod support;

use std::fs;
use std::process::Output;

use support::client::{Client, message, queue_id};
use support::daemon::{HOSTNAME, free_addresses};
use support::mx::Behaviour;
use support::world::World;

/// One line on standard error with all these words, and this exit code.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
}

#[tokio::test]
async fn items_can_be_held_released_and_deleted_by_id_sender_domain_or_all() {
    let world = World::start(2, &[], "").await;
    for (index, domain) in ["one.test", "two.test"].iter().enumerate() {
        world.good_domain(domain, index);
        world.farm.hosts[index].adjust(|mx| mx.dot = "451 4.3.0 later".into());
    }
    let daemon = &world.daemon;
    let first = world.submit("a@home.test", &["b@one.test", "c@two.test"], &message("first")).await;
    let second = world.submit("z@home.test", &["b@one.test"], &message("second")).await;
    let null = world.submit("", &["b@two.test"], &message("null")).await;
    for id in [&first, &second, &null] {
        world.deferred(id).await;
    }
    let ids = |items: Vec<serde_json::Value>| -> Vec<String> {
        items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let list = |filter: &'static [&'static str]| async move {
        ids(daemon.json(&[&["queue", "list"], filter].concat()).await)
    };
    let (first0, first1) = (format!("{first}.0"), format!("{first}.1"));
    let (second0, null0) = (format!("{second}.0"), format!("{null}.0"));
    assert_eq!(list(&[]).await, [&*first0, &first1, &second0, &null0]);
    assert_eq!(list(&["--sender", "z@home.test"]).await, [&*second0]);
    assert_eq!(list(&["--sender", ""]).await, [&*null0]);
    assert_eq!(list(&["--recipient-domain", "two.test"]).await, [&*first1, &null0]);
    let stats = daemon.json(&["queue", "stats"]).await.remove(0);
    assert_eq!(
        (&stats["deferred"], &stats["held"], &stats["active"]),
        (&4.into(), &0.into(), &0.into()),
        "{stats}"
    );
    assert_eq!(stats["destinations"].as_array().map(Vec::len), Some(2), "{stats}");

    daemon.ask(&["queue", "hold", "--recipient-domain", "two.test"]).await;
    for host in &world.farm.hosts {
        host.adjust(|mx| mx.dot = "250 2.0.0 taken".into());
    }
    daemon.ask(&["queue", "retry", "--all"]).await;
    world.arrivals(0, 2).await;
    support::eventually("only the held ones to be left", || async {
        let items = daemon.json(&["queue", "list"]).await;
        (items.len() == 2 && items.iter().all(|item| item["state"] == "held")).then_some(())
    })
    .await;
    assert!(world.farm.hosts[1].accepted().is_empty());
    daemon.ask(&["queue", "delete", &null0]).await;
    daemon.ask(&["queue", "release", &first1]).await;
    world.arrivals(1, 1).await;
    world.drained().await;
    assert!(world.farm.hosts[1].accepted()[0].rcpts[0].contains("c@two.test"));

    let gone = daemon.cli(&["queue", "show", &first]).await;
    refused(&gone, 1, &[&first, "not in the queue"]);
    assert_eq!(daemon.cli(&["queue", "delete", &second]).await.status.code(), Some(1));
    assert_eq!(daemon.cli(&["queue", "retry"]).await.status.code(), Some(64));
    assert_eq!(daemon.cli(&["queue", "show", "nonsense"]).await.status.code(), Some(64));
}

#[tokio::test]
async fn a_hold_survives_a_restart() {
    let mut world = World::start(1, &[], "").await;
    world.good_domain("away.test", 0);
    world.farm.hosts[0].down();
    let id = world.submit("a@home.test", &["b@away.test"], &message("held")).await;
    world.deferred(&id).await;
    world.daemon.ask(&["queue", "hold", &id]).await;
    world.farm.hosts[0].up().await;
    world.daemon.restart().await;
    let item = world.daemon.json(&["queue", "show", &id]).await.remove(0);
    assert_eq!(item["state"], "held", "{item}");
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    world.daemon.ask(&["queue", "release", &id]).await;
    world.arrivals(0, 1).await;
    world.drained().await;
}

#[tokio::test]
async fn policies_can_be_looked_at_fetched_anew_and_forgotten() {
    let world = World::start(1, &["one.test"], "").await;
    let daemon = &world.daemon;
    world.publish("one.test", "1", "enforce", &["mx.one.test"], 86_400);
    refused(&daemon.cli(&["policy", "show", "one.test"]).await, 1, &["one.test"]);
    daemon.ask(&["policy", "refresh", "one.test"]).await;
    let shown = daemon.json(&["policy", "show", "one.test"]).await.remove(0);
    assert_eq!(
        (&shown["mode"], &shown["id"], &shown["max_age"]),
        (&"enforce".into(), &"1".into(), &86_400.into())
    );
    assert_eq!(shown["mx"][0], "mx.one.test", "{shown}");
    assert_eq!(daemon.json(&["policy", "list"]).await.len(), 1);
    world.publish("one.test", "2", "testing", &["mx.one.test"], 86_400);
    daemon.ask(&["policy", "refresh", "one.test"]).await;
    let shown = daemon.json(&["policy", "show", "one.test"]).await.remove(0);
    assert_eq!((&shown["mode"], &shown["id"]), (&"testing".into(), &"2".into()), "{shown}");
    assert!(daemon.ask(&["policy", "show", "one.test"]).await.contains("testing"));
    daemon.ask(&["policy", "forget", "one.test"]).await;
    assert!(daemon.json(&["policy", "list"]).await.is_empty());
    assert_eq!(daemon.cli(&["policy", "forget", "one.test"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_hangup_brings_in_a_new_certificate_and_a_bad_one_changes_nothing() {
    let world = World::start(1, &[], "").await;
    let old_root = world.pki.root_der();
    let works = |root| async {
        let client = Client::connect(world.daemon.submission).await;
        client.try_starttls(root, HOSTNAME).await
    };
    assert!(works(old_root.clone()).await);
    let other = support::pki::Pki::new();
    world.daemon.install_certificate(&other);
    world.daemon.signal("HUP");
    support::eventually("the new certificate", || async { works(other.root_der()).await.then_some(()) })
        .await;
    assert!(!works(old_root).await);

    fs::write(world.daemon.path("key.pem"), "this is no key").expect("writable");
    world.daemon.signal("HUP");
    support::eventually("the reload to be refused", || async {
        world.daemon.log().contains("the old one stays in force").then_some(())
    })
    .await;
    assert!(works(other.root_der()).await);
}

#[tokio::test]
async fn a_hangup_brings_in_a_new_configuration_whole_or_not_at_all() {
    let world = World::start(1, &[], "").await;
    let offers = |keyword: &'static str| {
        let smarthost = world.daemon.smarthost;
        async move {
            let (mut client, _) = Client::dial(smarthost).await;
            let hello = client.say("EHLO client.world.test").await;
            hello.lines().any(|line| &line[4..] == keyword)
        }
    };
    assert!(offers("SIZE 50000000").await);
    world.daemon.configure_extra("[limits]\nmessage_size = \"1MB\"\n[delivery]\nlifetime = \"soon\"\n");
    world.daemon.signal("HUP");
    support::eventually("the reload to be refused", || async {
        let log = world.daemon.log();
        (log.contains("delivery.lifetime") && log.contains("the old one stays in force")).then_some(())
    })
    .await;
    assert!(offers("SIZE 50000000").await, "nothing of it is taken");
    world.daemon.configure_extra("[limits]\nmessage_size = \"1MB\"\n");
    world.daemon.signal("HUP");
    support::eventually("the new limit", || async { offers("SIZE 1000000").await.then_some(()) }).await;
}

#[tokio::test]
async fn a_termination_ends_with_code_0_and_loses_nothing() {
    let mut world = World::start(1, &[], "[delivery]\nretry = [\"1s\"]\n").await;
    world.good_domain("away.test", 0);
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..50 {
        queue_id(&client.submit("a@home.test", &["b@away.test"], &message(&number.to_string())).await);
    }
    assert_eq!(world.daemon.stop().await, Some(0));
    assert!(client.reply().await.starts_with("421"), "an idle client is told");
    assert!(!world.daemon.path("admin.sock").exists());
    let before = world.farm.hosts[0].accepted().len();
    world.daemon.start().await;
    world.drained().await;
    let arrivals = world.farm.hosts[0].accepted();
    assert_eq!(arrivals.len(), 50, "{before} before the restart");
    assert!(!world.daemon.log().contains("ERROR"), "{}", world.daemon.log());
}

#[tokio::test]
async fn a_message_under_way_to_a_slow_host_is_finished_before_the_end() {
    let mut world = World::start(1, &[], "").await;
    world.good_domain("slow.test", 0);
    world.farm.hosts[0].adjust(|mx| mx.dot_after = std::time::Duration::from_millis(1500));
    world.submit("a@home.test", &["b@slow.test"], &message("slow")).await;
    support::eventually("the content to be there", || async {
        (!world.farm.hosts[0].log().arrivals.is_empty()).then_some(())
    })
    .await;
    assert_eq!(world.daemon.stop().await, Some(0));
    world.daemon.start().await;
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1, "delivered once, and known to be");
}

#[tokio::test]
async fn a_bad_configuration_is_one_line_and_nothing_is_started() {
    let world = World::prepare(1, &[], "").await;
    let daemon = &world.daemon;
    for (extra, words) in [
        ("[delivery]\nretrys = [\"1s\"]\n", &["extra.toml", "delivery.retrys", "retry"][..]),
        ("[delivery]\nlifetime = \"soon\"\n", &["extra.toml", "delivery.lifetime"][..]),
        ("[server]\nhostname = \"not a name\"\n", &["extra.toml", "server.hostname"][..]),
        ("[dns\n", &["extra.toml"][..]),
        ("[tls]\nkey_file = \"/nonexistent/key.pem\"\n", &["tls.key_file", "/nonexistent/key.pem"][..]),
    ] {
        daemon.configure_extra(extra);
        let output = daemon.serve_refused().await;
        refused(&output, 78, words);
        refused(&daemon.cli(&["config", "check"]).await, 78, words);
        assert!(!daemon.data_dir().exists(), "{extra}");
        assert!(!daemon.path("admin.sock").exists(), "{extra}");
    }
    daemon.configure_extra("");
    let users = fs::read_to_string(daemon.path("users")).expect("readable");
    fs::write(daemon.path("users"), format!("{users}bob:plaintext\n")).expect("writable");
    refused(&daemon.serve_refused().await, 78, &["users", "3"]);
}

#[tokio::test]
async fn a_taken_port_and_an_unusable_data_directory_are_one_line_each() {
    let world = World::prepare(1, &[], "").await;
    let daemon = &world.daemon;
    let taken = std::net::TcpListener::bind(daemon.submission).expect("free");
    refused(&daemon.serve_refused().await, 78, &["submission", &daemon.submission.to_string()]);
    drop(taken);
    fs::write(daemon.data_dir(), "a file").expect("writable");
    refused(&daemon.serve_refused().await, 78, &["data_dir", &daemon.data_dir().display().to_string()]);
    assert!(!daemon.path("admin.sock").exists());
}

#[tokio::test]
async fn a_second_daemon_on_the_same_data_is_refused() {
    let world = World::start(1, &[], "").await;
    let output = world.daemon.serve_refused().await;
    refused(&output, 78, &["admin.sock"]);
    world.daemon.ask(&["queue", "stats"]).await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_exit_code_2() {
    let world = World::prepare(1, &[], "").await;
    for verb in [&["queue", "list"][..], &["policy", "list"], &["report", "list"]] {
        refused(&world.daemon.cli(verb).await, 2, &["admin.sock"]);
    }
    assert!(world.daemon.ask(&["config", "check"]).await.contains("good"));
    let shown = world.daemon.ask(&["config", "show"]).await;
    assert!(shown.contains("hostname = \"relay.world.test\""), "{shown}");
}

#[tokio::test]
async fn the_quick_start_configuration_is_good() {
    let root = env!("CARGO_MANIFEST_DIR");
    for file in ["config/quickstart.toml", "config/stsrelay.toml"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stsrelay"));
        command.current_dir(root).args(["config", "show", "--config", file]);
        let output = command.output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{file}: {said}");
    }
}

#[tokio::test]
async fn text_and_json_tell_the_same_and_text_fits_a_terminal() {
    let world = World::start(1, &[], "").await;
    world.route("away.test", 10, "mx.away.test", 0);
    world.farm.hosts[0].behave(Behaviour::clear().answering("MAIL", "451 4.7.1 try later"));
    let id = world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    world.deferred(&id).await;
    for verb in [&["queue", "list"][..], &["queue", "show", &id], &["queue", "stats"]] {
        let text = world.daemon.ask(verb).await;
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(!text.contains('\u{1b}'), "no colours off a terminal: {text}");
    }
    assert!(world.daemon.ask(&["queue", "show", &id]).await.contains("451 4.7.1 try later"));
}

#[tokio::test]
async fn a_long_listing_is_whole_and_each_item_is_in_it_once() {
    let world = World::start(1, &[], "").await;
    world.farm.hosts[0].down();
    let domains: Vec<String> = (0..450).map(|number| format!("d{number}.test")).collect();
    for domain in &domains {
        world.route(domain, 10, "mx.many.test", 0);
    }
    let addresses: Vec<String> = domains.iter().map(|domain| format!("b@{domain}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let id = world.submit("a@home.test", &addresses, &message("many")).await;
    assert_eq!(world.deferred(&id).await.len(), domains.len());
    let listed = world.daemon.json(&["queue", "list"]).await;
    let destinations: std::collections::HashSet<&str> =
        listed.iter().filter_map(|item| item["destination"].as_str()).collect();
    assert_eq!((listed.len(), destinations.len()), (domains.len(), domains.len()));
    let text = world.daemon.ask(&["queue", "list"]).await;
    assert!(text.trim_end().ends_with("450 items"), "{text}");
    world.daemon.ask(&["queue", "delete", &id]).await;
    assert!(world.daemon.json(&["queue", "list"]).await.is_empty());
}

/// The answer to a GET: its status line and all of it.
async fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("HTTP is served");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    (answer.lines().next().unwrap_or_default().to_owned(), answer)
}

#[tokio::test]
async fn metrics_and_health_are_served_to_this_host() {
    let [http] = free_addresses();
    let world = World::start(1, &["one.test"], &format!("[admin]\nhttp = \"{http}\"\n")).await;
    world.good_domain("one.test", 0);
    world.publish("one.test", "1", "enforce", &["mx.one.test"], 86_400);
    let id = world.submit("a@home.test", &["b@one.test"], &message("first")).await;
    support::eventually("the queue to be empty", || async {
        world.daemon.json(&["queue", "show", &id]).await.is_empty().then_some(())
    })
    .await;
    let ours = format!("Host: {http}\r\n");
    for path in ["/healthz", "/readyz"] {
        let (status, answer) = get(http, path, &ours).await;
        assert!(status.ends_with(" 200 OK") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
    let (status, metrics) = get(http, "/metrics", &ours).await;
    assert!(status.ends_with(" 200 OK") && metrics.contains("application/openmetrics-text"), "{metrics}");
    for line in [
        "stsrelay_messages_accepted_total{listener=\"smarthost\"} 1",
        "stsrelay_attempts_total{outcome=\"delivered\",rule=\"mta-sts enforce\"} 1",
        "stsrelay_recipients_total{outcome=\"delivered\"} 1",
        "stsrelay_tls_sessions_total{version=\"TLSv1.3\",rule=\"mta-sts enforce\",result=\"met\"} 1",
        "stsrelay_policies{mode=\"enforce\"} 1",
        "stsrelay_queue_items{state=\"active\"} 0",
        "stsrelay_store_writable 1",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} is missing:\n{metrics}");
    }
    // A page elsewhere must not read it through somebody's browser on this host.
    let (status, _) = get(http, "/metrics", "Host: evil.example\r\n").await;
    assert!(status.contains(" 421 "), "{status}");
    let (status, _) = get(http, "/nothing", &ours).await;
    assert!(status.contains(" 404 "), "{status}");
}

#[tokio::test]
async fn metrics_for_elsewhere_need_a_token() {
    let [http] = free_addresses();
    let mut world = World::start(1, &[], "").await;
    let token = world.daemon.path("token");
    fs::write(&token, "0123456789abcdef\n").expect("writable");
    let extra = format!("[admin]\nhttp = \"{http}\"\ntoken_file = \"{}\"\n", token.display());
    fs::write(world.daemon.path("stsrelay.d/http.toml"), extra).expect("writable");
    world.daemon.restart().await;
    let ours = format!("Host: {http}\r\n");
    let (status, answer) = get(http, "/readyz", &ours).await;
    assert!(status.contains(" 401 ") && answer.contains("token_file"), "{answer}");
    let wrong = format!("{ours}Authorization: Bearer 0123456789abcdeX\r\n");
    assert!(get(http, "/readyz", &wrong).await.0.contains(" 401 "));
    let right = format!("{ours}Authorization: Bearer 0123456789abcdef\r\n");
    assert!(get(http, "/readyz", &right).await.0.ends_with(" 200 OK"));

    fs::write(world.daemon.path("stsrelay.d/http.toml"), "[admin]\nhttp = \"0.0.0.0:8025\"\n")
        .expect("writable");
    refused(&world.daemon.cli(&["serve"]).await, 78, &["admin.http", "token_file"]);
    fs::write(&token, "short\n").expect("writable");
    let extra = format!("[admin]\nhttp = \"{http}\"\ntoken_file = \"{}\"\n", token.display());
    fs::write(world.daemon.path("stsrelay.d/http.toml"), extra).expect("writable");
    refused(&world.daemon.cli(&["serve"]).await, 78, &["admin.token_file", "at least 16"]);
}
