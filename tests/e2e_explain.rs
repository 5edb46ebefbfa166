//! The verbs that explain: `explain` asked of the daemon, `check` and `publish` without one.

mod support;

use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::daemon::Daemon;
use support::dns::{Dns, Fault};
use support::mx::{Behaviour, StartTls};
use support::pki::{Kind, Pki};
use support::web::{Page, Web};
use support::world::World;

const WEEKS: u32 = 14 * 86_400;

fn lines_fit(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[tokio::test]
async fn explain_tells_of_each_host_what_would_be_done_and_connects_without_mail() {
    let world = World::start(4, &["shop.test", "plain.test"], "").await;
    world.route("shop.test", 10, "stray.shop.test", 0);
    world.route("shop.test", 20, "bad.shop.test", 1);
    world.route("shop.test", 30, "good.shop.test", 2);
    world.farm.hosts[0].behave(world.secured(&["stray.shop.test"], Kind::Good));
    world.farm.hosts[1].behave(world.secured(&["bad.shop.test"], Kind::Expired));
    world.farm.hosts[2].behave(world.secured(&["good.shop.test"], Kind::Good));
    world.publish("shop.test", "s1", "enforce", &["bad.shop.test", "good.shop.test"], WEEKS);

    // Nothing is in the cache yet: the policy is fetched as for mail.
    let shop = world.daemon.json(&["explain", "user@shop.test"]).await.remove(0);
    assert_eq!(shop["destination"], "shop.test");
    assert_eq!(shop["mx"]["records"][0], "10 stray.shop.test", "{shop}");
    assert_eq!(shop["record"]["id"], "s1", "{shop}");
    assert_eq!(shop["policy"]["applies"]["mode"], "enforce", "{shop}");
    assert_eq!(shop["policy"]["held"]["id"], "s1", "{shop}");
    assert_eq!(shop["conclusion"]["mail"], "goes", "{shop}");
    let hosts = shop["hosts"].as_array().expect("hosts");
    assert_eq!(hosts[0]["verdict"]["usable"], false, "{shop}");
    assert_eq!(hosts[0]["verdict"]["rule"], "sts-enforce", "{shop}");
    assert_eq!(hosts[0]["tls_rpt"][0]["failures"][0]["result_type"], "validation-failure", "{shop}");
    assert_eq!(hosts[1]["verdict"]["require"], "pkix", "{shop}");
    assert!(world.farm.hosts.iter().all(|host| host.log().connections == 0));

    let shop = world.daemon.json(&["explain", "shop.test", "--connect"]).await.remove(0);
    let tries = |host: usize| shop["hosts"][host]["tries"][0].clone();
    let (stray, bad, good) = (tries(0), tries(1), tries(2));
    assert_eq!(stray["tls"]["certificate_trouble"], Value::Null, "{shop}");
    assert_eq!(bad["tls_rpt"][0]["failures"][0]["result_type"], "certificate-expired", "{shop}");
    assert!(bad["trouble"]["text"].as_str().expect("a sentence").contains("expired"), "{shop}");
    assert_eq!(good["tls"]["version"], "TLSv1.3", "{shop}");
    assert_eq!(good["trouble"], Value::Null, "{shop}");
    assert_eq!(good["tls_rpt"][0]["failures"].as_array().map(Vec::len), Some(0), "{shop}");
    let conclusion = shop["conclusion"]["text"].as_str().expect("a sentence");
    assert!(conclusion.starts_with("to good.shop.test at 127."), "{conclusion}");
    assert!(world.farm.hosts.iter().all(|host| !host.saw_mail()), "no envelope is ever sent");
    // Looking is not mail: nothing is counted for the report of the day.
    assert!(world.daemon.json(&["report", "preview", "shop.test"]).await.is_empty());

    let text = world.daemon.ask(&["explain", "shop.test", "--connect"]).await;
    lines_fit(&text);
    assert!(text.contains("stray.shop.test is not listed in the MTA-STS policy of shop.test"), "{text}");

    // Without a policy mail goes in clear where TLS does not work, and the explanation says so.
    world.route("plain.test", 10, "mx.plain.test", 3);
    world.farm.hosts[3].behave(Behaviour::clear());
    let plain = world.daemon.json(&["explain", "plain.test", "--connect"]).await.remove(0);
    assert_eq!(plain["policy"]["applies"], Value::Null, "{plain}");
    assert_eq!(plain["hosts"][0]["verdict"]["require"], "nothing", "{plain}");
    let said = plain["conclusion"]["text"].as_str().expect("a sentence");
    assert!(said.contains("in clear"), "{plain}");

    world.farm.hosts[3].adjust(|behaviour| behaviour.starttls = StartTls::Garbage);
    let plain = world.daemon.json(&["explain", "plain.test", "--connect"]).await.remove(0);
    let tries = plain["hosts"][0]["tries"].as_array().expect("tries");
    assert_eq!(tries.len(), 2, "{plain}");
    assert_eq!(tries[0]["tls_rpt"][0]["failures"][0]["result_type"], "validation-failure", "{plain}");
    assert_eq!((&tries[1]["in_clear"], &tries[1]["trouble"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(plain["conclusion"]["mail"], "goes", "{plain}");

    let nowhere = world.daemon.json(&["explain", "nowhere.test"]).await.remove(0);
    assert_eq!(nowhere["conclusion"]["mail"], "bounces", "{nowhere}");
    let outside = world.daemon.json(&["explain", "a@[10.9.8.7]", "--connect"]).await.remove(0);
    assert_eq!(outside["conclusion"]["mail"], "waits", "{outside}");
    assert!(outside["hosts"][0]["addresses"][0]["refused"].is_string(), "{outside}");
}

#[tokio::test]
async fn explain_says_as_a_deferral_does_why_mail_waits() {
    let rule =
        "[[policy.override]]\ndomain = \"free.test\"\nrequire = \"ignore-sts\"\nreason = \"ticket 7\"\n";
    let world = World::start(2, &["held.test", "free.test"], rule).await;
    for (index, domain) in ["held.test", "free.test"].iter().enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index);
        world.farm.hosts[index].behave(world.secured(&[&mx], Kind::Good));
        world.publish(domain, "1", "enforce", &["elsewhere.test"], WEEKS);
    }
    let id = world.submit("a@home.test", &["b@held.test"], "Subject: x\r\n\r\nx\r\n").await;
    let item = world.deferred(&id).await.remove(0);
    let deferred = item["history"][0]["result"].as_str().expect("a sentence");
    let held = world.daemon.json(&["explain", "held.test"]).await.remove(0);
    assert_eq!(held["conclusion"]["mail"], "waits", "{held}");
    let said = held["conclusion"]["text"].as_str().expect("a sentence");
    assert_eq!(deferred, format!("deferred: {said}"));

    let free = world.daemon.json(&["explain", "free.test"]).await.remove(0);
    assert_eq!(free["local"]["rule"], "ignore-sts", "{free}");
    assert_eq!(free["local"]["reason"], "ticket 7", "{free}");
    assert_eq!(free["conclusion"]["mail"], "goes", "{free}");
}

#[tokio::test]
async fn explain_tells_what_a_message_with_requiretls_meets_and_when_nothing_is_tried_at_all() {
    let world = World::start(2, &["strict.test"], "").await;
    world.good_domain("bare.test", 0);
    world.route("strict.test", 10, "mx.strict.test", 1);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], WEEKS);
    let mut behaviour = world.secured(&["mx.strict.test"], Kind::Good);
    behaviour.extensions.push("REQUIRETLS".to_owned());
    world.farm.hosts[1].behave(behaviour);
    let bare = world.daemon.json(&["explain", "bare.test", "--connect"]).await.remove(0);
    let host = &bare["hosts"][0];
    assert_eq!((&host["verdict"]["usable"], &host["requiretls"]["usable"]), (&true.into(), &false.into()));
    assert_eq!(host["tries"][0]["offers_requiretls"], false, "{bare}");
    let told = world.daemon.ask(&["explain", "bare.test"]).await;
    lines_fit(&told);
    assert!(told.contains("with REQUIRETLS:"), "{told}");
    let strict = world.daemon.json(&["explain", "strict.test", "--connect"]).await.remove(0);
    assert_eq!(strict["hosts"][0]["requiretls"]["require"], "pkix", "{strict}");
    assert_eq!(strict["hosts"][0]["tries"][0]["offers_requiretls"], true, "{strict}");

    assert_eq!((&bare["pause"], &bare["conclusion"]["mail"]), (&Value::Null, &"goes".into()), "{bare}");
    world.daemon.ask(&["queue", "freeze", "bare.test", "--reason", "moving house"]).await;
    let frozen = world.daemon.json(&["explain", "bare.test"]).await.remove(0);
    assert_eq!(frozen["conclusion"]["mail"], "waits", "{frozen}");
    let told = world.daemon.ask(&["explain", "bare.test"]).await;
    lines_fit(&told);
    assert!(told.contains("queued mail is not tried"), "{told}");
    let why = frozen["pause"]["text"].as_str().expect("a sentence");
    assert!(why.contains("has stopped deliveries to bare.test: moving house"), "{frozen}");
}

#[tokio::test]
async fn check_finds_what_a_domains_owner_must_mend_without_a_daemon() {
    let domains = ["good.test", "moved.test", "html.test", "stray.test", "bare.test"];
    // The certificate of the policy hosts does not name this one.
    let world = World::prepare(0, &domains, "").await;
    world.dns.address("mta-sts.unnamed.test", world.web.address.ip());
    for domain in domains.iter().chain(&["unnamed.test"]) {
        let mx = format!("mx.{domain}");
        world.dns.mx(domain, 10, &mx);
        world.publish(domain, "1", "enforce", &[&mx], WEEKS);
        world.dns.txt(&format!("_smtp._tls.{domain}"), &format!("v=TLSRPTv1; rua=mailto:r@{domain}"));
    }
    let moved = "Location: https://mta-sts.good.test/.well-known/mta-sts.txt\r\n".to_owned();
    world.web.set("mta-sts.moved.test", Page { headers: moved, ..Page::status(301) });
    world.web.set("mta-sts.html.test", Page { content_type: "text/html".to_owned(), ..Page::policy("x") });
    world.dns.mx("stray.test", 20, "other.stray.test");
    world.dns.remove("_mta-sts.bare.test", RecordType::TXT);
    world.dns.remove("_smtp._tls.bare.test", RecordType::TXT);
    world.web.set("mta-sts.bare.test", Page::status(404));

    let codes = |findings: &[Value]| -> Vec<String> {
        let wrong = findings.iter().filter(|finding| finding["severity"] != "INFO");
        wrong
            .map(|f| format!("{} {}", f["severity"].as_str().unwrap_or(""), f["code"].as_str().unwrap_or("")))
            .collect()
    };
    for (domain, want) in [
        ("good.test", &[][..]),
        ("moved.test", &["HIGH policy-redirect"]),
        ("html.test", &["HIGH policy-content-type"]),
        ("unnamed.test", &["HIGH policy-certificate"]),
        ("stray.test", &["HIGH mx-not-listed"]),
        ("bare.test", &["HIGH record-missing", "HIGH policy-status", "MEDIUM tlsrpt-missing"]),
    ] {
        let found = world.daemon.json(&["check", domain]).await;
        assert_eq!(codes(&found), want, "{domain}: {found:?}");
        let output = world.daemon.cli(&["check", domain]).await;
        assert_eq!(output.status.code(), Some(i32::from(!want.is_empty())), "{domain}");
        lines_fit(&String::from_utf8_lossy(&output.stdout));
    }
    world.dns.fault("good.test", RecordType::MX, Some(Fault::ServFail));
    let output = world.daemon.cli(&["check", "good.test"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("DNS did not answer") && error.contains("good.test MX"), "{error}");
}

#[tokio::test]
async fn check_looks_at_the_hosts_themselves_where_it_is_asked_to() {
    let world = World::prepare(3, &["shop.test"], "").await;
    let hosts = ["good.shop.test", "old.shop.test", "bare.shop.test", "gone.shop.test"];
    for (index, host) in hosts[..3].iter().enumerate() {
        world.route("shop.test", 10, host, index);
    }
    world.dns.mx("shop.test", 20, hosts[3]);
    world.publish("shop.test", "1", "enforce", &hosts, WEEKS);
    world.dns.txt("_smtp._tls.shop.test", "v=TLSRPTv1; rua=mailto:r@shop.test");
    world.farm.hosts[0].behave(world.secured(&[hosts[0]], Kind::Good));
    world.farm.hosts[1].behave(world.secured(&[hosts[1]], Kind::Expired));
    assert_eq!(world.daemon.cli(&["check", "shop.test"]).await.status.code(), Some(0), "nobody looked");
    let found = world.daemon.json(&["check", "shop.test", "--connect"]).await;
    let of = |code: &str| -> Vec<String> {
        let of_code = found.iter().filter(|finding| finding["code"] == code);
        of_code.map(|f| format!("{} {}", f["severity"], f["text"].as_str().unwrap_or_default())).collect()
    };
    let (certificate, no_tls, unreachable) = (of("mx-certificate"), of("mx-no-tls"), of("mx-unreachable"));
    assert!(certificate[0].contains("HIGH") && certificate[0].contains(hosts[1]), "{found:?}");
    assert!(no_tls[0].contains("HIGH") && no_tls[0].contains(hosts[2]), "{found:?}");
    assert!(unreachable[0].contains("LOW") && unreachable[0].contains(hosts[3]), "{found:?}");
    assert_eq!((certificate.len(), no_tls.len(), unreachable.len()), (1, 1, 1), "{found:?}");
    let output = world.daemon.cli(&["check", "shop.test", "--connect"]).await;
    assert_eq!(output.status.code(), Some(1));
    lines_fit(&String::from_utf8_lossy(&output.stdout));
    assert!(world.farm.hosts.iter().all(|host| !host.saw_mail()));
}

#[tokio::test]
async fn check_tells_of_a_policy_hosts_certificate_that_ends_soon() {
    let (pki, dns) = (Pki::new(), Dns::start().await);
    let host = "mta-sts.late.test";
    let web = Web::start(pki.leaf(&[host], Kind::EndsSoon).server_config()).await;
    dns.address(host, web.address.ip());
    dns.mx("late.test", 10, "mx.late.test");
    dns.txt("_mta-sts.late.test", "v=STSv1; id=1;");
    dns.txt("_smtp._tls.late.test", "v=TLSRPTv1; rua=http://r.late.test/,mailto:r@late.test");
    let policy = format!("version: STSv1\nmode: testing\nmx: mx.late.test\nmax_age: {WEEKS}\n");
    web.set(host, Page::policy(&policy));
    let daemon = Daemon::configure(&pki, &dns, &web, 25, "");
    let found = daemon.json(&["check", "late.test"]).await;
    let codes: Vec<&str> = found.iter().filter_map(|finding| finding["code"].as_str()).collect();
    assert_eq!(codes[..3], ["mode-testing", "certificate-ends-soon", "tlsrpt-target"], "{found:?}");
    assert_eq!(daemon.cli(&["check", "late.test"]).await.status.code(), Some(0), "nothing is HIGH");
}

#[tokio::test]
async fn publish_warns_when_dns_names_other_hosts() {
    let world = World::prepare(0, &[], "").await;
    world.dns.mx("shop.test", 10, "mx.shop.test");
    world.dns.mx("shop.test", 20, "backup.shop.test");
    let publish = ["publish", "shop.test", "--mode", "enforce", "--rua", "mailto:r@shop.test"];
    let made = |hosts: &'static [&str]| {
        let arguments = [&publish[..], &["--mx"], hosts].concat();
        let daemon = &world.daemon;
        async move { daemon.json(&arguments).await.remove(0)["warnings"].as_array().expect("a list").clone() }
    };
    assert!(made(&["*.shop.test"]).await.is_empty());
    let warnings = made(&["mx.shop.test", "gone.shop.test"]).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].as_str().expect("text").contains("backup.shop.test"), "{warnings:?}");
    assert!(warnings[1].as_str().expect("text").contains("gone.shop.test"), "{warnings:?}");
}
