//! The status page of the real daemon, as a browser without scripts uses it.

mod support;

use std::fs;
use std::net::SocketAddr;

use support::client::message;
use support::daemon::free_addresses;
use support::mx::Behaviour;
use support::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TOKEN: &str = "0123456789abcdef";

/// A browser that keeps its cookies.
struct Browser {
    site: SocketAddr,
    cookies: Vec<String>,
}

struct Page {
    status: u16,
    head: String,
    body: String,
}

impl Browser {
    fn new(site: SocketAddr) -> Self {
        Self { site, cookies: Vec::new() }
    }

    async fn say(&mut self, method: &str, path: &str, fields: &str, body: &str) -> Page {
        let mut stream = tokio::net::TcpStream::connect(self.site).await.expect("HTTP is served");
        let cookies = match self.cookies.as_slice() {
            [] => String::new(),
            some => format!("Cookie: {}\r\n", some.join("; ")),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{cookies}{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.site,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        for line in head.lines() {
            if let Some(cookie) = line.strip_prefix("set-cookie: ") {
                let pair = cookie.split(';').next().expect("a pair").to_owned();
                let name = pair.split('=').next().expect("a name").to_owned();
                self.cookies.retain(|known| !known.starts_with(&format!("{name}=")));
                self.cookies.push(pair);
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Page { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A page, and the one it leads to.
    async fn look(&mut self, path: &str) -> Page {
        let page = self.say("GET", path, "", "").await;
        match page.location() {
            Some(to) => Box::pin(self.look(&to)).await,
            None => page,
        }
    }

    /// Sends a form from a page of ours, and looks at the page it leads to.
    async fn send(&mut self, path: &str, body: &str) -> Page {
        let fields = format!(
            "Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            self.site
        );
        let page = self.say("POST", path, &fields, body).await;
        match page.location() {
            Some(to) => self.look(&to).await,
            None => page,
        }
    }
}

impl Page {
    fn location(&self) -> Option<String> {
        let line = self.head.lines().find_map(|line| line.strip_prefix("location: "));
        line.filter(|_| self.status == 303).map(str::to_owned)
    }

    fn code(&self) -> &str {
        let (_, rest) = self.body.split_once("name=\"code\" value=\"").expect("a form");
        rest.split('"').next().expect("its code")
    }

    fn says(&self, words: &str) -> bool {
        self.body.contains(words)
    }
}

async fn with_token(hosts: u8, domains: &[&str]) -> (World, Browser) {
    let [http] = free_addresses();
    let mut world = World::prepare(hosts, domains, "").await;
    let token = world.daemon.path("token");
    fs::write(&token, format!("{TOKEN}\n")).expect("writable");
    let extra = format!("[admin]\nhttp = \"{http}\"\ntoken_file = \"{}\"\n", token.display());
    fs::write(world.daemon.path("stsrelay.d/http.toml"), extra).expect("writable");
    world.daemon.start().await;
    (world, Browser::new(http))
}

#[tokio::test]
async fn what_became_of_mail_can_be_seen_and_acted_on() {
    let (mut world, mut browser) = with_token(2, &["good.test"]).await;
    world.good_domain("good.test", 0);
    world.publish("good.test", "1", "enforce", &["mx.good.test"], 86_400);
    world.route("later.test", 10, "mx.later.test", 1);
    let attack = "451 4.7.1 <script>alert(1)</script> \"later\"";
    world.farm.hosts[1].behave(Behaviour::clear().answering("MAIL", attack));

    // Nobody sees anything without the token.
    for path in ["/", "/queue", "/destination?name=good.test"] {
        let page = browser.say("GET", path, "", "").await;
        assert!(page.location().is_some_and(|to| to.starts_with("/login")), "{}", page.head);
    }
    let page = browser.send("/login", "token=wrong").await;
    assert!(page.status == 403 && page.says("That is not the token"), "{}", page.body);
    let page = browser.send("/login", &format!("token={TOKEN}&to=%2F")).await;
    assert!(page.status == 200 && page.says("Nothing was delivered"), "{}", page.body);

    let delivered = world.submit("a@home.test", &["b@good.test", "c@good.test"], &message("first")).await;
    world.arrivals(0, 1).await;
    world.drained().await;
    let deferred = world.submit("a@home.test", &["b@later.test"], &message("second")).await;
    world.deferred(&deferred).await;

    let page = browser.look("/").await;
    for words in ["Delivered: 2 in all", "Deferred: 1 in all", "100.0 %", "validated", "takes mail"] {
        // Whether the test's name server validates is not the point here.
        assert!(words == "validated" || page.says(words), "{words}: {}", page.body);
    }
    let page = browser.look(&format!("/message?id={delivered}")).await;
    for words in ["delivered", "mta-sts enforce", "chain SHA-256", "mx.good.test", "TLSv1.3"] {
        assert!(page.says(words), "{words}: {}", page.body);
    }
    let page = browser.look(&format!("/search?q={deferred}")).await;
    assert!(page.says("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.says("<script"), "{}", page.body);
    let page = browser.look("/search?q=good.test").await;
    for words in
        ["Mail goes, as far as is known without connecting", "MTA-STS policy in the cache", "lists it"]
    {
        assert!(page.says(words), "{words}: {}", page.body);
    }
    let page = browser.look("/report/preview?domain=good.test").await;
    assert!(page.says("<strong>1</strong> sessions met it"), "{}", page.body);
    // Totals are kept for a moment.
    for name in ["good.test", "later.test"] {
        support::eventually(&format!("{name} among the destinations"), || async {
            let mut same = Browser { site: browser.site, cookies: browser.cookies.clone() };
            same.look("/destinations").await.says(&format!("/destination?name={name}")).then_some(())
        })
        .await;
    }

    // Held and released by forms.
    let page = browser.look("/queue").await;
    let item = format!("action=hold&item={deferred}.0&back=%2Fqueue&code={}", page.code());
    let page = browser.send("/queue/act", &item).await;
    assert!(page.says("1 item held") && page.says("when released"), "{}", page.body);
    let item = world.daemon.json(&["queue", "show", &deferred]).await.remove(0);
    assert_eq!(item["state"], "held", "{item}");
    world.farm.hosts[1].behave(Behaviour::clear());
    let page = browser.look("/queue?state=held").await;
    let all = format!("action=release&scope=fitting&state=held&code={}", page.code());
    let page = browser.send("/queue/act", &all).await;
    assert!(page.says("Release 1 item?"), "{}", page.body);
    browser.send("/queue/act", &format!("{all}&step=seen")).await;
    world.arrivals(1, 1).await;
    world.drained().await;

    // What was counted outlives the process; who was logged in does not.
    assert_eq!(world.daemon.stop().await, Some(0));
    world.daemon.start().await;
    let page = browser.look("/").await;
    assert!(page.says("Log in"), "{}", page.body);
    let page = browser.send("/login", &format!("token={TOKEN}")).await;
    assert!(page.says("Delivered: 3 in all"), "{}", page.body);
    assert!(!world.daemon.log().contains("ERROR"), "{}", world.daemon.log());
}

#[tokio::test]
async fn another_sites_page_cannot_act_with_the_operators_browser() {
    let (world, mut browser) = with_token(1, &[]).await;
    world.route("later.test", 10, "mx.later.test", 0);
    world.farm.hosts[0].behave(Behaviour::clear().answering("MAIL", "451 4.7.1 later"));
    let id = world.submit("a@home.test", &["b@later.test"], &message("first")).await;
    world.deferred(&id).await;
    let page = browser.send("/login", &format!("token={TOKEN}&to=%2Fqueue")).await;
    let form = format!("action=delete&item={id}.0&step=seen&code={}", page.code());
    let site = browser.site;
    for (fields, body) in [
        ("Origin: http://evil.example\r\n".to_owned(), form.as_str()),
        ("Origin: null\r\n".to_owned(), form.as_str()),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), form.as_str()),
        // Another port of this host is the same site to cookies.
        (format!("Origin: http://{}:{}\r\n", site.ip(), site.port() ^ 1), form.as_str()),
        ("Sec-Fetch-Site: same-site\r\n".to_owned(), form.as_str()),
        (format!("Origin: http://{site}\r\n"), &form[..form.len() - 1]),
        (format!("Origin: http://{site}\r\n"), form.split("&code").next().expect("a part")),
    ] {
        let page = browser.say("POST", "/queue/act", &fields, body).await;
        assert_eq!(page.status, 403, "{fields}{body}: {}", page.body);
    }
    let mut stranger = Browser::new(site);
    let fields = format!("Origin: http://{site}\r\n");
    let page = stranger.say("POST", "/queue/act", &fields, &form).await;
    assert!(page.location().is_some_and(|to| to.starts_with("/login")), "{}", page.head);
    assert_eq!(world.daemon.json(&["queue", "list"]).await.len(), 1, "nothing was deleted");
    let page = browser.send("/queue/act", &form).await;
    assert!(page.status == 200 && world.daemon.json(&["queue", "list"]).await.is_empty(), "{}", page.body);
}

#[tokio::test]
async fn without_a_token_the_page_shows_and_changes_nothing() {
    let [http] = free_addresses();
    let world = World::start(1, &[], &format!("[admin]\nhttp = \"{http}\"\n")).await;
    let mut browser = Browser::new(http);
    for path in ["/", "/queue", "/destinations", "/reports", "/changes", "/suppressions"] {
        let page = browser.look(path).await;
        assert!(page.status == 200 && !page.says("method=\"post\""), "{path}: {}", page.body);
        assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    }
    let page = browser.send("/queue/act", "action=hold&scope=fitting").await;
    assert_eq!(page.status, 403, "{}", page.body);
    drop(world);
}

#[tokio::test]
async fn a_damaged_history_is_told_and_begun_anew() {
    let [http] = free_addresses();
    let mut world = World::prepare(1, &[], &format!("[admin]\nhttp = \"{http}\"\n")).await;
    fs::create_dir(world.daemon.data_dir()).expect("writable");
    fs::write(world.daemon.data_dir().join("history"), "stsrelay-history 9 00000000\n{}").expect("writable");
    world.daemon.start().await;
    assert!(world.daemon.log().contains("is of format 9"), "{}", world.daemon.log());
    assert_eq!(Browser::new(http).look("/").await.status, 200);
}
