//! The pages over made-up answers: nothing, plenty, and what somebody hostile would say.

mod made;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request as Asked, StatusCode, header};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use self::made::Made;
use super::{Page, routes};
use crate::admin::http::{HttpOptions, Peer};
use crate::admin::protocol::{QueueAction, Request};
use crate::mail::Domain;

const TOKEN: &str = "a token of the operator";
const READ_TOKEN: &str = "a token that only reads";

/// Every page there is to look at.
const PAGES: [&str; 24] = [
    "/",
    "/?range=hour",
    "/?range=month",
    "/queue",
    "/queue?state=deferred&sender=a@b.example&domain=example.net&older=3600&newer=86400&error=no+route",
    "/queue?null=yes&after=1-00000001.0",
    "/message?id=1-00000001",
    "/message?id=1-00000001.0",
    "/destinations",
    "/destinations?find=EXAMPLE&with=mail",
    "/destinations?after=a.example",
    "/destination?name=example.net",
    "/destination?name=[192.0.2.1]&connect=yes",
    "/reports",
    "/reports?domain=example.net&day=2026-01-10&failed=yes&of=2026-01-09&after=a.example&today=a.example",
    "/report?day=2026-01-10&domain=example.net",
    "/report/preview?domain=example.net",
    "/changes",
    "/changes?domain=example.net&before=7",
    "/suppressions",
    "/suppressions?address=a@b.example",
    "/suppressions?after=a@b.example",
    "/search?q=nobody@nowhere.example",
    "/search?q=some+words",
];

struct Site {
    made: Arc<Made>,
    page: Arc<Page>,
    peer: Peer,
}

struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Site {
    /// Over a Unix socket without a token: everything may be done.
    fn open(made: Made) -> Self {
        Self::with(made, None, None, Peer::Local)
    }

    /// Over TCP with both tokens.
    fn locked(made: Made) -> Self {
        let peer = Peer::Host("192.0.2.1".parse().unwrap());
        Self::with(made, Some(TOKEN), Some(READ_TOKEN), peer)
    }

    fn with(made: Made, token: Option<&str>, read_token: Option<&str>, peer: Peer) -> Self {
        let options = HttpOptions {
            address: "127.0.0.1:8025".parse().unwrap(),
            token: token.map(str::to_owned),
            read_token: read_token.map(str::to_owned),
            hostname: Domain::parse("relay.example.org").unwrap(),
        };
        let made = Arc::new(made);
        let page = Page::over(Box::new(Arc::clone(&made)), options).unwrap();
        Self { made, page, peer }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Told {
        let mut request = Asked::builder().method(method).uri(path).extension(self.peer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let router = routes::<()>(&self.page).with_state(());
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Told { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn look(&self, path: &str) -> Told {
        self.send("GET", path, &[], "").await
    }

    /// A visitor: its cookie and the code of its forms.
    async fn visitor(&self) -> (String, String) {
        let told = self.look("/queue").await;
        let cookie = told.cookie("stsrelay-visitor").unwrap();
        (format!("stsrelay-visitor={cookie}"), told.code())
    }

    async fn log_in(&self, token: &str) -> Told {
        let token = token.replace(' ', "+");
        self.send("POST", "/login", &[], &format!("token={token}&to=%2Fqueue%3Fstate%3Dheld")).await
    }
}

impl Told {
    fn cookie(&self, name: &str) -> Option<String> {
        self.headers.get_all(header::SET_COOKIE).iter().find_map(|field| {
            let (pair, rest) = field.to_str().unwrap().split_once(';').unwrap();
            assert!(rest.contains("HttpOnly") && rest.contains("SameSite=Strict"), "{rest}");
            pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        })
    }

    fn code(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"code\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.headers[header::LOCATION].to_str().unwrap()
    }
}

/// Whether every element that is opened is closed, in order; nothing runs; ids and labels fit together.
fn assert_sound(path: &str, html: &str) {
    const VOID: [&str; 6] = ["meta", "link", "input", "br", "hr", "img"];
    let mut open: Vec<&str> = Vec::new();
    let mut ids: Vec<&str> = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    for piece in html.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("{path}: {piece}"));
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
        if tag.starts_with('!') || VOID.contains(&name) {
        } else if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{path}: {piece}");
        } else {
            open.push(name);
        }
        let value = |field: &str| tag.split_once(field).map(|(_, rest)| rest.split('"').next().unwrap());
        ids.extend(value(" id=\""));
        labels.extend(value(" for=\""));
        labels.extend(value(" aria-labelledby=\""));
        assert!(name != "script" && !tag.contains(" style=") && !tag.contains(" on"), "{path}: {tag}");
        let away = value(" href=\"").or(value(" action=\"")).or(value(" src=\""));
        assert!(
            away.is_none_or(|to| to.starts_with('/') && !to.starts_with("//") || to.starts_with('#')),
            "{tag}"
        );
    }
    assert!(open.is_empty(), "{path}: {open:?}");
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{path}: an id twice in {ids:?}");
    for label in labels {
        assert!(ids.contains(&label), "{path}: nothing is called {label}");
    }
    assert_eq!(html.matches("<h1").count(), 1, "{path}");
    assert!(html.contains("<main") && ids.contains(&"main") && html.contains("<html lang=\"en\">"), "{path}");
    assert!(html.contains("<title>") && !html.contains("<title></title>"), "{path}");
}

fn assert_hardened(path: &str, headers: &HeaderMap) {
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(headers[name], value, "{path}");
    }
}

#[tokio::test]
async fn every_page_is_made_of_nothing_and_of_plenty() {
    for (what, made) in [("nothing", Made::nothing()), ("plenty", Made::plenty())] {
        let site = Site::open(made);
        for path in PAGES {
            let told = site.look(path).await;
            let known = told.status == StatusCode::OK
                || what == "nothing" && told.status == StatusCode::NOT_FOUND && path.starts_with("/message")
                || what == "nothing" && told.status == StatusCode::NOT_FOUND && path.starts_with("/report?")
                || what == "nothing" && told.status == StatusCode::NOT_FOUND && path.starts_with("/report/");
            assert!(known, "{what} {path}: {} {}", told.status, told.body);
            assert_sound(path, &told.body);
            assert_hardened(path, &told.headers);
        }
    }
}

#[tokio::test]
async fn what_others_say_is_escaped_made_visible_and_cut_on_every_page() {
    let site = Site::open(Made::hostile());
    let mut seen = 0;
    for path in PAGES {
        let told = site.look(path).await;
        assert_sound(path, &told.body);
        assert!(!told.body.contains("<script") && !told.body.contains(['\u{202e}', '\u{0}']), "{path}");
        // 10 KB replies, dozens of them.
        assert!(told.body.len() < 600_000, "{path}: {}", told.body.len());
        seen += usize::from(told.body.contains("&lt;script&gt;") && told.body.contains("U+202E"));
    }
    assert!(seen >= 10, "{seen}");
    let told = site.look("/search?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert_sound("search", &told.body);
    assert!(told.body.contains("value=\"&quot;&gt;&lt;script&gt;"), "{}", told.body);
}

#[tokio::test]
async fn destinations_tell_their_policy_their_mail_and_what_they_wait_for() {
    let told = Site::open(Made::plenty()).look("/destinations?find=example.net").await;
    for words in
        ["enforce", "20260101", "in 60 min", "fetch failed", "404", "frozen", "it refused the connection"]
    {
        assert!(told.body.contains(words), "{words}: {}", told.body);
    }
}

#[tokio::test]
async fn nonsense_is_refused_in_words() {
    let site = Site::open(Made::plenty());
    for path in [
        "/queue?domain=a..b",
        "/queue?state=asleep",
        "/queue?older=soon",
        "/queue?after=here",
        "/destination",
        "/destination?name=a..b",
        "/reports?domain=a..b",
        "/reports?day=today",
        "/report?domain=example.net&day=x",
        "/report",
        "/report/preview",
        "/changes?domain=a..b",
        "/changes?before=x",
        "/suppressions?address=nobody",
    ] {
        let told = site.look(path).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{path}: {}", told.body);
        assert_sound(path, &told.body);
    }
}

#[tokio::test]
async fn trouble_in_the_store_is_told_on_every_page() {
    let site = Site::open(Made::troubled());
    for path in
        ["/", "/queue", "/message?id=1-00000001", "/destinations", "/reports", "/changes", "/suppressions"]
    {
        let told = site.look(path).await;
        assert_eq!(told.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert!(told.body.contains("the disk is on fire"), "{path}: {}", told.body);
        assert_sound(path, &told.body);
    }
}

#[tokio::test]
async fn search_leads_to_the_right_page() {
    let site = Site::open(Made::plenty());
    for (q, to) in [
        ("1-00000001", "/message?id=1-00000001"),
        ("1-00000001.0", "/message?id=1-00000001.0"),
        ("%3Cknown@sender.example%3E", "/message?id=known%40sender.example"),
        ("Example.NET", "/destination?name=example.net"),
        ("%5B192.0.2.1%5D", "/destination?name=%5B192.0.2.1%5D"),
        ("", "/"),
    ] {
        assert_eq!(site.look(&format!("/search?q={q}")).await.location(), to, "{q}");
    }
    let told = site.look("/search?q=user@example.net").await;
    for link in ["/queue?sender=user%40example.net", "/queue?domain=example.net", "/suppressions?address="] {
        assert!(told.body.contains(link), "{link}: {}", told.body);
    }
}

#[tokio::test]
async fn a_form_is_believed_only_with_the_code_of_its_visitor() {
    let site = Site::open(Made::plenty());
    let (cookie, code) = site.visitor().await;
    let (other, _) = site.visitor().await;
    let form = |code: &str| format!("action=hold&item=1-00000001.0&back=%2Fqueue&code={code}");
    for (cookie, body) in [
        (Some(&cookie), form("")),
        (Some(&cookie), form("abc")),
        (Some(&other), form(&code)),
        (None, form(&code)),
    ] {
        let headers: Vec<(&str, &str)> =
            cookie.map(|cookie| ("cookie", cookie.as_str())).into_iter().collect();
        let told = site.send("POST", "/queue/act", &headers, &body).await;
        assert_eq!(told.status, StatusCode::FORBIDDEN, "{body}");
        assert_sound("refusal", &told.body);
    }
    assert!(site.made.acts().is_empty());
    let told = site.send("POST", "/queue/act", &[("cookie", &cookie)], &form(&code)).await;
    assert_eq!(told.location(), "/queue");
    assert_eq!(site.made.acts(), [(QueueAction::Hold, false)]);
    // Told once.
    let told = site.send("GET", "/queue", &[("cookie", &cookie)], "").await;
    assert!(told.body.contains("1 item held"), "{}", told.body);
    let told = site.send("GET", "/queue", &[("cookie", &cookie)], "").await;
    assert!(!told.body.contains("1 item held"));
    // Each page that changes something asks for it.
    for (path, body) in
        [("/destination/act", "action=freeze&name=example.net"), ("/suppressions/act", "address=a@b.example")]
    {
        let told = site.send("POST", path, &[("cookie", &cookie)], body).await;
        assert_eq!(told.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn more_than_one_item_is_confirmed_and_an_end_of_mail_twice() {
    let site = Site::open(Made::plenty());
    let (cookie, code) = site.visitor().await;
    let send = async |body: &str| {
        let body = format!("{body}&code={code}&back=%2Fqueue%3Fstate%3Dheld");
        site.send("POST", "/queue/act", &[("cookie", &cookie)], &body).await
    };
    let asked = |told: &Told, words: &str| {
        assert_eq!(told.status, StatusCode::OK, "{}", told.body);
        assert_sound("confirmation", &told.body);
        assert!(told.body.contains(words), "{words}: {}", told.body);
        assert!(site.made.acts().iter().all(|(_, dry_run)| *dry_run), "only counted so far");
    };
    // Made-up filters always fit three items.
    let told = send("action=retry&scope=fitting&domain=example.net").await;
    asked(&told, "Try now 3 items?");
    assert!(
        told.body.contains("name=\"domain\" value=\"example.net\"") && told.body.contains("name=\"counted\"")
    );
    asked(&send("action=hold&item=1-00000001.0&item=1-00000002.0").await, "Hold 2 items?");
    asked(&send("action=delete&item=1-00000001.0").await, "Delete 1 item?");
    asked(&send("action=bounce&scope=fitting").await, "Reason, for the senders");
    let told = send("action=delete&scope=fitting&step=seen&count=3").await;
    asked(&told, "Write down how many: 3");
    asked(
        &send("action=delete&scope=fitting&step=written&count=3&number=2").await,
        "That was not the number",
    );
    asked(&send("action=bounce&scope=fitting&step=written&count=3&number=").await, "That was not the number");

    let told = send("action=retry&scope=fitting&step=seen").await;
    assert_eq!(told.location(), "/queue?state=held");
    assert_eq!(site.made.acts().last(), Some(&(QueueAction::Retry, false)));
    send("action=delete&item=1-00000001.0&step=seen").await.location();
    assert_eq!(site.made.acts().last(), Some(&(QueueAction::Delete, false)));
    send("action=bounce&scope=fitting&step=written&count=3&number=3&reason=gone").await.location();
    assert_eq!(site.made.acts().last(), Some(&(QueueAction::Bounce, false)));
    let told = site.send("GET", "/", &[("cookie", &cookie)], "").await;
    for said in ["3 items will be tried now", "1 item deleted", "3 items bounced"] {
        assert!(told.body.contains(said), "{said}: {}", told.body);
    }

    for (body, status) in [
        ("action=explode&item=1-00000001.0", StatusCode::BAD_REQUEST),
        ("action=hold&item=nonsense", StatusCode::BAD_REQUEST),
        ("action=hold", StatusCode::BAD_REQUEST),
        ("action=hold&scope=fitting&domain=a..b", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(send(body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn what_came_after_the_count_is_not_meant() {
    let site = Site::open(Made::plenty());
    let (cookie, code) = site.visitor().await;
    let body =
        format!("action=hold&scope=fitting&older=3600&step=seen&counted=2026-01-10T11:00:00Z&code={code}");
    site.send("POST", "/queue/act", &[("cookie", &cookie)], &body).await.location();
    let Some(Request::QueueAct { filter, .. }) = site.made.asked().pop() else { panic!() };
    assert_eq!(filter.received_before, "2026-01-10T10:00:00Z".parse().ok());
    let body = format!("action=hold&scope=fitting&step=seen&counted=2026-01-10T11:00:00Z&code={code}");
    site.send("POST", "/queue/act", &[("cookie", &cookie)], &body).await.location();
    let Some(Request::QueueAct { filter, .. }) = site.made.asked().pop() else { panic!() };
    assert_eq!(filter.received_before, "2026-01-10T11:00:00Z".parse().ok());
}

#[tokio::test]
async fn destinations_are_frozen_thawed_fetched_and_forgotten() {
    let site = Site::open(Made::plenty());
    let (cookie, code) = site.visitor().await;
    for (action, said) in [
        ("freeze&reason=moving&until=3600", "example.net is frozen"),
        ("thaw", "example.net is thawed"),
        ("refetch", "fetched: a policy of mode enforce"),
        ("forget&step=seen", "the policy of example.net is forgotten"),
    ] {
        let body = format!("name=example.net&action={action}&code={code}");
        let told = site.send("POST", "/destination/act", &[("cookie", &cookie)], &body).await;
        assert_eq!(told.location(), "/destination?name=example.net");
        let told = site.send("GET", "/destination?name=example.net", &[("cookie", &cookie)], "").await;
        assert!(told.body.contains(said), "{said}: {}", told.body);
    }
    let body = format!("name=example.net&action=forget&code={code}");
    let told = site.send("POST", "/destination/act", &[("cookie", &cookie)], &body).await;
    assert!(told.status == StatusCode::OK && told.body.contains("Forget the policy of"), "{}", told.body);
    assert_sound("forget", &told.body);
}

#[tokio::test]
async fn other_sites_links_have_nobody_asked() {
    let site = Site::open(Made::plenty());
    let path = "/destination?name=example.net&connect=yes";
    for from in ["cross-site", "same-site"] {
        let told = site.send("GET", path, &[("sec-fetch-site", from)], "").await;
        assert!(told.body.contains("nobody was asked"), "{}", told.body);
    }
    assert!(!site.made.asked().iter().any(|request| matches!(request, Request::Explain { .. })));
    site.look(path).await;
    assert!(
        site.made.asked().iter().any(|request| matches!(request, Request::Explain { connect: true, .. }))
    );
}

#[tokio::test]
async fn without_a_token_every_user_of_this_host_may_look_and_nobody_may_act() {
    let site = Site::with(Made::plenty(), None, None, Peer::Host("127.0.0.1".parse().unwrap()));
    for path in PAGES {
        let told = site.look(path).await;
        assert_eq!(told.status, StatusCode::OK, "{path}");
        assert_sound(path, &told.body);
        assert!(!told.body.contains("method=\"post\""), "{path}: {}", told.body);
    }
    let told = site.look("/queue").await;
    assert!(told.body.contains("Set admin.token_file"), "{}", told.body);
    // Connecting to others' hosts is not looking.
    site.look("/destination?name=example.net&connect=yes").await;
    assert!(
        site.made.asked().iter().any(|request| matches!(request, Request::Explain { connect: false, .. }))
    );
    let told = site.send("POST", "/queue/act", &[], "action=hold&item=1-00000001.0").await;
    assert_eq!(told.status, StatusCode::FORBIDDEN);
    assert!(site.made.acts().is_empty());
}

#[tokio::test]
async fn a_token_begins_a_session_that_can_be_ended() {
    let site = Site::locked(Made::plenty());
    for path in PAGES {
        assert!(site.look(path).await.location().starts_with("/login"), "{path}");
    }
    assert_eq!(site.look("/queue?state=held").await.location(), "/login?to=%2Fqueue%3Fstate%3Dheld");
    assert_eq!(site.send("POST", "/queue/act", &[], "action=hold").await.location(), "/login?to=%2F");
    let told = site.look("/login?to=%2Fqueue").await;
    assert_sound("/login", &told.body);
    assert_hardened("/login", &told.headers);

    assert_eq!(site.log_in("wrong").await.status, StatusCode::FORBIDDEN);
    let told = site.log_in(TOKEN).await;
    assert_eq!(told.location(), "/queue?state=held");
    let cookie = format!("stsrelay-session={}", told.cookie("stsrelay-session").unwrap());
    let told = site.send("GET", "/queue", &[("cookie", &format!("a=b; {cookie}"))], "").await;
    assert!(told.status == StatusCode::OK && told.body.contains("Log out"), "{}", told.body);
    let code = told.code();
    let body = format!("action=hold&item=1-00000001.0&code={code}");
    site.send("POST", "/queue/act", &[("cookie", &cookie)], &body).await.location();
    assert_eq!(site.made.acts(), [(QueueAction::Hold, false)]);
    // Only by its own form.
    site.send("POST", "/logout", &[("cookie", &cookie)], "").await.location();
    assert_eq!(site.send("GET", "/", &[("cookie", &cookie)], "").await.status, StatusCode::OK);
    site.send("POST", "/logout", &[("cookie", &cookie)], &format!("code={code}")).await.location();
    assert_eq!(site.send("GET", "/", &[("cookie", &cookie)], "").await.location(), "/login?to=%2F");
    assert_eq!(site.look("/login").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_reads_begins_a_session_that_reads() {
    let site = Site::locked(Made::plenty());
    let told = site.log_in(READ_TOKEN).await;
    let cookie = format!("stsrelay-session={}", told.cookie("stsrelay-session").unwrap());
    let told = site.send("GET", "/queue", &[("cookie", &cookie)], "").await;
    assert!(
        told.body.contains("This token only reads") && !told.body.contains("/queue/act"),
        "{}",
        told.body
    );
    let body = format!("action=hold&item=1-00000001.0&code={}", told.code());
    let told = site.send("POST", "/queue/act", &[("cookie", &cookie)], &body).await;
    assert_eq!(told.status, StatusCode::FORBIDDEN);
    assert!(site.made.acts().is_empty());
}

#[tokio::test]
async fn scripts_may_show_the_token_and_guessers_wait() {
    let site = Site::locked(Made::plenty());
    let bearer = format!("Bearer {TOKEN}");
    let told = site.send("GET", "/", &[("authorization", &bearer)], "").await;
    assert_eq!(told.status, StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(site.log_in("guessed").await.status, StatusCode::FORBIDDEN);
    }
    let told = site.log_in(TOKEN).await;
    assert_eq!(told.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(told.cookie("stsrelay-session").is_none());
}

#[tokio::test]
async fn style_and_icon_are_served_for_ever_under_names_that_change_with_them() {
    let site = Site::locked(Made::nothing());
    let login = site.look("/login").await.body;
    for (fixed, kind) in [(&super::shell::STYLE, "text/css"), (&super::shell::ICON, "image/svg+xml")] {
        assert!(login.contains(fixed.path()), "{login}");
        let told = site.look(fixed.path()).await;
        assert_eq!(told.status, StatusCode::OK);
        assert!(told.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind));
        assert!(told.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        assert_eq!(told.headers["x-content-type-options"], "nosniff");
        assert!(!told.body.contains("url(") && !told.body.contains("@import"));
    }
}
