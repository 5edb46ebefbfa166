//! What is counted for TLS reports: one result per TLS session, under each policy that applies, with the
//! result type of what went wrong (RFC 8460 §4.3). The MX hosts' own logs say how many sessions there were.

mod support;

use aws_lc_rs::digest;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::client::message;
use support::dns::Fault;
use support::mx::{Behaviour, StartTls};
use support::pki::Kind;
use support::web::Page;
use support::world::World;

const DAY: u32 = 86_400;

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

/// Today's report to a domain so far; null without results.
async fn preview(world: &World, domain: &str) -> Value {
    world.daemon.json(&["report", "preview", domain]).await.pop().unwrap_or_default()
}

/// Of each policy of a report: `TYPE POLICY-DOMAIN SUCCESSES FAILURES [RESULT-TYPE=COUNT...]`, in order.
fn told(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let policies = report["policies"].as_array().cloned().unwrap_or_default();
    let mut told: Vec<String> = policies
        .iter()
        .map(|entry| {
            let (policy, summary) = (&entry["policy"], &entry["summary"]);
            let mut line = format!(
                "{} {} {} {}",
                text(&policy["policy-type"]),
                text(&policy["policy-domain"]),
                summary["total-successful-session-count"],
                summary["total-failure-session-count"]
            );
            for detail in entry["failure-details"].as_array().into_iter().flatten() {
                line += &format!(" {}={}", text(&detail["result-type"]), detail["failed-session-count"]);
            }
            line
        })
        .collect();
    told.sort();
    told
}

async fn counted(world: &World, domain: &str) -> Vec<String> {
    told(&preview(world, domain).await)
}

/// The one failure detail of a report about one policy.
fn detail(report: &Value) -> &Value {
    &report["policies"][0]["failure-details"][0]
}

fn tlsa_owner(world: &World, host: &str) -> String {
    format!("_{}._tcp.{host}", world.farm.port)
}

/// A message to `b@DOMAIN`; waits until it has arrived at this host, in all the `count`th there.
async fn deliver(world: &World, domain: &str, host: usize, count: usize) {
    world.submit("a@home.test", &[&format!("b@{domain}")], &message("one")).await;
    world.arrivals(host, count).await;
    world.drained().await;
}

#[tokio::test]
async fn what_goes_wrong_in_tls_has_its_result_type_also_where_mail_flows_all_the_same() {
    let domains = ["name.test", "expired.test", "trust.test", "wrongmx.test", "never.test"];
    let world = World::start(8, &domains, "").await;
    let testing = |domain: &str, mx: &str| world.publish(domain, "1", "testing", &[mx], DAY);

    world.route("plain.test", 10, "mx.plain.test", 0);
    deliver(&world, "plain.test", 0, 1).await;
    assert_eq!(
        counted(&world, "plain.test").await,
        ["no-policy-found plain.test 0 1 starttls-not-supported=1"]
    );

    world.route("busy.test", 10, "mx.busy.test", 1);
    world.farm.hosts[1].behave(Behaviour { starttls: StartTls::Refused, ..Behaviour::clear() });
    deliver(&world, "busy.test", 1, 1).await;
    let report = preview(&world, "busy.test").await;
    assert_eq!(told(&report), ["no-policy-found busy.test 0 1 starttls-not-supported=1"]);
    let reason = detail(&report)["failure-reason-code"].as_str().unwrap_or_default();
    assert!(reason.contains("refused with 454"), "what the host said: {reason}");

    testing("name.test", "mx.name.test");
    world.route("name.test", 10, "mx.name.test", 2);
    world.farm.hosts[2].behave(world.secured(&["other.name.test"], Kind::Good));
    deliver(&world, "name.test", 2, 1).await;
    assert_eq!(counted(&world, "name.test").await, ["sts name.test 0 1 certificate-host-mismatch=1"]);

    testing("expired.test", "mx.expired.test");
    world.route("expired.test", 10, "mx.expired.test", 3);
    world.farm.hosts[3].behave(world.secured(&["mx.expired.test"], Kind::Expired));
    deliver(&world, "expired.test", 3, 1).await;
    assert_eq!(counted(&world, "expired.test").await, ["sts expired.test 0 1 certificate-expired=1"]);

    testing("trust.test", "mx.trust.test");
    world.route("trust.test", 10, "mx.trust.test", 4);
    world.farm.hosts[4].behave(world.secured(&["mx.trust.test"], Kind::SelfSigned));
    deliver(&world, "trust.test", 4, 1).await;
    assert_eq!(counted(&world, "trust.test").await, ["sts trust.test 0 1 certificate-not-trusted=1"]);

    // The certificate is good; the policy, on trial, does not list the host.
    testing("wrongmx.test", "mail.wrongmx.test");
    world.route("wrongmx.test", 10, "mx.wrongmx.test", 5);
    world.farm.hosts[5].behave(world.secured(&["mx.wrongmx.test"], Kind::Good));
    deliver(&world, "wrongmx.test", 5, 1).await;
    let report = preview(&world, "wrongmx.test").await;
    assert_eq!(told(&report), ["sts wrongmx.test 0 1 validation-failure=1"]);
    assert_eq!(detail(&report)["failure-reason-code"], "mx-not-in-policy:mx.wrongmx.test");
    assert_eq!(detail(&report)["receiving-ip"], world.farm.hosts[5].ip.to_string());

    // The same in earnest: there is no connection, and so there are no addresses.
    world.publish("never.test", "1", "enforce", &["mail.never.test"], DAY);
    world.route("never.test", 10, "mx.never.test", 6);
    let id = world.submit("a@home.test", &["b@never.test"], &message("one")).await;
    world.deferred(&id).await;
    let report = preview(&world, "never.test").await;
    assert_eq!(told(&report), ["sts never.test 0 1 validation-failure=1"]);
    assert_eq!(detail(&report)["receiving-mx-hostname"], "mx.never.test");
    for absent in ["receiving-ip", "sending-mta-ip", "receiving-mx-helo"] {
        assert_eq!(detail(&report)[absent], Value::Null, "{absent}");
    }
    assert_eq!(world.farm.hosts[6].log().connections, 0);

    // What the session is without a policy, whatever the certificate: a success.
    world.route("free.test", 10, "mx.free.test", 7);
    world.farm.hosts[7].behave(world.secured(&["other.free.test"], Kind::SelfSigned));
    world.submit("a@home.test", &["b@free.test"], &message("one")).await;
    world.arrivals(7, 1).await;
    assert_eq!(counted(&world, "free.test").await, ["no-policy-found free.test 1 0"]);
}

#[tokio::test]
async fn trouble_with_a_policy_is_counted_beside_the_session_that_went_without_it() {
    let domains = ["nofetch.test", "invalid.test", "stale.test"];
    let world = World::start(4, &domains, "").await;
    for (host, domain) in ["nofetch.test", "invalid.test", "webpki.test", "stale.test"].iter().enumerate() {
        world.good_domain(domain, host);
    }

    world.dns.txt("_mta-sts.nofetch.test", "v=STSv1; id=1;");
    world.web.set("mta-sts.nofetch.test", Page::status(404));
    deliver(&world, "nofetch.test", 0, 1).await;
    let report = preview(&world, "nofetch.test").await;
    assert_eq!(told(&report), ["no-policy-found nofetch.test 1 1 sts-policy-fetch-error=1"]);
    assert!(detail(&report)["failure-reason-code"].as_str().is_some_and(|reason| reason.contains("404")));
    assert_eq!(detail(&report)["receiving-mx-hostname"], Value::Null);

    world.dns.txt("_mta-sts.invalid.test", "v=STSv1; id=1;");
    let broken = "version: STSv1\r\nmode: enforced\r\nmx: mx.invalid.test\r\nmax_age: 86400\r\n";
    world.web.set("mta-sts.invalid.test", Page::policy(broken));
    deliver(&world, "invalid.test", 1, 1).await;
    let report = preview(&world, "invalid.test").await;
    assert_eq!(
        told(&report),
        ["no-policy-found invalid.test 1 0", "sts invalid.test 0 1 sts-policy-invalid=1"]
    );
    let declared = report["policies"].as_array().into_iter().flatten();
    let declared = declared.map(|entry| &entry["policy"]["policy-string"]).find(|lines| lines.is_array());
    assert_eq!(
        declared,
        Some(&serde_json::json!([
            "version: STSv1",
            "mode: enforced",
            "mx: mx.invalid.test",
            "max_age: 86400"
        ]))
    );

    // The web server has no certificate for this name.
    world.dns.txt("_mta-sts.webpki.test", "v=STSv1; id=1;");
    world.dns.address("mta-sts.webpki.test", world.web.address.ip());
    deliver(&world, "webpki.test", 2, 1).await;
    assert_eq!(
        counted(&world, "webpki.test").await,
        ["no-policy-found webpki.test 1 1 sts-webpki-invalid=1"]
    );

    // A policy that is held stays in force, and what goes wrong with the next is counted under it.
    world.publish("stale.test", "1", "enforce", &["mx.stale.test"], DAY);
    deliver(&world, "stale.test", 3, 1).await;
    world.web.set("mta-sts.stale.test", Page::status(500));
    world.dns.set_txt("_mta-sts.stale.test", "v=STSv1; id=2;");
    world.daemon.cli(&["policy", "refresh", "stale.test"]).await;
    assert_eq!(counted(&world, "stale.test").await, ["sts stale.test 1 1 sts-policy-fetch-error=1"]);
}

#[tokio::test]
async fn dane_and_mta_sts_are_counted_side_by_side_and_the_mx_host_hears_of_dane() {
    let extra = "[[policy.override]]\ndomain = \"required.test\"\nrequire = \"dane\"\nreason = \"agreed\"\n";
    let world = World::start(4, &["both.test"], extra).await;
    world.dns.authentic(true);

    // An alias: the TLSA records, and so the policy, are those of the name it leads to.
    world.dns.mx("both.test", 10, "mx.both.test");
    world.dns.cname("mx.both.test", "host.pool.test");
    world.dns.address("host.pool.test", world.farm.hosts[0].ip);
    let leaf = world.pki.leaf(&["mx.both.test", "host.pool.test"], Kind::SelfSigned);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    world.dns.tlsa(&tlsa_owner(&world, "host.pool.test"), [3, 1, 1], &sha256(&leaf.spki()));
    world.publish("both.test", "1", "testing", &["mx.both.test"], DAY);
    deliver(&world, "both.test", 0, 1).await;
    let of_domain =
        ["sts both.test 0 1 certificate-not-trusted=1".to_owned(), "tlsa host.pool.test 1 0".to_owned()];
    assert_eq!(counted(&world, "both.test").await, of_domain);
    assert_eq!(counted(&world, "host.pool.test").await, ["tlsa host.pool.test 1 0"]);

    // Another domain of the same host on the same connection: a session to it, none to the host.
    world.dns.mx("second.test", 10, "mx.both.test");
    deliver(&world, "second.test", 0, 2).await;
    assert_eq!(world.farm.hosts[0].log().connections, 1, "one session");
    assert_eq!(counted(&world, "second.test").await, ["tlsa host.pool.test 1 0"]);
    assert_eq!(counted(&world, "both.test").await, of_domain);
    assert_eq!(counted(&world, "host.pool.test").await, ["tlsa host.pool.test 1 0"]);

    // Its report goes where the host's own record says.
    let rua = format!("https://reports.world.test:{}/host", world.web.address.port());
    world.dns.txt("_smtp._tls.host.pool.test", &format!("v=TLSRPTv1; rua={rua}"));
    world.daemon.configure_extra(&format!("{extra}\n[tlsrpt]\nfrom = \"tlsrpt@relay.test\"\n"));
    world.daemon.signal("HUP");
    let today = stsrelay::net::Clock::now(&stsrelay::net::SystemClock).strftime("%Y-%m-%d").to_string();
    support::eventually("the host's report", || async {
        world.daemon.cli(&["report", "send", "--day", &today]).await;
        world.web.posts().iter().any(|post| post.path == "/host").then_some(())
    })
    .await;
    assert_eq!(world.dns.asked("_smtp._tls.both.test", RecordType::TXT), 1);
    assert_eq!(world.web.posts().len(), 1);

    world.route("broken.test", 10, "mx.broken.test", 1);
    let (shown, named) =
        (world.pki.leaf(&["mx.broken.test"], Kind::Good), world.pki.leaf(&["x"], Kind::Good));
    world.farm.hosts[1].behave(Behaviour::with(shown.server_config()));
    world.dns.tlsa(&tlsa_owner(&world, "mx.broken.test"), [3, 1, 1], &sha256(&named.spki()));
    world.route("bogus.test", 10, "mx.bogus.test", 2);
    world.dns.fault(&tlsa_owner(&world, "mx.bogus.test"), RecordType::TLSA, Some(Fault::ServFail));
    world.route("required.test", 10, "mx.required.test", 3);
    for (domain, result) in [
        ("broken.test", "tlsa-invalid"),
        ("bogus.test", "dnssec-invalid"),
        ("required.test", "dane-required"),
    ] {
        let id = world.submit("a@home.test", &[&format!("b@{domain}")], &message("one")).await;
        world.deferred(&id).await;
        let told = [format!("tlsa mx.{domain} 0 1 {result}=1")];
        assert_eq!(counted(&world, domain).await, told);
        assert_eq!(counted(&world, &format!("mx.{domain}")).await, told, "the host's own");
    }
    assert_eq!(world.farm.hosts[2].log().connections + world.farm.hosts[3].log().connections, 0);
}

#[tokio::test]
async fn messages_recipients_and_domains_on_one_connection_are_one_session_each_to_their_domain() {
    let world = World::start(1, &[], "").await;
    let host = &world.farm.hosts[0];
    world.good_domain("one.test", 0);
    world.dns.mx("two.test", 10, "mx.one.test");
    for number in 1..=4 {
        let to = ["b@one.test", "c@one.test", "d@one.test"];
        world.submit("a@home.test", &to, &message(&number.to_string())).await;
        world.arrivals(0, number).await;
        world.drained().await;
    }
    deliver(&world, "two.test", 0, 5).await;
    assert_eq!((host.log().connections, host.log().handshakes), (1, 1));
    assert_eq!(counted(&world, "one.test").await, ["no-policy-found one.test 1 0"]);
    assert_eq!(counted(&world, "two.test").await, ["no-policy-found two.test 1 0"]);
}

#[tokio::test]
async fn every_connection_is_a_session_resumed_or_not_and_so_is_a_host_that_failed_before_the_next() {
    let world = World::start(2, &["again.test"], "[delivery.pool]\nmessages = 1\n").await;
    world.route("again.test", 10, "mx1.again.test", 0);
    world.route("again.test", 20, "mx2.again.test", 1);
    world.farm.hosts[0].behave(world.secured(&["mx1.again.test"], Kind::Expired));
    world.farm.hosts[1].behave(world.secured(&["mx2.again.test"], Kind::Good));
    world.publish("again.test", "1", "enforce", &["*.again.test"], DAY);
    for number in 1..=4 {
        deliver(&world, "again.test", 1, number).await;
    }
    let (bad, good) = (world.farm.hosts[0].log(), world.farm.hosts[1].log());
    assert_eq!((bad.connections, good.connections), (4, 4));
    assert!(good.resumed >= 1, "a session was resumed: {}", good.resumed);
    assert_eq!(counted(&world, "again.test").await, ["sts again.test 4 4 certificate-expired=4"]);
}

#[tokio::test]
async fn a_failure_and_the_way_in_clear_after_it_are_one_session_to_every_domain_on_it() {
    let world = World::start(1, &[], "").await;
    let host = &world.farm.hosts[0];
    host.behave(Behaviour { starttls: StartTls::Garbage, ..Behaviour::clear() });
    world.route("one.test", 10, "mx.shared.test", 0);
    world.dns.mx("two.test", 10, "mx.shared.test");
    deliver(&world, "one.test", 0, 1).await;
    assert_eq!(host.log().connections, 2, "with TLS, and then in clear");
    assert_eq!(counted(&world, "one.test").await, ["no-policy-found one.test 0 1 validation-failure=1"]);
    // On the same connection: TLS failed there for this domain's mail as well.
    deliver(&world, "two.test", 0, 2).await;
    deliver(&world, "one.test", 0, 3).await;
    assert_eq!(host.log().connections, 2);
    assert_eq!(counted(&world, "two.test").await, ["no-policy-found two.test 0 1 validation-failure=1"]);
    assert_eq!(counted(&world, "one.test").await, ["no-policy-found one.test 0 1 validation-failure=1"]);
}

#[tokio::test]
async fn an_address_that_lost_the_race_or_refused_is_no_session() {
    let world = World::start_dual(2, &[], "").await;
    let (hole, closed, six) = (&world.farm.hosts[0], &world.farm.hosts[1], &world.farm.hosts[2]);
    let _hole = hole.swallow().await;
    closed.down();
    six.behave(world.secured(&["mx.race.test"], Kind::Good));
    world.dns.mx("race.test", 10, "mx.race.test");
    for ip in [hole.ip, closed.ip, six.ip] {
        world.dns.address("mx.race.test", ip);
    }
    deliver(&world, "race.test", 2, 1).await;
    assert_eq!(six.log().handshakes, 1);
    assert_eq!(counted(&world, "race.test").await, ["no-policy-found race.test 1 0"]);
}

#[tokio::test]
async fn mail_that_waives_tls_is_counted_and_report_mail_is_not() {
    let reports = "[tlsrpt]\nfrom = \"tlsrpt@relay.test\"\n";
    let world = World::start(2, &["waived.test"], reports).await;
    world.route("waived.test", 10, "mx.waived.test", 0);
    world.farm.hosts[0].behave(world.secured(&["mx.waived.test"], Kind::SelfSigned));
    world.publish("waived.test", "1", "enforce", &["mx.waived.test"], DAY);
    // The report's target has a policy that cannot be fetched, and no TLS.
    world.route("rua.test", 10, "mx.rua.test", 1);
    world.dns.txt("_mta-sts.rua.test", "v=STSv1; id=1;");
    world.dns.txt("_smtp._tls.waived.test", "v=TLSRPTv1; rua=mailto:r@rua.test");
    let waiving = format!("TLS-Required: No\r\n{}", message("one"));
    world.submit("a@home.test", &["b@waived.test"], &waiving).await;
    world.arrivals(0, 1).await;
    world.drained().await;
    assert_eq!(counted(&world, "waived.test").await, ["sts waived.test 0 1 certificate-not-trusted=1"]);

    let today = stsrelay::net::Clock::now(&stsrelay::net::SystemClock).strftime("%Y-%m-%d").to_string();
    world.daemon.ask(&["report", "send", "--day", &today]).await;
    let report = world.arrivals(1, 1).await.remove(0);
    assert!(!report.tls);
    world.drained().await;
    assert_eq!(preview(&world, "rua.test").await, Value::Null, "neither its session nor its policy");
    assert_eq!(world.dns.asked("_mta-sts.rua.test", RecordType::TXT), 0);
    // Somebody's mail to the same host counts again.
    deliver(&world, "rua.test", 1, 2).await;
    let told = counted(&world, "rua.test").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("starttls-not-supported=1"), "{told:?}");
}

#[tokio::test]
async fn a_policy_that_changed_during_the_day_has_an_entry_of_its_own_each_verbatim() {
    let world = World::start(1, &["noon.test"], "[delivery.pool]\nmessages = 1\n").await;
    world.good_domain("noon.test", 0);
    let morning = "version: STSv1\nmode: testing\nx-note: before  noon \nmx: mx.noon.test\n\
                   mx: *.noon.test\nmax_age: 86400\n";
    world.web.set("mta-sts.noon.test", Page::policy(morning));
    world.dns.set_txt("_mta-sts.noon.test", "v=STSv1; id=1;");
    deliver(&world, "noon.test", 0, 1).await;
    deliver(&world, "noon.test", 0, 2).await;
    world.publish("noon.test", "2", "enforce", &["mx.noon.test"], DAY);
    world.daemon.ask(&["policy", "refresh", "noon.test"]).await;
    deliver(&world, "noon.test", 0, 3).await;
    let report = preview(&world, "noon.test").await;
    assert_eq!(told(&report), ["sts noon.test 1 0", "sts noon.test 2 0"]);
    assert_eq!(
        report["policies"][0]["policy"]["policy-string"],
        serde_json::json!([
            "version: STSv1",
            "mode: testing",
            "x-note: before  noon ",
            "mx: mx.noon.test",
            "mx: *.noon.test",
            "max_age: 86400"
        ])
    );
    assert_eq!(
        report["policies"][0]["policy"]["mx-host"],
        serde_json::json!(["mx.noon.test", "*.noon.test"])
    );
    assert_eq!(report["policies"][1]["policy"]["policy-string"][1], "mode: enforce");
}

#[tokio::test]
async fn mail_that_looks_like_a_report_is_held_to_the_policy() {
    let world = World::start(1, &["strict.test"], "[tlsrpt]\nfrom = \"tlsrpt@relay.test\"\n").await;
    world.route("strict.test", 10, "mx.strict.test", 0);
    world.farm.hosts[0].behave(world.secured(&["mx.strict.test"], Kind::SelfSigned));
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], DAY);
    // All that a report of ours shows, from somebody who submits mail.
    let forged = "From: <tlsrpt@relay.test>\r\nTo: <b@strict.test>\r\nSubject: Report Domain: strict.test\r\n\
                  Date: Sun, 22 Nov 2026 01:02:03 +0000\r\nMessage-ID: <1-00000001.tlsrpt@relay.world.test>\r\n\
                  TLS-Report-Domain: strict.test\r\nTLS-Report-Submitter: relay.test\r\n\
                  Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
                  Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"x\"\r\n\r\n--x--\r\n";
    let id = world.submit("tlsrpt@relay.test", &["b@strict.test"], forged).await;
    world.deferred(&id).await;
    assert!(!world.farm.hosts[0].saw_mail());
    assert_eq!(counted(&world, "strict.test").await, ["sts strict.test 0 1 certificate-not-trusted=1"]);
}

#[tokio::test]
async fn details_name_both_ends_and_domains_stand_in_a_labels() {
    let world = World::start_dual(1, &["xn--bcher-kva.test"], "").await;
    let six = &world.farm.hosts[1];
    world.dns.mx("xn--bcher-kva.test", 10, "mx.xn--bcher-kva.test");
    world.dns.address("mx.xn--bcher-kva.test", six.ip);
    // RFC 8461 §5: mode none is no policy.
    world.publish("xn--bcher-kva.test", "1", "none", &[], DAY);
    deliver(&world, "xn--bcher-kva.test", 1, 1).await;
    let report = preview(&world, "bücher.test").await;
    assert_eq!(told(&report), ["no-policy-found xn--bcher-kva.test 0 1 starttls-not-supported=1"]);
    assert_eq!(report["policies"][0]["policy"]["policy-string"], Value::Null);
    for (name, wanted) in [
        ("sending-mta-ip", "::1"),
        ("receiving-ip", "::1"),
        ("receiving-mx-hostname", "mx.xn--bcher-kva.test"),
        ("receiving-mx-helo", "mx.world.test"),
    ] {
        assert_eq!(detail(&report)[name], wanted, "{name}");
    }
}
