use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{DnType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::net::dns::{Answer, LookupFailure, MxRecord};
use crate::net::testing::{Ca, Leaf};
use crate::net::tls::{ClientOptions, ClientTls};
use crate::route::DnssecStatus;

const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmax_age: 86400\r\n";
const HOST: &str = "mta-sts.example.test";

/// Names with their addresses; what is not here does not exist.
#[derive(Default)]
struct Names(HashMap<&'static str, Vec<IpAddr>>);

impl Dns for Names {
    fn mx<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }

    fn txt<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>> {
        let answer = match self.0.get(host.as_str()) {
            None => Lookup::NxDomain(DnssecStatus::Insecure),
            Some(records) if records.is_empty() => Lookup::Failed(LookupFailure {
                name: host.to_string(),
                kind: "A",
                bogus: false,
                text: "server failure".into(),
            }),
            Some(records) => Lookup::Found(Answer {
                records: records.clone(),
                status: DnssecStatus::Insecure,
                name: host.clone(),
                ttl: Duration::ZERO,
            }),
        };
        Box::pin(async { answer })
    }
}

/// What the server sends: pieces with a pause before each; then it closes, or waits for ever.
#[derive(Clone)]
struct Reply {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    hang: bool,
}

impl Reply {
    fn raw(text: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![text.into()], pause: Duration::ZERO, hang: false }
    }

    /// A whole response.
    fn new(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
    }

    fn policy(content_type: &str) -> Self {
        Self::new("200 OK", &format!("Content-Type: {content_type}\r\n"), POLICY)
    }
}

/// An HTTPS server on a loopback port the kernel gave.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(leaf: &Leaf, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = leaf.acceptor(&[&TLS13, &TLS12]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, reply, log) = (acceptor.clone(), reply.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let sni = stream.get_ref().1.server_name().map(str::to_owned);
                    let request = read_request(&mut stream).await;
                    log.lock().unwrap().push(format!("SNI: {sni:?}\r\n{request}"));
                    for piece in reply.pieces {
                        tokio::time::sleep(reply.pause).await;
                        if stream.write_all(&piece).await.is_err() {
                            return;
                        }
                    }
                    if reply.hang {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, seen, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        if n == 0 {
            return text;
        }
    }
}

/// A door that trusts `ca`, knows `names`, and may reach 127.0.0.0/8.
fn door(ca: &Ca, port: u16, names: &[(&'static str, &str)]) -> ReqwestHttps {
    let (_dir, file) = ca.roots_file();
    let roots = ClientOptions { use_system_roots: false, extra_roots_file: Some(file) };
    let roots = ClientTls::new(&roots).unwrap().roots();
    let names = names.iter().map(|(name, ips)| {
        (*name, ips.split(' ').filter(|ip| !ip.is_empty()).map(|ip| ip.parse().unwrap()).collect())
    });
    let options = Options { https_port: port, fetch_timeout: Duration::from_secs(10), ..Options::default() };
    let guard = AddressGuard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    ReqwestHttps::new(options, Arc::new(Names(names.collect())), guard, roots).unwrap()
}

/// A name that leads to a public address when first asked for, and inside afterwards.
#[derive(Default)]
struct Rebinding(AtomicUsize);

impl Dns for Rebinding {
    fn mx<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }

    fn txt<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>> {
        let ip = if self.0.fetch_add(1, Ordering::SeqCst) == 0 { "127.0.0.1" } else { "10.0.0.1" };
        let records = vec![ip.parse().unwrap()];
        let (status, ttl) = (DnssecStatus::Insecure, Duration::ZERO);
        Box::pin(async move { Lookup::Found(Answer { records, status, name: host.clone(), ttl }) })
    }
}

fn example() -> Domain {
    Domain::parse("example.test").unwrap()
}

/// Fetches from a server with this certificate and reply.
async fn fetch(ca: &Ca, leaf: &Leaf, reply: Reply) -> (Result<Vec<u8>, FetchError>, Vec<String>) {
    let server = Server::start(leaf, reply).await;
    let door = door(ca, server.port, &[(HOST, "127.0.0.1")]);
    (door.fetch_policy(&example()).await, server.seen())
}

#[tokio::test]
async fn a_policy_is_fetched_from_its_host_and_path_anew_each_time() {
    let ca = Ca::new();
    let server = Server::start(&ca.leaf(&[HOST]), Reply::policy("text/plain")).await;
    let door = door(&ca, server.port, &[(HOST, "127.0.0.1")]);
    for _ in 0..2 {
        assert_eq!(door.fetch_policy(&example()).await.unwrap(), POLICY.as_bytes());
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "each fetch asks the origin");
    for request in &seen {
        assert!(
            request.starts_with(&format!("SNI: Some(\"{HOST}\")\r\nGET /.well-known/mta-sts.txt HTTP/1.1"))
        );
        let lower = request.to_lowercase();
        assert!(lower.contains(&format!("host: {HOST}:{}\r\n", server.port)), "{request}");
        assert!(lower.contains("accept-encoding: identity\r\n"), "{request}");
        assert!(lower.contains("user-agent: stsrelay/"), "{request}");
        for never in ["if-none-match", "if-modified-since", "cookie", "referer", "authorization"] {
            assert!(!lower.contains(never), "{request}");
        }
    }
}

#[test]
fn the_url_is_the_one_of_the_rfc() {
    let url = policy_url(&Domain::parse("bücher.example").unwrap(), 443);
    assert_eq!(url, "https://mta-sts.xn--bcher-kva.example/.well-known/mta-sts.txt");
}

#[tokio::test]
async fn only_status_200_gives_a_policy() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    for status in
        ["201 Created", "204 No Content", "206 Partial", "304 Not Modified", "404 Not Found", "500 Oops"]
    {
        let body = if status.starts_with("204") || status.starts_with("304") { "" } else { POLICY };
        let reply = Reply::new(status, "Content-Type: text/plain\r\n", body);
        let error = fetch(&ca, &leaf, reply).await.0.unwrap_err();
        assert_eq!(error.kind, TroubleKind::Fetch, "{status}");
        assert!(error.text.contains(&status[..3]) && error.text.contains(HOST), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let reply = Reply::new(status, "Content-Type: text/plain\r\nLocation: /elsewhere\r\n", "");
        let (result, seen) = fetch(&ca, &leaf, reply).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind, TroubleKind::Fetch);
        assert!(error.text.contains("redirects are not followed"), "{error}");
        assert_eq!(seen.len(), 1, "the target was asked");
    }
}

#[tokio::test]
async fn the_media_type_must_be_text_plain_with_any_parameters() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    for good in ["text/plain; charset=utf-8", "Text/Plain", "text/plain ;x=y"] {
        assert!(fetch(&ca, &leaf, Reply::policy(good)).await.0.is_ok(), "{good}");
    }
    for bad in ["text/html", "text/plainer", "application/octet-stream", "text"] {
        let error = fetch(&ca, &leaf, Reply::policy(bad)).await.0.unwrap_err();
        assert_eq!(error.kind, TroubleKind::Fetch);
        assert!(error.text.contains("not text/plain"), "{error}");
    }
    assert!(fetch(&ca, &leaf, Reply::new("200 OK", "", POLICY)).await.0.is_err(), "no media type");
    let server = Server::start(&leaf, Reply::policy("text/html")).await;
    let mut door = door(&ca, server.port, &[(HOST, "127.0.0.1")]);
    door.options.require_text_plain = false;
    assert_eq!(door.fetch_policy(&example()).await.unwrap(), POLICY.as_bytes());
}

#[tokio::test]
async fn sixty_four_kibibytes_are_read_and_one_more_is_refused_even_when_the_length_lies() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let plain = "Content-Type: text/plain\r\n";
    let body = "x".repeat(POLICY_BYTES_MAX);
    let full = fetch(&ca, &leaf, Reply::new("200 OK", plain, &body)).await.0.unwrap();
    assert_eq!(full.len(), POLICY_BYTES_MAX);
    let over = format!("{body}x");
    let declared = Reply::new("200 OK", plain, &over);
    let undeclared = Reply::raw(format!("HTTP/1.1 200 OK\r\n{plain}Connection: close\r\n\r\n{over}"));
    let endless = Reply { hang: true, ..undeclared.clone() };
    for reply in [declared, undeclared, endless] {
        let error = fetch(&ca, &leaf, reply).await.0.unwrap_err();
        assert_eq!(error.kind, TroubleKind::Fetch);
        assert!(error.text.contains("longer than 65536 bytes"), "{error}");
    }
    let head = format!("HTTP/1.1 200 OK\r\n{plain}Content-Length: 500\r\n\r\nversion: STSv1\r\n");
    let cut = fetch(&ca, &leaf, Reply::raw(head)).await.0;
    assert_eq!(cut.unwrap_err().kind, TroubleKind::Fetch, "less than declared is no policy");
}

#[tokio::test]
async fn a_dripping_or_silent_host_costs_the_configured_time_and_no_more() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", POLICY.len());
    let mut pieces = vec![head.into_bytes()];
    pieces.extend(POLICY.bytes().map(|byte| vec![byte]));
    let drip = Reply { pieces, pause: Duration::from_millis(50), hang: false };
    let silent = Reply { pieces: vec![], pause: Duration::ZERO, hang: true };
    for reply in [drip, silent] {
        let server = Server::start(&leaf, reply).await;
        let mut door = door(&ca, server.port, &[(HOST, "127.0.0.1")]);
        door.options.fetch_timeout = Duration::from_millis(500);
        let error = door.fetch_policy(&example()).await.unwrap_err();
        assert_eq!(error.kind, TroubleKind::Fetch);
        assert!(error.text.contains("not finished within 500ms"), "{error}");
    }
}

#[tokio::test]
async fn a_policy_host_must_prove_its_name() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let common_name = ca.leaf_with(&[], |params| params.distinguished_name.push(DnType::CommonName, HOST));
    let rows = [
        (Leaf::self_signed(&[HOST]), "self-signed"),
        (stranger.leaf(&[HOST]), "unknown authority"),
        (ca.leaf_with(&[HOST], |params| params.not_after = date_time_ymd(2024, 1, 1)), "expired"),
        (ca.leaf(&["example.test"]), "wrong name"),
        (ca.leaf(&["127.0.0.1"]), "address"),
        (common_name, "common name only"),
        (ca.leaf(&["mta-*.example.test"]), "partial wildcard"),
    ];
    for (leaf, what) in rows {
        let (result, seen) = fetch(&ca, &leaf, Reply::policy("text/plain")).await;
        let error = result.expect_err(what);
        assert_eq!(error.kind, TroubleKind::WebPki, "{what}: {error}");
        assert!(seen.is_empty(), "{what}: nothing is asked of a host that is not proven");
    }
    let wildcard = ca.leaf(&["*.example.test"]);
    assert!(fetch(&ca, &wildcard, Reply::policy("text/plain")).await.0.is_ok());
}

#[tokio::test]
async fn what_is_not_the_certificate_is_a_fetch_error() {
    let ca = Ca::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let names = [(HOST, "127.0.0.1")];
    let refused = door(&ca, free, &names).fetch_policy(&example()).await.unwrap_err();
    assert_eq!(refused.kind, TroubleKind::Fetch);
    assert!(refused.text.to_lowercase().contains("refused"), "{refused}");
    let unknown = door(&ca, free, &[]).fetch_policy(&example()).await.unwrap_err();
    assert_eq!(unknown.kind, TroubleKind::Fetch);
    assert!(unknown.text.contains(&format!("{HOST} does not exist")), "{unknown}");
    let failing = door(&ca, free, &[(HOST, "")]).fetch_policy(&example()).await.unwrap_err();
    assert!(failing.text.contains("server failure"), "{failing}");
    // A server that speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let garbage = door(&ca, port, &names).fetch_policy(&example()).await.unwrap_err();
    assert_eq!(garbage.kind, TroubleKind::Fetch, "{garbage}");
    plain.await.unwrap();
}

#[tokio::test]
async fn addresses_that_are_not_public_are_left_out_and_alone_refused() {
    let ca = Ca::new();
    let server = Server::start(&ca.leaf(&[HOST]), Reply::policy("text/plain")).await;
    let mixed = door(&ca, server.port, &[(HOST, "10.0.0.1 ::1 127.0.0.1")]);
    assert!(mixed.fetch_policy(&example()).await.is_ok());
    let private = door(&ca, server.port, &[(HOST, "10.0.0.1 ::1")]);
    let error = private.fetch_policy(&example()).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Fetch);
    assert!(error.text.contains("network.allow_private_destinations"), "{error}");
}

#[tokio::test]
async fn the_address_looked_at_is_the_one_connected_to() {
    let ca = Ca::new();
    let server = Server::start(&ca.leaf(&[HOST]), Reply::policy("text/plain")).await;
    let names = Arc::new(Rebinding::default());
    let mut door = door(&ca, server.port, &[]);
    let (_dir, file) = ca.roots_file();
    let roots = ClientOptions { use_system_roots: false, extra_roots_file: Some(file) };
    let roots = ClientTls::new(&roots).unwrap().roots();
    door = ReqwestHttps::new(door.options.clone(), names.clone(), door.guard.clone(), roots).unwrap();
    assert!(door.fetch_policy(&example()).await.is_ok());
    assert_eq!(names.0.load(Ordering::SeqCst), 1, "asked once, so that nothing else can be dialled");
    for _ in 0..2 {
        let error = door.fetch_policy(&example()).await.unwrap_err();
        assert!(error.text.contains("10.0.0.1 is a private address"), "{error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_report_is_posted_as_it_is_whatever_certificate_the_endpoint_has() {
    let ca = Ca::new();
    for leaf in [ca.leaf(&["reports.test"]), Leaf::self_signed(&["wrong.test"])] {
        for (status, code) in
            [("200 OK", 200), ("201 Created", 201), ("202 Accepted", 202), ("204 Gone", 204)]
        {
            let reply = Reply::raw(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            let server = Server::start(&leaf, reply).await;
            let door = door(&ca, 1, &[("reports.test", "127.0.0.1")]);
            let url = format!("https://reports.test:{}/v1?x=y", server.port);
            let outcome = door.post_report(&url, "application/tlsrpt+gzip", b"body".to_vec()).await;
            assert_eq!(outcome, PostOutcome::Accepted(code));
            let request = server.seen().remove(0);
            assert!(request.contains("POST /v1?x=y HTTP/1.1\r\n"), "{request}");
            let lower = request.to_lowercase();
            assert!(lower.contains("content-type: application/tlsrpt+gzip\r\n"), "{request}");
            assert!(!lower.contains("content-encoding"), "{request}");
            assert!(request.ends_with("\r\n\r\nbody"), "{request}");
        }
    }
}

#[tokio::test]
async fn other_statuses_refuse_a_report_and_so_do_redirects_that_would_make_a_get_of_it() {
    let ca = Ca::new();
    for status in ["400 Bad", "404 Not Found", "503 Busy", "301 Moved", "302 Found", "303 See Other"] {
        let reply = Reply::new(status, "Location: /elsewhere\r\n", "");
        let server = Server::start(&ca.leaf(&["reports.test"]), reply).await;
        let door = door(&ca, 1, &[("reports.test", "127.0.0.1")]);
        let url = format!("https://reports.test:{}/", server.port);
        let outcome = door.post_report(&url, "application/tlsrpt+gzip", b"body".to_vec()).await;
        let PostOutcome::Refused(text) = outcome else { panic!("{status} accepted") };
        assert!(text.contains(&status[..3]) && text.contains(&url), "{text}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_report_follows_its_endpoint_a_few_times_and_never_out_of_bounds() {
    let ca = Ca::new();
    let names = [("reports.test", "127.0.0.1"), ("other.test", "127.0.0.1"), ("inside.test", "192.168.1.1")];
    let door = door(&ca, 1, &names);
    let taken = Reply::new("201 Created", "", "");
    let goal = Server::start(&Leaf::self_signed(&["whoever.test"]), taken).await;
    let port = goal.port;
    let good = [
        ("307 Temporary Redirect", format!("https://other.test:{port}/v2?a=b")),
        ("308 Permanent Redirect", format!("//other.test:{port}/v2?a=b")),
    ];
    let bad = [
        ("http://other.test/", "not an https: URL"),
        ("https://10.1.2.3/", "private"),
        ("https://[::ffff:10.0.0.2]/", "private"),
        ("https://inside.test/", "private"),
        ("https://user:secret@other.test/", "credentials"),
        ("file:///etc/passwd", "not an https: URL"),
        ("https://[/", "no URL"),
        ("/again", "more than 3 times"),
    ];
    for (status, place) in good {
        let reply = Reply::new(status, &format!("Location: {place}\r\n"), "");
        let moved = Server::start(&ca.leaf(&["reports.test"]), reply).await;
        let url = format!("https://reports.test:{}/v1", moved.port);
        let outcome = door.post_report(&url, "application/tlsrpt+gzip", b"body".to_vec()).await;
        assert_eq!(outcome, PostOutcome::Accepted(201), "{place}");
        let request = goal.seen().pop().unwrap();
        assert!(
            request.contains("POST /v2?a=b HTTP/1.1\r\n") && request.ends_with("\r\n\r\nbody"),
            "{request}"
        );
        assert!(request.to_lowercase().contains("content-type: application/tlsrpt+gzip\r\n"), "{request}");
    }
    for (place, phrase) in bad {
        let reply = Reply::new("307 Temporary Redirect", &format!("Location: {place}\r\n"), "");
        let moved = Server::start(&ca.leaf(&["reports.test"]), reply).await;
        let url = format!("https://reports.test:{}/v1", moved.port);
        let outcome = door.post_report(&url, "application/tlsrpt+gzip", b"body".to_vec()).await;
        let PostOutcome::Refused(text) = outcome else { panic!("{place} accepted") };
        assert!(text.contains(phrase) && text.contains(&url), "{place}: {text}");
        assert_eq!(moved.seen().len(), if place == "/again" { 1 + REDIRECTS_MAX } else { 1 }, "{place}");
    }
    assert_eq!(goal.seen().len(), 2);
}

#[tokio::test]
async fn an_endless_answer_to_a_report_is_not_read() {
    let ca = Ca::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nxxx";
    let reply = Reply { hang: true, ..Reply::raw(head) };
    let server = Server::start(&ca.leaf(&["reports.test"]), reply).await;
    let door = door(&ca, 1, &[("reports.test", "127.0.0.1")]);
    let url = format!("https://reports.test:{}/", server.port);
    let posted = door.post_report(&url, "application/tlsrpt+json", b"{}".to_vec());
    let outcome = tokio::time::timeout(Duration::from_secs(20), posted).await.unwrap();
    assert_eq!(outcome, PostOutcome::Accepted(200));
}

#[tokio::test]
async fn report_urls_that_lead_inside_or_are_no_https_are_refused() {
    let ca = Ca::new();
    let door = door(&ca, 1, &[("inside.test", "192.168.1.1"), ("v6.test", "fe80::1")]);
    let rows = [
        ("https://10.1.2.3/", "private"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:10.1.2.3]/", "private"),
        ("https://0xa9fea9fe/", "link-local"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://inside.test/", "private"),
        ("https://v6.test/", "link-local"),
        ("http://reports.test/", "not an https: URL"),
        ("mailto:a@reports.test", "not an https: URL"),
        ("https://user:secret@reports.test/", "credentials"),
        ("https://", "not a URL"),
        ("https://localhost/", "does not exist"),
    ];
    for (url, phrase) in rows {
        let outcome = door.post_report(url, "application/tlsrpt+gzip", b"body".to_vec()).await;
        let PostOutcome::Refused(text) = outcome else { panic!("{url} accepted") };
        assert!(text.contains(phrase), "{url}: {text}");
    }
}
