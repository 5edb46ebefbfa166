//! Static routes: mail handed to a configured next hop, with a login there, and what is proven first.

mod support;

use std::fs;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::client::message;
use support::eventually;
use support::mx::{Behaviour, Mx, StartTls};
use support::pki::Kind;
use support::world::World;

const PASSWORD: &str = "correct horse";
const NAME: &str = "relay@home.test";

/// A world whose configuration is written once the ports are known; the daemon runs.
async fn world(hosts: u8, domains: &[&str], routes: impl FnOnce(&World) -> String) -> World {
    let mut world = World::prepare(hosts, domains, "").await;
    fs::write(world.daemon.path("password"), format!("{PASSWORD}\n")).expect("writable");
    world.daemon.configure_extra(&routes(&world));
    world.daemon.start().await;
    world
}

fn route(domain: &str, next_hop: &str, more: &str) -> String {
    format!("[[route]]\ndomain = \"{domain}\"\nnext_hop = \"{next_hop}\"\n{more}")
}

/// With a login.
fn login(world: &World, more: &str) -> String {
    let file = world.daemon.path("password");
    format!("username = \"{NAME}\"\npassword_file = \"{}\"\n{more}", file.display())
}

fn plain(password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("\0{NAME}\0{password}")))
}

/// A host that lets nobody in but us.
fn guarded(mut behaviour: Behaviour) -> Behaviour {
    behaviour.extensions.push("AUTH PLAIN".to_owned());
    behaviour.answering(&plain(PASSWORD), "235 2.7.0 welcome").answering("AUTH", "535 5.7.8 who are you?")
}

fn saw_login(host: &Mx) -> bool {
    host.log().commands.iter().any(|line| line.to_ascii_uppercase().starts_with("AUTH"))
}

fn result(item: &Value) -> String {
    let attempt = item["history"].as_array().and_then(|history| history.last()).expect("an attempt");
    attempt["result"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn all_mail_goes_by_the_default_route_with_a_login_under_the_next_hops_policies() {
    let world = world(1, &["smart.test"], |world| {
        let next_hop = format!("[smart.test]:{}", world.farm.port);
        route("*", &next_hop, &login(world, ""))
    })
    .await;
    world.dns.address("smart.test", world.farm.hosts[0].ip);
    world.publish("smart.test", "1", "enforce", &["smart.test"], 86_400);
    world.farm.hosts[0].behave(guarded(world.secured(&["smart.test"], Kind::Good)));
    // Nothing is published for either.
    let id = world.submit("a@home.test", &["b@one.test", "c@[192.0.2.1]"], &message("one")).await;
    let arrivals = world.arrivals(0, 2).await;
    assert!(arrivals.iter().all(|arrival| arrival.tls));
    world.drained().await;
    let commands = world.farm.hosts[0].log().commands;
    let at = |start: &str| commands.iter().position(|line| line.starts_with(start)).expect("it was said");
    assert!(at("STARTTLS") < at(&plain(PASSWORD)) && at(&plain(PASSWORD)) < at("MAIL"), "{commands:?}");
    assert_eq!(world.dns.asked("one.test", RecordType::MX), 0);
    assert_eq!(world.dns.asked("smart.test", RecordType::MX), 0);
    assert_eq!(world.dns.asked("_mta-sts.one.test", RecordType::TXT), 0);
    assert!(world.dns.asked("_mta-sts.smart.test", RecordType::TXT) > 0);
    // RFC 8460 section 1.1: the smart host hears of it.
    let report = world.daemon.json(&["report", "preview", "smart.test"]).await.remove(0);
    assert_eq!(report["policies"][0]["policy"]["policy-type"], "sts", "{report}");
    let evidence = world.daemon.json(&["evidence", &id]).await.remove(0);
    let host = &evidence["hosts"][0];
    assert_eq!(host["route"], format!("* to [smart.test]:{}", world.farm.port), "{evidence}");
    assert_eq!((&host["requirement"], host.get("mx_dnssec")), (&"pkix".into(), None), "{evidence}");
    let explained = world.daemon.json(&["explain", "one.test", "--connect"]).await.remove(0);
    assert_eq!(explained["conclusion"]["mail"], "goes", "{explained}");
    assert_eq!(explained["route"]["policy_domain"], "smart.test", "{explained}");
    assert_eq!(explained["hosts"][0]["tries"][0]["trouble"], Value::Null, "{explained}");
    let told = world.daemon.ask(&["explain", "one.test"]).await;
    assert!(told.contains("login as relay@home.test") && told.contains("the route names the host"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    let everything = format!("{}{explained}{evidence}{told}", world.daemon.log());
    assert!(!everything.contains(PASSWORD) && !everything.contains(&BASE64.encode(PASSWORD)));
    assert!(!everything.contains(&plain(PASSWORD)));
}

#[tokio::test]
async fn implicit_tls_comes_before_the_greeting_and_login_is_enough_where_there_is_no_plain() {
    let world = world(1, &[], |world| {
        let next_hop = format!("[smart.test]:{}", world.farm.port);
        route("*.tree.test", &next_hop, &login(world, "tls = \"implicit\"\n"))
    })
    .await;
    world.dns.address("smart.test", world.farm.hosts[0].ip);
    let leaf = world.pki.leaf(&["smart.test"], Kind::Good);
    let mut behaviour =
        Behaviour { starttls: StartTls::Implicit(leaf.server_config()), ..Behaviour::clear() };
    behaviour.extensions.push("AUTH LOGIN".to_owned());
    let behaviour = behaviour
        .answering("AUTH LOGIN", "334 VXNlcm5hbWU6")
        .answering(&BASE64.encode(NAME), "334 UGFzc3dvcmQ6")
        .answering(&BASE64.encode(PASSWORD), "235 2.7.0 welcome");
    world.farm.hosts[0].behave(behaviour);
    world.submit("a@home.test", &["b@x.tree.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    let commands = world.farm.hosts[0].log().commands;
    assert!(!commands.iter().any(|line| line == "STARTTLS"), "{commands:?}");
    // The name above the tree goes its own way.
    let id = world.submit("a@home.test", &["b@tree.test"], &message("two")).await;
    eventually("it to fail", || async {
        let items = world.daemon.json(&["queue", "list"]).await;
        items.iter().all(|item| !item["id"].as_str().unwrap_or_default().starts_with(&id)).then_some(())
    })
    .await;
    assert_eq!(world.farm.hosts[0].arrived(), 1);
}

#[tokio::test]
async fn a_wrong_password_makes_mail_wait_until_the_right_one_is_read_at_reload() {
    let world = world(1, &[], |world| {
        fs::write(world.daemon.path("password"), "wrong\n").expect("writable");
        route("*", &format!("[smart.test]:{}", world.farm.port), &login(world, ""))
    })
    .await;
    world.dns.address("smart.test", world.farm.hosts[0].ip);
    world.farm.hosts[0].behave(guarded(world.secured(&["smart.test"], Kind::Good)));
    let id = world.submit("a@home.test", &["b@one.test"], &message("one")).await;
    let said = result(&world.deferred(&id).await[0]);
    assert!(said.contains("deferred: 4.7.8") && said.contains("refused the login of this relay"), "{said}");
    assert!(said.contains("535") && said.contains("static route for *"), "{said}");
    assert!(!world.farm.hosts[0].saw_mail());
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("login at the next hop")).expect("a line says so");
    assert!(line.contains("WARN") && line.contains(NAME) && !line.contains("wrong"), "{line}");
    let explained = world.daemon.json(&["explain", "one.test", "--connect"]).await.remove(0);
    assert_eq!(explained["conclusion"]["mail"], "waits", "{explained}");
    // The host is left alone by then: a second message does not knock again.
    let knocks = || world.farm.hosts[0].log().commands.iter().filter(|line| line.starts_with("AUTH")).count();
    let before = knocks();
    world.submit("a@home.test", &["b@two.test"], &message("two")).await;
    eventually("the host to be left alone", || async {
        let told = |line: &str| line.contains("not tried now") && line.contains("refused the login");
        world.daemon.log().lines().any(told).then_some(())
    })
    .await;
    assert_eq!(knocks(), before);
    fs::write(world.daemon.path("password"), PASSWORD).expect("writable");
    world.daemon.signal("HUP");
    eventually("the reload", || async { world.daemon.log().contains("reloaded").then_some(()) }).await;
    world.retry_until("the mail to arrive", || world.farm.hosts[0].accepted().len() == 2).await;
}

#[tokio::test]
async fn a_server_that_is_not_authenticated_gets_neither_password_nor_mail() {
    let world = world(2, &[], |world| {
        let next_hop = |name: &str| format!("[{name}.test]:{}", world.farm.port);
        route("self.test", &next_hop("signed"), &login(world, ""))
            + &route("clear.test", &next_hop("stripped"), &login(world, ""))
    })
    .await;
    world.dns.address("signed.test", world.farm.hosts[0].ip);
    world.dns.address("stripped.test", world.farm.hosts[1].ip);
    world.farm.hosts[0].behave(guarded(world.secured(&["signed.test"], Kind::SelfSigned)));
    world.farm.hosts[1].behave(guarded(Behaviour::clear()));
    // The message does not care, and its header takes nothing back from the route.
    let careless = format!("TLS-Required: No\r\n{}", message("one"));
    for (domain, why) in [("self.test", "not trusted"), ("clear.test", "STARTTLS")] {
        let id = world.submit("a@home.test", &[&format!("b@{domain}")], &careless).await;
        let said = result(&world.deferred(&id).await[0]);
        assert!(said.contains("deferred: 4.7.") && said.contains(why), "{said}");
    }
    for host in &world.farm.hosts {
        assert!(!saw_login(host) && !host.saw_mail(), "{:?}", host.log().commands);
    }
}

#[tokio::test]
async fn a_connection_without_login_is_not_used_for_mail_with_one() {
    let world = world(1, &[], |world| {
        route("with.test", &format!("[mx.smart.test]:{}", world.farm.port), &login(world, ""))
    })
    .await;
    world.route("plain.test", 10, "mx.smart.test", 0);
    world.farm.hosts[0].behave(guarded(world.secured(&["mx.smart.test"], Kind::Good)));
    for (domain, logins) in [("plain.test", 0), ("with.test", 1), ("plain.test", 1), ("with.test", 1)] {
        let before = world.farm.hosts[0].arrived();
        world.submit("a@home.test", &[&format!("b@{domain}")], &message("one")).await;
        world.arrivals(0, before + 1).await;
        world.drained().await;
        let log = world.farm.hosts[0].log();
        let seen = log.commands.iter().filter(|line| line.starts_with("AUTH")).count();
        assert_eq!((seen, log.connections), (logins, 1 + logins), "{domain}");
    }
}

#[tokio::test]
async fn the_policies_of_the_next_hop_bind_and_rules_for_the_recipient_too() {
    let world = world(3, &["hub.test", "own.test"], |world| {
        let port = world.farm.port;
        let address = format!("{}:{port}", world.farm.hosts[2].ip);
        let strict = |domain: &str| {
            format!(
                "[[policy.override]]\ndomain = \"{domain}\"\nrequire = \"verify\"\nreason = \"ticket 9\"\n"
            )
        };
        [
            route("*.hub-user.test", &format!("hub.test:{port}"), ""),
            route("far.test", &format!("[away.test]:{port}"), "require = \"dane\"\n"),
            route("near.test", &address, ""),
            route("strict.test", &address, ""),
            route("x.hub-user.test", "direct", ""),
            strict("strict.test"),
        ]
        .concat()
    })
    .await;
    // The hub's policy does not list its host; the recipient domain's would.
    world.route("hub.test", 10, "mx.hub.test", 0);
    world.publish("hub.test", "1", "enforce", &["other.hub.test"], 86_400);
    world.farm.hosts[0].behave(world.secured(&["mx.hub.test"], Kind::Good));
    let id = world.submit("a@home.test", &["b@a.hub-user.test"], &message("one")).await;
    let said = result(&world.deferred(&id).await[0]);
    assert!(said.contains("not listed in the MTA-STS policy of hub.test"), "{said}");
    assert!(!world.farm.hosts[0].saw_mail());
    // The exception within the tree.
    world.route("x.hub-user.test", 10, "mx.x.test", 1);
    world.submit("a@home.test", &["b@x.hub-user.test"], &message("two")).await;
    world.arrivals(1, 1).await;
    // Mandatory DANE at the real port, with a key nobody else vouches for.
    world.dns.authentic(true);
    let leaf = world.pki.leaf(&["away.test"], Kind::SelfSigned);
    world.dns.address("away.test", world.farm.hosts[1].ip);
    world.farm.hosts[1].behave(Behaviour::with(leaf.server_config()));
    let key = digest::digest(&digest::SHA256, &leaf.spki());
    world.dns.tlsa(&format!("_{}._tcp.away.test", world.farm.port), [3, 1, 1], key.as_ref());
    world.submit("a@home.test", &["b@far.test"], &message("three")).await;
    assert!(world.arrivals(1, 2).await[1].tls);
    let log = world.daemon.log();
    assert!(
        log.lines().any(|line| line.contains("delivered=1") && line.contains("verified=\"dane\"")),
        "{log}"
    );
    // An address proves nothing, and where nothing is demanded that is enough.
    world.submit("a@home.test", &["b@near.test"], &message("four")).await;
    assert!(!world.arrivals(2, 1).await[0].tls);
    let id = world.submit("a@home.test", &["b@strict.test"], &message("five")).await;
    let said = result(&world.deferred(&id).await[0]);
    assert!(said.contains("demands an authenticated server") && said.contains("(ticket 9)"), "{said}");
    assert_eq!(world.farm.hosts[2].arrived(), 1);
    let explained = world.daemon.json(&["explain", "strict.test"]).await.remove(0);
    assert_eq!(explained["conclusion"]["mail"], "waits", "{explained}");
    assert!(said.contains(explained["conclusion"]["text"].as_str().expect("a text")), "{said}\n{explained}");
}

#[tokio::test]
async fn nothing_that_is_wrong_with_a_next_hop_bounces_mail() {
    let world = world(2, &[], |world| {
        let port = world.farm.port;
        [
            route("gone.test", &format!("nowhere.test:{port}"), ""),
            route("busy.test", &format!("[closed.test]:{port}"), ""),
            route("wants.test", &format!("[wants-login.test]:{port}"), ""),
        ]
        .concat()
    })
    .await;
    world.dns.address("closed.test", world.farm.hosts[0].ip);
    world.dns.address("wants-login.test", world.farm.hosts[1].ip);
    world.farm.hosts[0].adjust(|behaviour| behaviour.greeting = "554 5.7.1 go away".to_owned());
    world.farm.hosts[1].behave(Behaviour::clear().answering("MAIL", "530 5.7.0 log in first"));
    for (domain, words) in [
        ("gone.test", "4.1.2 no route to nowhere.test"),
        ("busy.test", "554 5.7.1 go away"),
        ("wants.test", "530 5.7.0 log in first"),
    ] {
        let id = world.submit("a@home.test", &[&format!("b@{domain}")], &message("one")).await;
        let said = result(&world.deferred(&id).await[0]);
        assert!(said.starts_with("deferred: 4.") && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn report_mail_takes_the_route_with_its_login_and_makes_no_report() {
    let world = world(1, &[], |world| {
        let next_hop = format!("[smart.test]:{}", world.farm.port);
        format!("[tlsrpt]\nfrom = \"tlsrpt@home.test\"\n{}", route("*", &next_hop, &login(world, "")))
    })
    .await;
    world.dns.address("smart.test", world.farm.hosts[0].ip);
    world.farm.hosts[0].behave(guarded(world.secured(&["smart.test"], Kind::Good)));
    world.dns.txt("_smtp._tls.smart.test", "v=TLSRPTv1; rua=mailto:tls@far.test");
    world.submit("a@home.test", &["b@one.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    world.drained().await;
    let before = world.daemon.json(&["report", "preview", "smart.test"]).await;
    assert_eq!(before[0]["policies"][0]["summary"]["total-successful-session-count"], 1, "{before:?}");
    let today = before[0]["date-range"]["start-datetime"].as_str().expect("a day")[..10].to_owned();
    let sent = world.daemon.json(&["report", "send", "--day", &today]).await;
    assert_eq!(sent[0]["outcome"], "queued", "{sent:?}");
    let report = world.arrivals(0, 2).await.remove(1);
    assert!(report.tls && report.rcpts[0].contains("tls@far.test"), "{report:?}");
    assert!(report.text().contains("TLS-Report-Domain: smart.test"), "{}", report.text());
    world.drained().await;
    let after = world.daemon.json(&["report", "preview", "smart.test"]).await;
    assert_eq!(after[0]["policies"][0]["summary"], before[0]["policies"][0]["summary"]);
}
