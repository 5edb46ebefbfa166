//! The API over HTTP: the same facts as the command line, as `config/openapi.json` says, and who may ask.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use stsrelay::net::{Clock as _, SystemClock};

use support::client::message;
use support::daemon::{HOSTNAME, free_addresses};
use support::http::{Answer, Http};
use support::schema::Description;
use support::world::World;

const DAY: u32 = 86_400;
const TOKEN: &str = "sesame-open-0123456789";
const READ_TOKEN: &str = "sesame-show-0123456789";
const REPORTING: &str = r#"
[tlsrpt]
organization_name = "World Relay"
contact_info = "postmaster@relay.test"
from = "tlsrpt@relay.test"
retry = ["1s"]
"#;

/// The API, and the description that every answer is held to.
struct Api {
    http: Http,
    description: Description,
}

impl Api {
    fn new(http: Http) -> Self {
        Self { http, description: Description::read() }
    }

    /// GET of a path with values in it; the template is the path as described.
    async fn get(&self, template: &str, path: &str, status: u16) -> Value {
        let answer = self.http.get(&format!("/api/v1{path}")).await;
        self.checked("GET", template, &answer, status)
    }

    async fn post(&self, template: &str, path: &str, body: Value, status: u16) -> Value {
        let answer = self.http.post(&format!("/api/v1{path}"), &body).await;
        self.checked("POST", template, &answer, status)
    }

    fn checked(&self, method: &str, template: &str, answer: &Answer, status: u16) -> Value {
        assert_eq!(answer.status, status, "{method} {template}: {answer:?}");
        self.description.check(method, template, answer);
        let value = answer.json();
        if status >= 400 {
            assert_eq!(value["status"], status, "{value}");
        }
        value
    }

    /// All entries of a list, two at a time.
    async fn all(&self, template: &str, query: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(template, &format!("{template}?limit=2{query}{cursor}"), 200).await;
            let found = page["items"].as_array().expect("items").clone();
            assert!(found.len() <= 2, "{page}");
            items.extend(found);
            let Some(next) = page["next"].as_str() else { return items };
            cursor = format!("&cursor={next}");
        }
    }
}

fn today() -> String {
    SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn over_http(http: std::net::SocketAddr) -> String {
    format!(
        "{REPORTING}[admin]\nhttp = \"{http}\"\ntoken_file = \"token\"\nread_token_file = \"read-token\"\n"
    )
}

/// A daemon with the API on TCP, asked with the token that acts.
async fn world(domains: &[&str]) -> (World, Api) {
    let [http] = free_addresses();
    let mut world = World::prepare(3, domains, &over_http(http)).await;
    for (name, token) in [("token", TOKEN), ("read-token", READ_TOKEN)] {
        fs::write(world.daemon.path(name), format!("{token}\n")).expect("writable");
        fs::set_permissions(world.daemon.path(name), fs::Permissions::from_mode(0o600)).expect("ours");
    }
    world.daemon.start().await;
    (world, Api::new(Http::tcp(http).with_token(TOKEN)))
}

/// `sts.test` enforces and takes mail, `later.test` says later; reports of today go to an endpoint that takes
/// them and to an address that does not.
async fn traffic(world: &World) {
    for (host, domain) in ["sts.test", "later.test", "rua.test"].iter().enumerate() {
        world.good_domain(domain, host);
    }
    world.publish("sts.test", "1", "enforce", &["mx.sts.test"], DAY);
    let port = world.web.address.port();
    let targets =
        format!("v=TLSRPTv1; rua=mailto:nobody@rua.test,https://reports.world.test:{port}/v1/tlsrpt");
    world.dns.set_txt("_smtp._tls.sts.test", &targets);
    world.farm.hosts[2].adjust(|mx| mx.replies.push(("RCPT".into(), "550 5.1.1 nobody".into())));
    world.farm.hosts[1].adjust(|mx| mx.dot = "451 4.3.0 later".into());
    for (to, domain) in [("b", "sts.test"), ("c", "later.test"), ("d", "later.test"), ("e", "later.test")] {
        let id = world.submit("a@home.test", &[&format!("{to}@{domain}")], &message(to)).await;
        if domain == "later.test" {
            world.deferred(&id).await;
        }
    }
    world.arrivals(0, 1).await;
}

/// Without what differs from one asking to the next.
fn steady(mut value: Value) -> Value {
    for name in ["uptime", "at", "made-at", "report-id", "date-range"] {
        value.as_object_mut().map(|members| members.remove(name));
    }
    for answer in ["mx", "record"] {
        value.get_mut(answer).and_then(Value::as_object_mut).map(|members| members.remove("ttl"));
    }
    value
}

#[tokio::test]
async fn the_api_tells_what_the_command_line_tells() {
    let (world, api) = world(&["sts.test"]).await;
    traffic(&world).await;
    let daemon = &world.daemon;
    daemon.json(&["report", "send", "--day", &today()]).await;
    support::eventually("the report's mail to be refused", || async {
        (!daemon.json(&["report", "targets"]).await.is_empty()).then_some(())
    })
    .await;
    daemon.ask(&["queue", "freeze", "frozen.test", "--reason", "a test"]).await;
    daemon.ask(&["suppression", "add", "x@sts.test"]).await;
    daemon.ask(&["suppression", "add", "y@sts.test"]).await;

    for (verb, path, query) in [
        (&["queue", "list"][..], "/queue/items", ""),
        (
            &["queue", "list", "--recipient-domain", "none.test"],
            "/queue/items",
            "&recipient_domain=none.test",
        ),
        (&["policy", "list"], "/policies", ""),
        (&["policy", "changes"], "/changes", ""),
        (&["evidence", "--recipient-domain", "later.test"], "/evidence", "&recipient_domain=later.test"),
        (&["report", "list"], "/reports", ""),
        (&["report", "targets"], "/report-targets", ""),
        (&["suppression", "list"], "/suppressions", ""),
    ] {
        let told = daemon.json(verb).await;
        assert_eq!(api.all(path, query).await, told, "{verb:?}");
        let whole = api.get(path, &format!("{path}?cursor=&limit=200{query}"), 200).await;
        assert_eq!((&whole["items"], &whole["next"]), (&Value::Array(told.clone()), &Value::Null));
        let few = told.is_empty() && !verb.contains(&"none.test") && !verb.contains(&"changes");
        assert!(!few, "{verb:?} lists nothing");
    }
    let items = daemon.json(&["queue", "list"]).await;
    assert_eq!(items.len(), 3, "{items:?}");
    let id = items[0]["id"].as_str().expect("an id");
    let day = today();
    for (verb, template, path) in [
        (&["status"][..], "/status", "/status".to_owned()),
        (&["queue", "show", id], "/queue/items/{id}", format!("/queue/items/{id}")),
        (&["queue", "stats"], "/queue/stats", "/queue/stats".to_owned()),
        (&["policy", "show", "sts.test"], "/policies/{domain}", "/policies/sts.test".to_owned()),
        (&["explain", "<b@sts.test>"], "/explain", "/explain?to=%3Cb@sts.test%3E".to_owned()),
        (
            &["explain", "later.test", "--connect"],
            "/explain",
            "/explain?to=later.test&connect=true".to_owned(),
        ),
        (
            &["report", "show", "sts.test", "--day", &day],
            "/reports/{day}/{domain}",
            format!("/reports/{day}/sts.test"),
        ),
        (&["report", "show", "sts.test"], "/reports/{day}/{domain}", "/reports/latest/sts.test".to_owned()),
        (&["report", "preview", "later.test"], "/previews/{domain}", "/previews/later.test".to_owned()),
        (&["report", "digest", "--day", &day], "/digest", format!("/digest?day={day}")),
        (
            &["suppression", "show", "x@sts.test"],
            "/suppressions/{address}",
            "/suppressions/x@sts.test".to_owned(),
        ),
    ] {
        let told = daemon.json(verb).await;
        assert_eq!(told.len(), 1, "{verb:?}");
        let [told, said] = [told[0].clone(), api.get(template, &path, 200).await].map(steady);
        // What an attempt with a connection shows differs in its ports.
        if !verb.contains(&"--connect") {
            assert_eq!(said, told, "{verb:?}");
        }
    }
    let status = api.get("/status", "/status", 200).await;
    assert_eq!((&status["hostname"], &status["ready"]), (&HOSTNAME.into(), &true.into()), "{status}");
    assert_eq!(status["listeners"].as_array().map(Vec::len), Some(4), "{status}");
    let metrics = api.http.get("/metrics").await.body;
    for line in [
        "stsrelay_report_deliveries_total{target=\"https\",outcome=\"accepted\"} 1",
        "stsrelay_report_deliveries_total{target=\"mailto\",outcome=\"queued\"} 1",
        "stsrelay_queue_oldest_seconds{state=\"held\"} 0",
        "stsrelay_dnssec{state=\"broken\"} 0",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} is missing:\n{metrics}");
    }
    let description = api.http.get("/api/v1/openapi.json").await;
    assert_eq!(description.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn what_the_command_line_does_can_be_done_and_undone() {
    let (world, api) = world(&["sts.test"]).await;
    traffic(&world).await;
    let act =
        async |body: Value, status: u16| api.post("/queue/actions", "/queue/actions", body, status).await;
    let count = |done: &Value| done["count"].as_u64().unwrap_or_else(|| panic!("{done}"));
    let held =
        async || api.get("/queue/stats", "/queue/stats", 200).await["held"].as_u64().expect("a number");

    // Nothing is changed by what was not clearly asked for.
    for body in [
        json!({ "action": "delete" }),
        json!({ "action": "delete", "filter": {} }),
        json!({ "action": "delete", "filter": { "recipient-domain": "later.test" } }),
        json!({ "action": "delete", "all": true, "filter": { "sender": "a@home.test" } }),
        json!({ "action": "delete", "filter": { "recipient_domain": "not a domain" } }),
        json!({ "action": "shred", "all": true }),
        json!({ "action": "delete", "all": true, "dryrun": true }),
        json!({ "action": "hold", "all": true, "reason": "nobody is told" }),
        json!([]),
    ] {
        act(body, 400).await;
    }
    let told = act(json!({ "action": "delete", "all": true, "dry_run": true }), 200).await;
    assert_eq!((count(&told), &told["dry_run"], &told["next"]), (3, &true.into(), &Value::Null), "{told}");
    assert_eq!(count(&act(json!({ "action": "hold", "filter": { "state": "deferred" } }), 200).await), 3);
    assert_eq!(held().await, 3);
    let items = api.all("/queue/items", "&state=held").await;
    let [first, second] = [&items[0]["id"], &items[1]["id"]];
    let told = act(json!({ "action": "release", "filter": { "item": first } }), 200).await;
    assert_eq!((count(&told), &told["id"]), (1, first), "{told}");
    let told =
        act(json!({ "action": "bounce", "filter": { "item": second }, "reason": "no more" }), 200).await;
    assert_eq!(count(&told), 1, "{told}");
    let path = format!("/queue/items/{}", second.as_str().expect("an id"));
    api.get("/queue/items/{id}", &path, 404).await;
    assert_eq!(count(&act(json!({ "action": "delete", "filter": { "state": "held" } }), 200).await), 1);
    assert_eq!(held().await, 0);

    let frozen = json!({ "destination": "later.test", "reason": "a test" });
    api.post("/queue/freeze", "/queue/freeze", frozen, 200).await;
    let past = json!({ "destination": "later.test", "until": "2001-01-01T00:00:00Z" });
    assert_eq!(api.post("/queue/freeze", "/queue/freeze", past, 400).await["code"], "past");
    assert_eq!(api.all("/queue/items", "&state=frozen").await.len(), 1);
    let thawed = json!({ "destination": "later.test" });
    assert_eq!(count(&api.post("/queue/thaw", "/queue/thaw", thawed.clone(), 200).await), 1);
    assert_eq!(api.post("/queue/thaw", "/queue/thaw", thawed, 404).await["code"], "not-found");

    let domain = |verb: &str| (format!("/policies/{{domain}}/{verb}"), format!("/policies/sts.test/{verb}"));
    let (template, path) = domain("refresh");
    let found = api.post(&template, &path, json!({}), 200).await;
    assert_eq!((&found["record_id"], &found["policy"]["mode"]), (&"1".into(), &"enforce".into()), "{found}");
    let (template, path) = domain("forget");
    api.post(&template, &path, json!({}), 200).await;
    api.get("/policies/{domain}", "/policies/sts.test", 404).await;
    api.post(&template, &path, json!({}), 404).await;

    let sent = api
        .post("/reports/send", "/reports/send", json!({ "day": today(), "domain": "sts.test" }), 200)
        .await;
    assert_eq!(sent["items"][0]["domain"], "sts.test", "{sent}");
    let target = json!({ "target": "https://nowhere.test/" });
    api.post("/report-targets/forgive", "/report-targets/forgive", target, 404).await;
    for target in api.all("/report-targets", "").await {
        let body = json!({ "target": target["target"] });
        api.post("/report-targets/forgive", "/report-targets/forgive", body, 200).await;
    }
    assert!(api.all("/report-targets", "").await.is_empty());

    let new = json!({ "address": "z@sts.test", "reason": "asked for it", "until": "2100-01-01T00:00:00Z" });
    assert_eq!(api.post("/suppressions", "/suppressions", new, 200).await["by"], "operator");
    let (template, path) = ("/suppressions/{address}/remove", "/suppressions/z@sts.test/remove");
    api.post(template, path, json!({}), 200).await;
    api.post(template, path, json!({}), 404).await;
    assert!(world.daemon.log().contains("queue changed by an operator"));
}

#[tokio::test]
async fn every_refusal_has_the_same_form() {
    let (_world, api) = world(&[]).await;
    let http = &api.http;
    let json_type = "Content-Type: application/json\r\n";
    let large = format!("{{\"reason\":\"{}\"}}", "x".repeat(70 << 10));
    for (method, path, template, fields, body, status, code) in [
        ("GET", "/queue/items?stat=held", "/queue/items", "", "", 400, "bad-query"),
        ("GET", "/queue/items?limit=0", "/queue/items", "", "", 400, "bad-query"),
        ("GET", "/queue/items?limit=201", "/queue/items", "", "", 400, "bad-query"),
        ("GET", "/queue/items?cursor=x", "/queue/items", "", "", 400, "bad-query"),
        ("GET", "/queue/items/seven", "/queue/items/{id}", "", "", 400, "bad-path"),
        ("GET", "/queue/items/1-00000001.0", "/queue/items/{id}", "", "", 404, "not-found"),
        ("GET", "/reports/someday/one.test", "/reports/{day}/{domain}", "", "", 400, "bad-path"),
        ("GET", "/explain", "/explain", "", "", 400, "bad-query"),
        ("GET", "/explain?to=a%20b", "/explain", "", "", 400, "bad-query"),
        ("POST", "/queue/actions", "/queue/actions", json_type, "{", 400, "bad-body"),
        ("POST", "/queue/actions", "/queue/actions", "", "action=delete", 415, "not-json"),
        ("POST", "/queue/actions", "/queue/actions", "Content-Type: text/plain\r\n", "{}", 415, "not-json"),
        ("POST", "/queue/actions", "/queue/actions", json_type, &large, 413, "too-large"),
        (
            "POST",
            "/queue/actions",
            "/queue/actions",
            "Content-Type: application/json\r\nOrigin: http://evil.example\r\n",
            "{}",
            403,
            "cross-site",
        ),
        (
            "POST",
            "/queue/actions",
            "/queue/actions",
            "Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n",
            "{}",
            403,
            "cross-site",
        ),
        ("GET", "/queue/items", "/queue/items", "Host: evil.example\r\n", "", 421, "wrong-host"),
    ] {
        let answer = http.ask(method, &format!("/api/v1{path}"), fields, body).await;
        let problem = api.checked(method, template, &answer, status);
        assert_eq!(problem["code"], code, "{method} {path}");
    }
    // No operation of the description has these.
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "no-such-path"),
        ("GET", "", 404, "no-such-path"),
        ("DELETE", "/queue/items", 405, "wrong-method"),
        ("GET", "/queue/actions", 405, "wrong-method"),
        ("PUT", "/suppressions", 405, "wrong-method"),
    ] {
        let answer = http.ask(method, &format!("/api/v1{path}"), json_type, "{}").await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{answer:?}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        assert_eq!(answer.field("allow").is_some(), status == 405, "{answer:?}");
    }
    let answer = http.ask("OPTIONS", "/api/v1/suppressions", "", "").await;
    assert_eq!((answer.status, answer.field("allow")), (204, Some("GET, HEAD, POST, OPTIONS")), "{answer:?}");
    let answer = http.ask("HEAD", "/api/v1/status", "", "").await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")), "{answer:?}");
    assert_eq!(answer.body, "");
    // No site may read any of it.
    let answer = http.ask("GET", "/api/v1/status", "Origin: http://evil.example\r\n", "").await;
    assert!(answer.field("access-control-allow-origin").is_none(), "{answer:?}");
    // What a dashboard asks for itself is answered.
    let answer = http.ask("GET", "/healthz", "", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn a_token_that_reads_changes_nothing_and_guessers_wait() {
    let (world, api) = world(&[]).await;
    let bare = Http::tcp(address_in(&world.daemon.log()));
    let none = bare.get("/api/v1/status").await;
    api.checked("GET", "/status", &none, 401);
    let reader = bare.with_token(READ_TOKEN);
    for path in ["/metrics", "/healthz", "/api/v1/status", "/api/v1/queue/items"] {
        assert_eq!(reader.get(path).await.status, 200, "{path}");
    }
    let hold = json!({ "action": "hold", "all": true });
    let answer = reader.post("/api/v1/queue/actions", &hold).await;
    assert_eq!(api.checked("POST", "/queue/actions", &answer, 403)["code"], "read-only");
    let answer = reader.get("/api/v1/explain?to=one.test&connect=true").await;
    assert_eq!(api.checked("GET", "/explain", &answer, 403)["code"], "read-only");
    assert_eq!(api.http.post("/api/v1/queue/actions", &hold).await.status, 200);
    for _ in 0..10 {
        assert_eq!(bare.with_token("not-the-token-0123").get("/api/v1/status").await.status, 401);
    }
    let answer = bare.with_token("not-the-token-0123").get("/api/v1/status").await;
    assert_eq!(api.checked("GET", "/status", &answer, 429)["code"], "wrong-tokens");
    assert_eq!(
        answer.field("retry-after").map(|wait| wait.parse::<u64>().is_ok_and(|s| s <= 60)),
        Some(true)
    );
    // The users of a host do not shut each other out.
    assert_eq!(api.http.get("/api/v1/status").await.status, 200);
    assert!(world.daemon.log().contains("wrong admin tokens"));
    assert!(!world.daemon.log().contains(TOKEN) && !world.daemon.log().contains("not-the-token"));
}

/// The address of HTTP as the log tells it.
fn address_in(log: &str) -> std::net::SocketAddr {
    let line = log.lines().find(|line| line.contains("over HTTP")).expect("it is told");
    let (_, rest) = line.split_once("address=").expect("the address");
    rest.split_whitespace().next().expect("an address").parse().expect("an address")
}

#[tokio::test]
async fn on_loopback_without_a_token_everybody_reads_and_nobody_acts() {
    let [http] = free_addresses();
    let _world = World::start(1, &[], &format!("[admin]\nhttp = \"{http}\"\n")).await;
    let api = Api::new(Http::tcp(http));
    api.get("/status", "/status", 200).await;
    let problem =
        api.post("/queue/actions", "/queue/actions", json!({ "action": "hold", "all": true }), 403).await;
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("admin.token_file")), "{problem}");
}

#[tokio::test]
async fn over_a_unix_socket_whoever_may_open_it_acts() {
    let mut world = World::prepare(1, &[], "").await;
    let socket = world.daemon.path("http.sock");
    world.daemon.configure_extra(&format!("[admin]\nhttp = \"unix:{}\"\n", socket.display()));
    world.daemon.start().await;
    for path in [&socket, &world.daemon.path("admin.sock")] {
        let mode = fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{path:?}");
    }
    let api = Api::new(Http::unix(socket.clone()));
    assert_eq!(api.get("/status", "/status", 200).await["hostname"], HOSTNAME);
    let hold = json!({ "action": "hold", "all": true });
    assert_eq!(api.post("/queue/actions", "/queue/actions", hold, 200).await["count"], 0);
    assert_eq!(api.http.get("/readyz").await.status, 200);
    // A second daemon does not take it away; a killed one's is replaced.
    world.daemon.kill();
    assert!(socket.exists());
    world.daemon.start().await;
    assert_eq!(api.get("/status", "/status", 200).await["ready"], true);
    world.daemon.stop().await;
    assert!(!socket.exists());
}
