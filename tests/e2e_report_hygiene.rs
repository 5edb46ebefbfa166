//! Report targets that refuse, the lists that show it, resending, and the daily digest.

mod support;

use serde_json::Value;

use stsrelay::net::{Clock, SystemClock};

use support::client::message;
use support::world::World;

const REPORTING: &str = r#"
[tlsrpt]
from = "tlsrpt@home.test"
retry = ["1s"]
suppress_after = 2
"#;

fn today() -> String {
    SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// Three domains that name one target, `gone@rua.test` at host 1, which does not exist.
async fn world(extra: &str) -> World {
    let mut world = World::prepare(2, &[], &format!("{REPORTING}{extra}")).await;
    for name in ["home.test", "one.test", "two.test", "three.test"] {
        world.good_domain(name, 0);
    }
    world.good_domain("rua.test", 1);
    world.farm.hosts[1]
        .adjust(|mx| mx.replies.push(("RCPT TO:<gone@".into(), "550 5.1.1 nobody here".into())));
    world.daemon.start().await;
    for (nth, name) in ["one.test", "two.test", "three.test"].iter().enumerate() {
        world.dns.txt(&format!("_smtp._tls.{name}"), "v=TLSRPTv1; rua=mailto:gone@rua.test");
        world.submit("a@home.test", &[&format!("b@{name}")], &message("words")).await;
        world.arrivals(0, nth + 1).await;
    }
    world.drained().await;
    world
}

async fn send(world: &World, domain: &str, more: &[&str]) -> Vec<Value> {
    let today = today();
    let arguments = [&["report", "send", "--day", &today, "--domain", domain][..], more].concat();
    world.daemon.json(&arguments).await
}

fn rcpts(world: &World) -> usize {
    let log = world.farm.hosts[1].log();
    log.commands.iter().filter(|command| command.starts_with("RCPT TO:<gone@rua.test>")).count()
}

#[tokio::test]
async fn a_target_that_refuses_its_mail_is_left_alone_until_it_is_forgiven() {
    let world = world("").await;
    for domain in ["one.test", "two.test"] {
        assert_eq!(send(&world, domain, &[]).await[0]["outcome"], "queued");
        world.drained().await;
    }
    assert_eq!(rcpts(&world), 2);
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 3, "nobody is told of it by mail");
    let listed = world.daemon.json(&["report", "list", "--failed"]).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let mail = &listed[0]["targets"][0]["mail"];
    assert_eq!(mail["delivered"], false, "{listed:?}");
    assert!(mail["text"].as_str().is_some_and(|text| text.contains("nobody here")), "{mail}");
    let targets = world.daemon.json(&["report", "targets"]).await;
    assert_eq!((&targets[0]["target"], &targets[0]["failures"]), (&"mailto:gone@rua.test".into(), &2.into()));
    assert!(targets[0]["suppressed_until"].is_string(), "{targets:?}");

    let withheld = send(&world, "three.test", &[]).await.remove(0);
    assert_eq!(withheld["outcome"], "withheld", "{withheld}");
    assert!(withheld["text"].as_str().is_some_and(|text| text.contains("nobody here")), "{withheld}");
    assert_eq!(rcpts(&world), 2);
    let table = world.daemon.ask(&["report", "list"]).await;
    assert!(table.contains("withheld") && table.contains("not delivered"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");

    let said = world.daemon.ask(&["report", "digest", "--day", &today()]).await;
    assert!(said.contains("2 reports not delivered") && said.contains("Report targets left alone"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");

    world.daemon.ask(&["report", "forgive", "mailto:gone@rua.test"]).await;
    assert_eq!(world.daemon.cli(&["report", "forgive", "mailto:gone@rua.test"]).await.status.code(), Some(1));
    world.farm.hosts[1].adjust(|mx| mx.replies.clear());
    assert_eq!(send(&world, "three.test", &["--again"]).await[0]["outcome"], "queued");
    world.arrivals(1, 1).await;
    world.drained().await;
    let entry = world.daemon.json(&["report", "list", "--domain", "three.test"]).await.remove(0);
    assert_eq!(entry["targets"][0]["mail"]["delivered"], true, "{entry}");
    assert!(world.daemon.json(&["report", "targets"]).await.is_empty());
    assert!(
        world.daemon.json(&["report", "preview", "rua.test"]).await.is_empty(),
        "report mail makes no report"
    );
}

#[tokio::test]
async fn a_report_is_shown_as_sent_and_sent_again_under_its_id() {
    let world = world("").await;
    world.farm.hosts[1].adjust(|mx| mx.replies.clear());
    send(&world, "one.test", &[]).await;
    world.arrivals(1, 1).await;
    let shown = world.daemon.json(&["report", "show", "one.test"]).await.remove(0);
    let id = shown["report_id"].as_str().expect("an id").to_owned();
    assert_eq!(shown["report"]["report-id"], id.as_str());
    let raw = world.daemon.ask(&["report", "show", &format!("<{id}>"), "--raw"]).await;
    assert_eq!(serde_json::from_str::<Value>(&raw).expect("JSON"), shown["report"]);
    let other = id.replacen('.', ".0", 1);
    assert_eq!(world.daemon.cli(&["report", "show", &other]).await.status.code(), Some(1));
    assert_eq!(world.daemon.cli(&["report", "resend", &other]).await.status.code(), Some(1));
    let lines = world.daemon.json(&["report", "resend", &id]).await;
    assert_eq!(lines[0]["outcome"], "queued", "{lines:?}");
    let arrivals = world.arrivals(1, 2).await;
    assert!(arrivals[1].text().contains("one.test"), "{}", arrivals[1].text());
    world.drained().await;
    let listed = world.daemon.json(&["report", "list"]).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["targets"][0]["mail"]["delivered"], true);
}

#[tokio::test]
async fn the_digest_of_yesterday_is_mailed_once_over_restarts() {
    let mut world = world("[digest]\nto = [\"ops@home.test\"]\nafter = \"0s\"\n").await;
    let digests = |world: &World| {
        let arrivals = world.farm.hosts[0].accepted();
        arrivals
            .iter()
            .filter(|arrival| arrival.rcpts.iter().any(|rcpt| rcpt.contains("ops@home.test")))
            .count()
    };
    support::eventually("the digest", || async { (digests(&world) == 1).then_some(()) }).await;
    world.drained().await;
    world.daemon.restart().await;
    world.submit("a@home.test", &["b@one.test"], &message("later")).await;
    world.drained().await;
    assert_eq!(digests(&world), 1);
}

#[tokio::test]
async fn two_domains_that_name_each_other_get_one_report_each_and_no_more() {
    let mut world = World::prepare(2, &[], REPORTING).await;
    for (host, [domain, other]) in
        [["one.test", "two.test"], ["two.test", "one.test"]].into_iter().enumerate()
    {
        world.good_domain(domain, host);
        world.dns.txt(&format!("_smtp._tls.{domain}"), &format!("v=TLSRPTv1; rua=mailto:tls@{other}"));
    }
    world.daemon.start().await;
    for domain in ["one.test", "two.test"] {
        world.submit("a@home.test", &[&format!("b@{domain}")], &message("words")).await;
    }
    world.drained().await;
    let sessions = async |domain: &'static str| {
        let report = world.daemon.json(&["report", "preview", domain]).await.remove(0);
        report["policies"][0]["summary"]["total-successful-session-count"].as_u64()
    };
    let before = (sessions("one.test").await, sessions("two.test").await);
    assert_eq!(before, (Some(1), Some(1)));
    for domain in ["one.test", "two.test"] {
        assert_eq!(send(&world, domain, &[]).await[0]["outcome"], "queued");
    }
    world.drained().await;
    for host in 0..2 {
        // The message, and the report about the other domain.
        assert_eq!(world.farm.hosts[host].accepted().len(), 2);
    }
    assert_eq!(
        (sessions("one.test").await, sessions("two.test").await),
        before,
        "reports count in no report"
    );
    for domain in ["one.test", "two.test"] {
        assert_eq!(send(&world, domain, &[]).await[0]["outcome"], "not-sent", "it went out already");
    }
}
