//! The day's TLS report as its receivers get it: by mail and by POST, and what is counted.

mod support;

use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use stsrelay::net::{Clock, SystemClock};

use support::client::message;
use support::pki::Kind;
use support::reader::Entity;
use support::world::World;

const DAY: u32 = 86_400;

const REPORTING: &str = r#"
[tlsrpt]
organization_name = "World Relay"
contact_info = "postmaster@relay.test"
from = "tlsrpt@relay.test"
retry = ["1s"]
"#;

fn today() -> String {
    SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn gunzip(bytes: &[u8]) -> Value {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

fn https_rua(world: &World) -> String {
    format!("https://reports.world.test:{}/v1/tlsrpt", world.web.address.port())
}

/// `seen.test` enforces; its better host (0) is broken, its worse one (1) is good. Three messages
/// have gone there.
async fn traffic(world: &World) {
    world.route("seen.test", 10, "mx1.seen.test", 0);
    world.route("seen.test", 20, "mx2.seen.test", 1);
    world.farm.hosts[0].behave(world.secured(&["mx1.seen.test"], Kind::Expired));
    world.farm.hosts[1].behave(world.secured(&["mx2.seen.test"], Kind::Good));
    world.publish("seen.test", "1", "enforce", &["*.seen.test"], DAY);
    for number in 1..=3 {
        world.submit("a@home.test", &["b@seen.test"], &message(&number.to_string())).await;
        world.arrivals(1, number).await;
    }
    world.drained().await;
}

async fn send(world: &World) -> Vec<Value> {
    world.daemon.json(&["report", "send", "--day", &today()]).await
}

fn outcome<'a>(lines: &'a [Value], rua: &str) -> &'a str {
    let line = lines.iter().find(|line| line["rua"].as_str().is_some_and(|found| found.starts_with(rua)));
    line.and_then(|line| line["outcome"].as_str()).unwrap_or_else(|| panic!("nothing of {rua}: {lines:?}"))
}

#[tokio::test]
async fn mail_and_https_targets_get_the_same_report_and_its_counts_are_the_sessions_the_hosts_saw() {
    let mut world = World::prepare(3, &["seen.test", "rua.test"], "").await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key can be made");
    fs::write(world.daemon.path("dkim.pem"), key.serialize_pem()).expect("writable");
    let rsa = world.daemon.path("rsa.pem");
    let out = rsa.display().to_string();
    world.daemon.ask(&["report", "keygen", "--domain", "relay.test", "--out", &out]).await;
    let dkim = format!(
        "dkim_domain = \"relay.test\"\ndkim_selector = \"tls1\"\ndkim_key_file = \"{}\"\n\
         dkim_second_selector = \"tls2\"\ndkim_second_key_file = \"{out}\"\n",
        world.daemon.path("dkim.pem").display()
    );
    world.daemon.configure_extra(&format!("{REPORTING}{dkim}"));
    world.daemon.start().await;
    // The target's own host has a broken certificate and an enforced policy that does not list it.
    world.route("rua.test", 10, "mx.rua.test", 2);
    world.farm.hosts[2].behave(world.secured(&["mx.rua.test"], Kind::SelfSigned));
    world.publish("rua.test", "1", "enforce", &["other.rua.test"], DAY);
    let record = format!("v=TLSRPTv1; rua=mailto:reports@rua.test,{}", https_rua(&world));
    world.dns.txt("_smtp._tls.seen.test", &record);
    traffic(&world).await;

    let lines = send(&world).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((outcome(&lines, "mailto:"), outcome(&lines, "https:")), ("queued", "accepted"), "{lines:?}");

    let post = world.web.posts().remove(0);
    assert_eq!((post.host.as_str(), post.path.as_str()), ("reports.world.test", "/v1/tlsrpt"));
    assert_eq!(post.content_type, "application/tlsrpt+gzip");
    let report = gunzip(&post.body);

    let arrival = world.arrivals(2, 1).await.remove(0);
    assert!(arrival.mail.contains("<tlsrpt@relay.test>"), "{}", arrival.mail);
    let mail = Entity::read(&arrival.content);
    assert_eq!(mail.kind(), "multipart/report");
    assert_eq!(mail.parameter("report-type").as_deref(), Some("tlsrpt"));
    assert_eq!(mail.field("TLS-Report-Domain"), Some("seen.test"));
    assert_eq!(mail.field("TLS-Report-Submitter"), Some("relay.test"));
    assert_eq!(mail.field("From"), Some("<tlsrpt@relay.test>"));
    let head = arrival.text();
    let signatures: Vec<&str> = head.split("DKIM-Signature: ").skip(1).collect();
    assert_eq!(signatures.len(), 2, "{head}");
    for (signature, tags) in
        signatures.iter().zip([["a=ed25519-sha256", "s=tls1;"], ["a=rsa-sha256", "s=tls2;"]])
    {
        let signature = signature.split("\r\n\r\n").next().unwrap_or_default();
        assert!(tags.iter().all(|tag| signature.contains(tag)), "{tags:?}: {signature}");
        assert!(signature.contains("d=relay.test;"), "{signature}");
        assert!(!signature.split(';').any(|tag| tag.trim().starts_with("l=")), "{signature}");
    }
    assert_eq!(mail.parts[1].kind(), "application/tlsrpt+gzip");
    assert_eq!(gunzip(&mail.parts[1].body), report, "both targets get the same");
    let id = report["report-id"].as_str().expect("an id");
    assert!(mail.field("Subject").is_some_and(|subject| subject.contains(&format!("Report-ID: <{id}>"))));

    assert_eq!(report["organization-name"], "World Relay");
    assert_eq!(report["contact-info"], "postmaster@relay.test");
    assert!(report["date-range"]["start-datetime"].as_str().is_some_and(|at| at.ends_with("T00:00:00Z")));
    let policies = report["policies"].as_array().expect("policies");
    assert_eq!(policies.len(), 1, "{report}");
    let hosts = &world.farm.hosts;
    let (failed, good) = (hosts[0].log().connections, hosts[1].log().connections);
    assert_eq!(failed, 3);
    assert_eq!(
        policies[0],
        json!({
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: enforce", "mx: *.seen.test", "max_age: 86400"],
                "policy-domain": "seen.test",
                "mx-host": ["*.seen.test"],
            },
            "summary": { "total-successful-session-count": good, "total-failure-session-count": failed },
            "failure-details": [{
                "result-type": "certificate-expired",
                "sending-mta-ip": "127.0.0.1",
                "receiving-mx-hostname": "mx1.seen.test",
                "receiving-mx-helo": "mx.world.test",
                "receiving-ip": hosts[0].ip.to_string(),
                "failed-session-count": failed,
                "failure-reason-code": policies[0]["failure-details"][0]["failure-reason-code"],
            }],
        })
    );

    world.drained().await;
    assert!(
        world.daemon.json(&["report", "preview", "rua.test"]).await.is_empty(),
        "report mail is not counted"
    );
    let again = send(&world).await;
    assert!(again.iter().all(|line| line["outcome"] == "not-sent"), "never twice: {again:?}");
    assert_eq!(world.web.posts().len(), 1);
    let listed = world.daemon.json(&["report", "list", "--domain", "seen.test"]).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["day"], today());
    let shown = world.daemon.json(&["report", "show", "seen.test"]).await.remove(0);
    assert_eq!(shown["report"], report);
}

#[tokio::test]
async fn an_endpoint_that_is_busy_gets_its_report_later() {
    let world = World::start(2, &["seen.test"], REPORTING).await;
    world.dns.txt("_smtp._tls.seen.test", &format!("v=TLSRPTv1;rua={}", https_rua(&world)));
    traffic(&world).await;
    world.web.refuse_posts(1);
    let lines = send(&world).await;
    assert_eq!(outcome(&lines, "https:"), "deferred", "{lines:?}");
    assert!(lines[0]["text"].as_str().is_some_and(|text| text.contains("503")), "{lines:?}");
    let posts = support::eventually("the second post", || async {
        let posts = world.web.posts();
        (posts.len() >= 2).then_some(posts)
    })
    .await;
    assert_eq!((posts[0].answered, posts[1].answered), (503, 200));
    assert_eq!(gunzip(&posts[0].body), gunzip(&posts[1].body));
    support::eventually("the list to say so", || async {
        let entry = world.daemon.json(&["report", "list"]).await.remove(0);
        (entry["targets"][0]["status"] == "accepted").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_domain_that_asks_for_no_report_gets_none() {
    let world = World::start(2, &["seen.test"], REPORTING).await;
    traffic(&world).await;
    let output = world.daemon.cli(&["report", "send", "--day", &today()]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("seen.test") && said.contains("_smtp._tls.seen.test"), "{said}");
    assert!(world.web.posts().is_empty());
    assert!(world.daemon.json(&["queue", "list"]).await.is_empty());
}

#[tokio::test]
async fn counts_survive_a_restart_and_a_crash() {
    let mut world = World::start(2, &["seen.test"], REPORTING).await;
    traffic(&world).await;
    async fn counted(world: &World) -> Value {
        world.daemon.json(&["report", "preview", "seen.test"]).await.remove(0)["policies"].clone()
    }
    let before = counted(&world).await;
    assert_eq!(before[0]["summary"]["total-failure-session-count"], 3, "{before}");
    assert_eq!(world.daemon.stop().await, Some(0));
    world.daemon.start().await;
    assert_eq!(counted(&world).await, before);
    world.daemon.restart().await;
    assert_eq!(counted(&world).await, before);
}

#[tokio::test]
async fn a_report_that_waits_survives_a_crash_and_goes_out_once() {
    let mut world = World::start(2, &["seen.test"], REPORTING).await;
    world.dns.txt("_smtp._tls.seen.test", &format!("v=TLSRPTv1;rua={}", https_rua(&world)));
    traffic(&world).await;
    world.web.refuse_posts(u32::MAX);
    assert_eq!(outcome(&send(&world).await, "https:"), "deferred");
    world.daemon.restart().await;
    let seen = world.web.posts().len();
    support::eventually("a try after the restart", || async {
        (world.web.posts().len() > seen).then_some(())
    })
    .await;
    world.web.refuse_posts(0);
    support::eventually("the report to be accepted", || async {
        let entry = world.daemon.json(&["report", "list"]).await.remove(0);
        (entry["targets"][0]["status"] == "accepted").then_some(())
    })
    .await;
    world.daemon.restart().await;
    assert!(send(&world).await.iter().all(|line| line["outcome"] == "not-sent"));
    let posts = world.web.posts();
    assert_eq!(posts.iter().filter(|post| post.answered == 200).count(), 1);
    let ids: std::collections::HashSet<String> =
        posts.iter().map(|post| gunzip(&post.body)["report-id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "every try is the same report: {ids:?}");
}
