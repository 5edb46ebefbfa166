use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, RRSIG};
use hickory_resolver::proto::dnssec::{DigestType, DnssecSigner, PublicKey, SigningKey};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{DNSClass, Record, RecordSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::net::dns::validation;

/// One scripted reply.
#[derive(Clone, Default)]
struct Script {
    code: Option<ResponseCode>,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    authentic: bool,
    /// Over UDP only the TC bit.
    truncate: bool,
    /// No reply at all.
    silent: bool,
    /// Not DNS.
    garbage: bool,
    /// SERVFAIL unless checking is disabled, as a validator answers what is bogus.
    refused: bool,
}

type Zone = HashMap<(String, RecordType), VecDeque<Script>>;

/// A name server on UDP and TCP of one loopback port.
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    log: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    async fn start() -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken on UDP; another one will not be.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::new()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (zone_u, log_u) = (Arc::clone(&zone), Arc::clone(&log));
        let (zone_t, log_t) = (Arc::clone(&zone), Arc::clone(&log));
        let over_udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (n, peer) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(reply) = reply_to(&buffer[..n], "udp", &zone_u, &log_u) {
                    udp.send_to(&reply, peer).await.unwrap();
                }
            }
        });
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                if let Some(reply) = reply_to(&question, "tcp", &zone_t, &log_t) {
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        });
        Self { address, zone, log, tasks: [over_udp, over_tcp] }
    }

    /// Replies to this question in turn; the last one repeats.
    fn set(&self, name: &str, kind: RecordType, scripts: impl IntoIterator<Item = Script>) {
        self.zone.lock().unwrap().insert((name.to_owned(), kind), scripts.into_iter().collect());
    }

    fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn dns(&self, change: impl FnOnce(&mut Options)) -> HickoryDns {
        let mut options = Options {
            nameservers: vec![self.address],
            timeout: Duration::from_secs(5),
            ..Options::default()
        };
        change(&mut options);
        HickoryDns::new(options).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn reply_to(
    question: &[u8],
    transport: &str,
    zone: &Mutex<Zone>,
    log: &Mutex<Vec<String>>,
) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let name = query.name().to_ascii().to_lowercase();
    let bits = [question.metadata.authentic_data, question.edns.as_ref().unwrap().flags().dnssec_ok];
    let flags = if bits == [true, true] { " AD DO" } else { "" };
    let unchecked = question.metadata.checking_disabled;
    let flags = if unchecked { format!("{flags} CD") } else { flags.to_owned() };
    log.lock().unwrap().push(format!("{transport} {name} {}{flags}", query.query_type()));
    let script = {
        let mut zone = zone.lock().unwrap();
        match zone.get_mut(&(name, query.query_type())) {
            Some(scripts) if scripts.len() > 1 => scripts.pop_front().unwrap(),
            Some(scripts) => scripts[0].clone(),
            None => Script { code: Some(ResponseCode::NXDomain), ..Script::default() },
        }
    };
    if script.silent {
        return None;
    }
    if script.garbage {
        return Some([&question.metadata.id.to_be_bytes()[..], b"\x80\x00garbage"].concat());
    }
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.add_query(query);
    reply.metadata.response_code = script.code.unwrap_or(ResponseCode::NoError);
    if script.refused && !unchecked {
        reply.metadata.response_code = ResponseCode::ServFail;
        return Some(reply.to_vec().unwrap());
    }
    reply.metadata.recursion_available = true;
    reply.metadata.authentic_data = script.authentic;
    if script.truncate && transport == "udp" {
        reply.metadata.truncation = true;
    } else {
        reply.add_answers(script.answers);
        reply.add_authorities(script.authorities);
    }
    Some(reply.to_vec().unwrap())
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn a(owner: &str, ip: [u8; 4]) -> Record {
    record(owner, 300, RData::A(A(Ipv4Addr::from(ip))))
}

fn mx(owner: &str, preference: u16, exchange: &str) -> Record {
    record(owner, 300, RData::MX(MX::new(preference, name(exchange))))
}

fn txt(owner: &str, ttl: u32, strings: &[&str]) -> Record {
    let strings = strings.iter().map(|text| (*text).to_owned()).collect();
    record(owner, ttl, RData::TXT(TXT::new(strings)))
}

fn alias(owner: &str, target: &str) -> Record {
    record(owner, 200, RData::CNAME(CNAME(name(target))))
}

fn soa() -> Record {
    record("test.", 900, RData::SOA(SOA::new(name("ns.test."), name("root.test."), 1, 2, 3, 4, 60)))
}

fn says(answers: Vec<Record>) -> [Script; 1] {
    [Script { answers, ..Script::default() }]
}

fn code(code: ResponseCode) -> [Script; 1] {
    [Script { code: Some(code), ..Script::default() }]
}

/// The answer, or a panic.
fn found<T: std::fmt::Debug>(lookup: Lookup<T>) -> Answer<T> {
    match lookup {
        Lookup::Found(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn failed<T: std::fmt::Debug>(lookup: Lookup<T>) -> LookupFailure {
    match lookup {
        Lookup::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

const INSECURE: DnssecStatus = DnssecStatus::Insecure;
const SECURE: DnssecStatus = DnssecStatus::Secure;

#[tokio::test]
async fn mx_exchanges_are_kept_as_given() {
    let server = Server::start().await;
    let records = [(10, "MX1.Example.Test."), (20, "192.0.2.1."), (0, "."), (30, "a\\.b.test.")];
    let records = records.map(|(preference, exchange)| mx("example.test.", preference, exchange));
    server.set("example.test.", RecordType::MX, says(records.to_vec()));
    let answer = found(server.dns(|_| ()).mx(&domain("example.test")).await);
    let exchanges: Vec<_> = answer.records.iter().map(|mx| (mx.preference, mx.exchange.as_str())).collect();
    assert_eq!(exchanges, [(10, "MX1.Example.Test"), (20, "192.0.2.1"), (0, ""), (30, "a\\.b.test")]);
    assert_eq!(answer.name, domain("example.test"));
    assert_eq!(answer.ttl, Duration::from_secs(300));
    assert_eq!(server.asked(), ["udp example.test. MX AD DO"], "absolute, no search list");
}

#[tokio::test]
async fn strings_of_a_txt_record_are_joined_and_records_are_not() {
    let server = Server::start().await;
    let records = vec![
        txt("_mta-sts.example.test.", 60, &["v=STSv1; i", "d=1;"]),
        txt("_mta-sts.example.test.", 30, &["other"]),
    ];
    server.set("_mta-sts.example.test.", RecordType::TXT, says(records));
    let answer = found(server.dns(|_| ()).txt(&domain("_mta-sts.example.test")).await);
    assert_eq!(answer.records, [b"v=STSv1; id=1;".to_vec(), b"other".to_vec()]);
    assert_eq!(answer.ttl, Duration::from_secs(30), "the least of the set");
}

#[tokio::test]
async fn no_data_no_name_and_failure_are_different_things() {
    let server = Server::start().await;
    let no_data = Script { authorities: vec![soa()], ..Script::default() };
    server.set("nodata.test.", RecordType::MX, [no_data]);
    server.set("bare.test.", RecordType::MX, [Script::default()]);
    server.set("nx.test.", RecordType::MX, code(ResponseCode::NXDomain));
    let dns = server.dns(|_| ());
    assert_eq!(dns.mx(&domain("nodata.test")).await, Lookup::NoData(INSECURE));
    assert_eq!(dns.mx(&domain("bare.test")).await, Lookup::NoData(INSECURE));
    assert_eq!(dns.mx(&domain("nx.test")).await, Lookup::NxDomain(INSECURE));
    for refusal in
        [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr]
    {
        server.set("fail.test.", RecordType::MX, code(refusal));
        let failure = failed(dns.mx(&domain("fail.test")).await);
        assert_eq!((failure.name.as_str(), failure.kind, failure.bogus), ("fail.test", "MX", false));
    }
}

#[tokio::test]
async fn silence_and_garbage_are_failures() {
    let server = Server::start().await;
    server.set("silent.test.", RecordType::MX, [Script { silent: true, ..Script::default() }]);
    server.set("garbage.test.", RecordType::MX, [Script { garbage: true, ..Script::default() }]);
    let dns = server.dns(|options| options.timeout = Duration::from_millis(100));
    for text in ["silent.test", "garbage.test"] {
        let failure = failed(dns.mx(&domain(text)).await);
        assert!(failure.to_string().contains(&format!("DNS lookup of {text} MX failed")), "{failure}");
    }
}

#[tokio::test]
async fn a_second_server_helps_out_for_a_silent_or_failing_one() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.set("a.test.", RecordType::TXT, [Script { silent: true, ..Script::default() }]);
    first.set("b.test.", RecordType::TXT, code(ResponseCode::ServFail));
    second.set("a.test.", RecordType::TXT, says(vec![txt("a.test.", 60, &["a"])]));
    second.set("b.test.", RecordType::TXT, says(vec![txt("b.test.", 60, &["b"])]));
    let dns = first.dns(|options| {
        options.nameservers.push(second.address);
        options.timeout = Duration::from_millis(200);
    });
    assert_eq!(found(dns.txt(&domain("a.test")).await).records, [b"a"]);
    assert_eq!(found(dns.txt(&domain("b.test")).await).records, [b"b"]);
}

#[tokio::test]
async fn a_truncated_reply_is_fetched_over_tcp() {
    let server = Server::start().await;
    let many = (0..200).map(|n| txt("big.test.", 60, &[&format!("record number {n}")])).collect();
    server.set("big.test.", RecordType::TXT, [Script { answers: many, truncate: true, ..Script::default() }]);
    let answer = found(server.dns(|_| ()).txt(&domain("big.test")).await);
    assert_eq!(answer.records.len(), 200);
    assert_eq!(server.asked(), ["udp big.test. TXT AD DO", "tcp big.test. TXT AD DO"]);
}

#[tokio::test]
async fn cnames_are_followed_in_one_reply_and_over_several() {
    let server = Server::start().await;
    let whole = vec![alias("a.test.", "B.Test."), alias("b.test.", "c.test."), txt("c.test.", 90, &["x"])];
    server.set("a.test.", RecordType::TXT, says(whole));
    server.set("d.test.", RecordType::TXT, says(vec![alias("d.test.", "e.test.")]));
    server.set("e.test.", RecordType::TXT, says(vec![alias("e.test.", "f.test.")]));
    server.set("f.test.", RecordType::TXT, says(vec![txt("f.test.", 600, &["y"])]));
    let dns = server.dns(|_| ());
    let one = found(dns.txt(&domain("a.test")).await);
    assert_eq!((one.records[0].as_slice(), one.name), (&b"x"[..], domain("c.test")));
    assert_eq!(one.ttl, Duration::from_secs(90), "the least of chain and record");
    let several = found(dns.txt(&domain("d.test")).await);
    assert_eq!((several.records[0].as_slice(), several.name), (&b"y"[..], domain("f.test")));
    assert_eq!(several.ttl, Duration::from_secs(200));
}

#[tokio::test]
async fn an_alias_of_nothing_is_nothing() {
    let server = Server::start().await;
    let dangling = Script {
        code: Some(ResponseCode::NXDomain),
        answers: vec![alias("a.test.", "gone.test.")],
        authorities: vec![soa()],
        ..Script::default()
    };
    server.set("a.test.", RecordType::MX, [dangling.clone()]);
    server.set("b.test.", RecordType::MX, [Script { code: None, ..dangling }]);
    // The chain of b.test does not start at b.test: its records are not followed.
    let dns = server.dns(|_| ());
    assert_eq!(dns.mx(&domain("a.test")).await, Lookup::NxDomain(INSECURE));
    assert_eq!(dns.mx(&domain("b.test")).await, Lookup::NoData(INSECURE));
}

#[tokio::test]
async fn cname_circles_end() {
    let server = Server::start().await;
    server.set(
        "a.test.",
        RecordType::MX,
        says(vec![alias("a.test.", "b.test."), alias("b.test.", "a.test.")]),
    );
    server.set("c.test.", RecordType::MX, says(vec![alias("c.test.", "d.test.")]));
    server.set("d.test.", RecordType::MX, says(vec![alias("d.test.", "c.test.")]));
    let dns = server.dns(|_| ());
    for text in ["a.test", "c.test"] {
        assert!(failed(dns.mx(&domain(text)).await).text.contains("circle"));
    }
    assert!(server.asked().len() < 20, "{:?}", server.asked());
}

#[tokio::test]
async fn records_of_other_names_are_not_answers() {
    let server = Server::start().await;
    server.set("a.test.", RecordType::MX, says(vec![mx("evil.test.", 0, "mx.evil.test.")]));
    assert_eq!(server.dns(|_| ()).mx(&domain("a.test")).await, Lookup::NoData(INSECURE));
}

fn aaaa(owner: &str, ip: &str) -> Record {
    record(owner, 100, RData::AAAA(AAAA::from_str(ip).unwrap()))
}

#[tokio::test]
async fn addresses_of_both_families_take_turns() {
    let server = Server::start().await;
    let fours =
        vec![a("h.test.", [192, 0, 2, 1]), a("h.test.", [192, 0, 2, 2]), a("h.test.", [192, 0, 2, 3])];
    server.set("h.test.", RecordType::A, says(fours));
    server.set("h.test.", RecordType::AAAA, says(vec![aaaa("h.test.", "2001:db8::1")]));
    let answer = found(server.dns(|_| ()).addresses(&domain("h.test")).await);
    let shown: Vec<_> = answer.records.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(answer.ttl, Duration::from_secs(100));
}

#[tokio::test]
async fn one_family_is_enough_and_nothing_is_failed_only_when_a_lookup_failed() {
    let server = Server::start().await;
    let four = || says(vec![a("h.test.", [192, 0, 2, 1])]);
    let no_data = || [Script { authorities: vec![soa()], ..Script::default() }];
    let dns = server.dns(|_| ());
    let ask = async |v4: [Script; 1], v6: [Script; 1]| {
        server.set("h.test.", RecordType::A, v4);
        server.set("h.test.", RecordType::AAAA, v6);
        dns.forget_all();
        dns.addresses(&domain("h.test")).await
    };
    assert_eq!(found(ask(four(), no_data()).await).records.len(), 1);
    assert_eq!(found(ask(four(), code(ResponseCode::ServFail)).await).records.len(), 1);
    assert_eq!(failed(ask(no_data(), code(ResponseCode::ServFail)).await).kind, "AAAA");
    assert_eq!(failed(ask(code(ResponseCode::ServFail), no_data()).await).kind, "A");
    assert_eq!(ask(no_data(), no_data()).await, Lookup::NoData(INSECURE));
    let nx = || code(ResponseCode::NXDomain);
    assert_eq!(ask(nx(), nx()).await, Lookup::NxDomain(INSECURE));
    assert_eq!(ask(nx(), no_data()).await, Lookup::NoData(INSECURE));
}

#[tokio::test]
async fn the_ad_bit_of_a_resolver_on_this_host_is_believed_for_answers_and_denials() {
    let server = Server::start().await;
    let secure =
        |answers, authorities| [Script { answers, authorities, authentic: true, ..Script::default() }];
    server.set("s.test.", RecordType::MX, secure(vec![mx("s.test.", 1, "mx.s.test.")], vec![]));
    server.set("n.test.", RecordType::MX, secure(vec![], vec![soa()]));
    let denied = Script { code: Some(ResponseCode::NXDomain), authentic: true, ..Script::default() };
    server.set("x.test.", RecordType::MX, [denied]);
    server.set("i.test.", RecordType::MX, says(vec![mx("i.test.", 1, "mx.i.test.")]));
    // Secure alias into an unsigned zone, told over two replies.
    server.set("c.test.", RecordType::MX, secure(vec![alias("c.test.", "i.test.")], vec![]));
    let dns = server.dns(|_| ());
    assert_eq!(found(dns.mx(&domain("s.test")).await).status, SECURE);
    assert_eq!(dns.mx(&domain("n.test")).await, Lookup::NoData(SECURE));
    assert_eq!(dns.mx(&domain("x.test")).await, Lookup::NxDomain(SECURE));
    assert_eq!(found(dns.mx(&domain("i.test")).await).status, INSECURE);
    assert_eq!(found(dns.mx(&domain("c.test")).await).status, INSECURE);
    // A secure end does not mend an insecure link.
    server.set("d.test.", RecordType::MX, secure(vec![alias("d.test.", "e.test.")], vec![]));
    server.set("e.test.", RecordType::MX, says(vec![alias("e.test.", "s.test.")]));
    assert_eq!(found(dns.mx(&domain("d.test")).await).status, INSECURE);
    let off = server.dns(|options| options.dnssec = Dnssec::Off);
    assert_eq!(found(off.mx(&domain("s.test")).await).status, INSECURE);
    assert!(server.asked().contains(&"udp s.test. MX".to_owned()), "neither AD nor DO is asked for");
}

fn tlsa(owner: &str, fields: [u8; 3], data: &[u8]) -> Record {
    let [usage, selector, matching] = fields;
    record(owner, 120, RData::TLSA(TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec())))
}

#[tokio::test]
async fn tlsa_records_survive_whatever_they_say() {
    let server = Server::start().await;
    let owner = "_25._tcp.mx.test.";
    let rows = [([3, 1, 1], &[7; 32][..]), ([0, 0, 0], b"x"), ([255, 254, 9], b""), ([2, 0, 2], &[1; 3])];
    server.set(owner, RecordType::TLSA, says(rows.map(|(fields, data)| tlsa(owner, fields, data)).to_vec()));
    let answer = found(server.dns(|_| ()).tlsa(&domain("_25._tcp.mx.test")).await);
    let shown: Vec<_> = answer.records.iter().map(ToString::to_string).collect();
    let first = format!("3 1 1 {}", "07".repeat(32));
    assert_eq!(shown, [&first, "0 0 0 78", "255 254 9 ", "2 0 2 010101"]);
    assert_eq!((answer.status, answer.ttl), (INSECURE, Duration::from_secs(120)));
    // What is too short to be a record is no answer at all.
    let stump = RData::Unknown { code: RecordType::TLSA, rdata: NULL::with(vec![3, 1]) };
    server.set("_25._tcp.b.test.", RecordType::TLSA, says(vec![record("_25._tcp.b.test.", 1, stump)]));
    assert_eq!(failed(server.dns(|_| ()).tlsa(&domain("_25._tcp.b.test")).await).kind, "TLSA");
}

#[tokio::test]
async fn an_alias_at_the_tlsa_name_is_followed_and_its_weakest_link_counts() {
    let server = Server::start().await;
    let secure = |answers| [Script { answers, authentic: true, ..Script::default() }];
    let set = |name: &str, script| server.set(name, RecordType::TLSA, script);
    set("_25._tcp.s.test.", secure(vec![alias("_25._tcp.s.test.", "tlsa.test.")]));
    set("_25._tcp.i.test.", says(vec![alias("_25._tcp.i.test.", "tlsa.test.")]));
    set("tlsa.test.", secure(vec![tlsa("tlsa.test.", [3, 1, 1], &[7; 32])]));
    set("_25._tcp.f.test.", secure(vec![alias("_25._tcp.f.test.", "broken.test.")]));
    set("broken.test.", code(ResponseCode::ServFail));
    let dns = server.dns(|_| ());
    assert_eq!(found(dns.tlsa(&domain("_25._tcp.s.test")).await).status, SECURE);
    assert_eq!(found(dns.tlsa(&domain("_25._tcp.i.test")).await).status, INSECURE);
    failed(dns.tlsa(&domain("_25._tcp.f.test")).await);
    let off = server.dns(|options| options.dnssec = Dnssec::Off);
    assert_eq!(found(off.tlsa(&domain("_25._tcp.s.test")).await).status, INSECURE);
}

#[tokio::test]
async fn an_alias_is_told_by_itself_with_its_own_status() {
    let server = Server::start().await;
    let answers = vec![alias("mx.test.", "cdn.test.")];
    let script = Script { answers, authentic: true, ..Script::default() };
    server.set("mx.test.", RecordType::CNAME, [script]);
    let answer = found(server.dns(|_| ()).cname(&domain("mx.test")).await);
    assert_eq!((answer.records, answer.status), (vec![domain("cdn.test")], SECURE));
    assert_eq!(answer.name, domain("mx.test"), "not followed");
    assert_eq!(server.asked(), ["udp mx.test. CNAME AD DO"]);
}

#[test]
fn the_ad_bit_of_a_resolver_elsewhere_is_not_believed() {
    let servers = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    assert_eq!(distrust(Dnssec::TrustAd, &servers(&["127.0.0.1:53", "[::1]:53"])), None);
    let why = distrust(Dnssec::TrustAd, &servers(&["127.0.0.53:53", "192.0.2.1:53"])).unwrap();
    assert!(why.contains("192.0.2.1:53 is not") && why.contains("DANE is off"), "{why}");
    assert!(distrust(Dnssec::Off, &servers(&["127.0.0.1:53"])).is_some());
    assert_eq!(distrust(Dnssec::Validate, &servers(&["192.0.2.1:53"])), None);
}

#[tokio::test]
async fn answers_are_kept_for_their_ttl_and_denials_for_that_of_the_soa() {
    let server = Server::start().await;
    server.set("t.test.", RecordType::TXT, says(vec![txt("t.test.", 2, &["x"])]));
    server.set("zero.test.", RecordType::TXT, says(vec![txt("zero.test.", 0, &["x"])]));
    server.set("n.test.", RecordType::TXT, [Script { authorities: vec![soa()], ..Script::default() }]);
    server.set("bare.test.", RecordType::TXT, [Script::default()]);
    server.set("fail.test.", RecordType::TXT, code(ResponseCode::ServFail));
    let dns = server.dns(|_| ());
    let times = async |text: &str, lookups: usize| {
        let before = server.asked().len();
        for _ in 0..lookups {
            dns.txt(&domain(text)).await;
        }
        server.asked().len() - before
    };
    assert_eq!(times("t.test", 3).await, 1);
    assert_eq!(times("zero.test", 3).await, 3);
    assert_eq!(times("n.test", 3).await, 1);
    assert_eq!(times("bare.test", 3).await, 3, "no SOA, not kept");
    assert_eq!(times("fail.test", 3).await, 6, "failures are not kept, and each is asked about unchecked");
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1500)).await;
    assert!(found(dns.txt(&domain("t.test")).await).ttl <= Duration::from_millis(500));
    tokio::time::advance(Duration::from_millis(501)).await;
    tokio::time::resume();
    assert_eq!(times("t.test", 1).await, 1, "expired");
    assert_eq!(times("n.test", 1).await, 0, "60 seconds are not over");
}

#[tokio::test]
async fn a_fresh_lookup_passes_the_cache_and_replaces_what_is_in_it() {
    let server = Server::start().await;
    let scripts = ["old", "new"]
        .map(|text| Script { answers: vec![txt("t.test.", 3600, &[text])], ..Script::default() });
    server.set("t.test.", RecordType::TXT, scripts);
    let dns = server.dns(|_| ());
    let name = domain("t.test");
    assert_eq!(found(dns.txt(&name).await).records, [b"old"]);
    assert_eq!(found(dns.txt(&name).await).records, [b"old"]);
    assert_eq!(found(dns.txt_fresh(&name).await).records, [b"new"]);
    assert_eq!(found(dns.txt(&name).await).records, [b"new"]);
    let owner = "_25._tcp.t.test.";
    let script = |octet: u8| {
        let data = TLSA::new(3.into(), 1.into(), 1.into(), vec![octet; 32]);
        Script { answers: vec![record(owner, 3600, RData::TLSA(data))], ..Script::default() }
    };
    server.set(owner, RecordType::TLSA, [script(1), script(2)]);
    let name = domain("_25._tcp.t.test");
    let data = |answer: Lookup<Tlsa>| found(answer).records[0].data[0];
    assert_eq!((data(dns.tlsa(&name).await), data(dns.tlsa(&name).await)), (1, 1));
    assert_eq!(data(dns.tlsa_fresh(&name).await), 2);
    assert_eq!(data(dns.tlsa(&name).await), 2);
    let asked = server.asked().len();
    dns.forget(&domain("t.test"));
    assert_eq!((data(dns.tlsa(&name).await), server.asked().len()), (2, asked), "another name");
    dns.forget(&name);
    dns.tlsa(&name).await;
    assert_eq!(server.asked().len(), asked + 1);
}

#[tokio::test]
async fn short_lives_are_raised_to_the_configured_minimum() {
    let server = Server::start().await;
    server.set("t.test.", RecordType::TXT, says(vec![txt("t.test.", 0, &["x"])]));
    let dns = server.dns(|options| options.cache_min_ttl = Duration::from_secs(60));
    for _ in 0..3 {
        found(dns.txt(&domain("t.test")).await);
    }
    assert_eq!(server.asked().len(), 1);
}

/// A root zone with one key, all names in it.
struct SignedRoot {
    signer: DnssecSigner,
    dnskey: DNSKEY,
}

impl SignedRoot {
    fn new() -> Self {
        let pkcs8 = Ed25519SigningKey::generate_pkcs8().unwrap();
        let key = Ed25519SigningKey::from_pkcs8(&pkcs8).unwrap();
        let dnskey = DNSKEY::from_key(&key.to_public_key().unwrap());
        // Valid from 2024 for sixty years (32-bit serial arithmetic allows no hundred).
        let valid = Duration::from_secs(60 * 365 * 86_400);
        let signer = DnssecSigner::new(dnskey.clone(), Box::new(key), Name::root(), valid);
        Self { signer, dnskey }
    }

    fn sign(&self, records: Vec<Record>) -> Vec<Record> {
        let (owner, kind) = (records[0].name.clone(), records[0].record_type());
        let mut set = RecordSet::new(owner.clone(), kind, 0);
        for record in &records {
            set.insert(record.clone(), 0);
        }
        let inception = rcgen::date_time_ymd(2024, 1, 1);
        let signature = RRSIG::from_rrset(&set, DNSClass::IN, inception, &self.signer).unwrap();
        let signature = RData::DNSSEC(DNSSECRData::RRSIG(signature));
        let ttl = records[0].ttl;
        records.into_iter().chain([Record::from_rdata(owner, ttl, signature)]).collect()
    }

    fn serve(&self, server: &Server) {
        let key = record(".", 3600, RData::DNSSEC(DNSSECRData::DNSKEY(self.dnskey.clone())));
        server.set(".", RecordType::DNSKEY, says(self.sign(vec![key])));
    }

    fn anchor_file(&self) -> tempfile::NamedTempFile {
        let key = base64::engine::general_purpose::STANDARD.encode(self.dnskey.public_key().public_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!(". 3600 IN DNSKEY 257 3 15 {key}\n")).unwrap();
        file
    }

    /// The same as a DS record.
    fn ds_file(&self) -> tempfile::NamedTempFile {
        let digest = self.dnskey.to_digest(&Name::root(), DigestType::SHA256).unwrap();
        let hex: String = digest.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
        let tag = self.dnskey.calculate_key_tag().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!(". IN DS {tag} 15 2 {hex}\n")).unwrap();
        file
    }
}

#[tokio::test]
async fn validation_tells_secure_answers_from_forged_ones() {
    let server = Server::start().await;
    let root = SignedRoot::new();
    root.serve(&server);
    server.set("s.test.", RecordType::MX, says(root.sign(vec![mx("s.test.", 1, "mx.s.test.")])));
    let mut forged = root.sign(vec![mx("f.test.", 1, "mx.f.test.")]);
    forged[0] = mx("f.test.", 1, "mx.evil.test.");
    server.set("f.test.", RecordType::MX, says(forged));
    server.set("u.test.", RecordType::MX, says(vec![mx("u.test.", 1, "mx.evil.test.")]));
    server.set("d.test.", RecordType::MX, [Script { authorities: vec![soa()], ..Script::default() }]);
    let anchor = root.anchor_file();
    let dns = server.dns(|options| {
        options.dnssec = Dnssec::Validate;
        options.trust_anchor_file = Some(anchor.path().to_owned());
    });
    let secure = found(dns.mx(&domain("s.test")).await);
    assert_eq!((secure.status, secure.records[0].exchange.as_str()), (SECURE, "mx.s.test"));
    for (text, what) in [("f.test", "forged"), ("u.test", "unsigned"), ("d.test", "unproven denial")] {
        let failure = failed(dns.mx(&domain(text)).await);
        assert!(failure.bogus, "{what}: {failure}");
        assert!(failure.text.contains("DNSSEC"), "{what}: {failure}");
    }
}

#[test]
fn a_trust_anchor_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("anchor");
    let load = || anchors::load(Some(&file)).err().expect("an error");
    assert!(load().contains("anchor: cannot be read"));
    for content in ["", "; nothing\n", "what is this", ". IN DS 20326 8 2 E06D44B8\n"] {
        std::fs::write(&file, content).unwrap();
        let error = load();
        assert!(error.starts_with("dns.trust_anchor_file") && error.contains("DNSKEY"), "{error}");
    }
}

fn validate(server: &Server, anchor: &tempfile::NamedTempFile) -> HickoryDns {
    server.dns(|options| {
        options.dnssec = Dnssec::Validate;
        options.trust_anchor_file = Some(anchor.path().to_owned());
        options.timeout = Duration::from_millis(150);
    })
}

#[tokio::test]
async fn a_ds_record_is_an_anchor_for_the_key_it_names_and_no_other() {
    let server = Server::start().await;
    let (root, other) = (SignedRoot::new(), SignedRoot::new());
    server.set("s.test.", RecordType::MX, says(root.sign(vec![mx("s.test.", 1, "mx.s.test.")])));
    let mut forged = root.sign(vec![mx("f.test.", 1, "mx.f.test.")]);
    forged[0] = mx("f.test.", 1, "mx.evil.test.");
    server.set("f.test.", RecordType::MX, says(forged));
    let anchor = root.ds_file();
    // Nobody tells the keys: nothing can be said, least of all that a domain is bogus.
    server.set(".", RecordType::DNSKEY, code(ResponseCode::ServFail));
    let dns = validate(&server, &anchor);
    let failure = failed(dns.mx(&domain("s.test")).await);
    assert!(
        !failure.bogus && failure.text.contains("the DNSKEY records of . cannot be fetched"),
        "{failure}"
    );
    // Another key does not do.
    other.serve(&server);
    let failure = failed(validate(&server, &anchor).mx(&domain("s.test")).await);
    assert!(failure.text.contains("no DNSKEY record of . matches a DS record"), "{failure}");
    root.serve(&server);
    let fresh = validate(&server, &anchor);
    assert_eq!(found(fresh.mx(&domain("s.test")).await).status, SECURE);
    assert!(failed(fresh.mx(&domain("f.test")).await).bogus);
    assert!(server.asked().contains(&"udp . DNSKEY AD DO CD".to_owned()), "{:?}", server.asked());
    // The first one asks again soon.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    assert_eq!(found(dns.mx(&domain("s.test")).await).status, SECURE);
}

#[tokio::test]
async fn keys_that_do_not_come_are_a_failed_lookup_and_not_a_forgery() {
    let server = Server::start().await;
    let root = SignedRoot::new();
    let anchor = root.anchor_file();
    server.set("s.test.", RecordType::MX, says(root.sign(vec![mx("s.test.", 1, "mx.s.test.")])));
    for script in [
        Script { silent: true, ..Script::default() },
        Script { code: Some(ResponseCode::ServFail), ..Script::default() },
    ] {
        server.set(".", RecordType::DNSKEY, [script]);
        let dns = validate(&server, &anchor);
        let failure = failed(dns.mx(&domain("s.test")).await);
        assert!(!failure.bogus, "{failure}");
        assert!(failure.text.contains("could not be completed: no answer about DNSKEY of ."), "{failure}");
        // It is not held against the domain when they are there again.
        root.serve(&server);
        assert_eq!(found(dns.mx(&domain("s.test")).await).status, SECURE);
    }
}

#[tokio::test]
async fn a_question_about_a_delegation_that_is_not_answered_is_a_failed_lookup() {
    let server = Server::start().await;
    let root = SignedRoot::new();
    root.serve(&server);
    // An unsigned answer: whether its zone is unsigned is asked for, and not answered.
    server.set("u.test.", RecordType::MX, says(vec![mx("u.test.", 1, "mx.u.test.")]));
    for name in ["u.test.", "test."] {
        server.set(name, RecordType::NS, [Script { silent: true, ..Script::default() }]);
        server.set(name, RecordType::DS, [Script { silent: true, ..Script::default() }]);
    }
    let failure = failed(validate(&server, &root.anchor_file()).mx(&domain("u.test")).await);
    assert!(!failure.bogus && failure.text.contains("could not be completed"), "{failure}");
}

#[tokio::test]
async fn what_a_validator_refuses_and_has_is_bogus_and_its_data_is_not_used() {
    let server = Server::start().await;
    let refused = |name: &str| Script {
        answers: vec![mx(name, 1, "mx.evil.test.")],
        refused: true,
        ..Script::default()
    };
    server.set("b.test.", RecordType::MX, [refused("b.test.")]);
    server.set("f.test.", RecordType::MX, code(ResponseCode::ServFail));
    let dns = server.dns(|_| ());
    let failure = failed(dns.mx(&domain("b.test")).await);
    assert!(failure.bogus && failure.text.contains("only with checking disabled"), "{failure}");
    assert!(!failed(dns.mx(&domain("f.test")).await).bogus);
    // Where no AD bit is believed, nobody asks.
    let before = server.asked().len();
    let off = server.dns(|options| options.dnssec = Dnssec::Off);
    assert!(!failed(off.mx(&domain("b.test")).await).bogus);
    assert_eq!(server.asked().len(), before + 1);
}

fn root_soa(authentic: bool) -> Script {
    let soa = record(".", 900, RData::SOA(SOA::new(name("a."), name("b."), 1, 2, 3, 4, 60)));
    Script { answers: vec![soa], authentic, ..Script::default() }
}

#[tokio::test]
async fn a_resolver_that_does_not_validate_or_cannot_is_seen() {
    let server = Server::start().await;
    let dns = server.dns(|options| options.timeout = Duration::from_millis(100));
    let look = async |script: Script| {
        server.set(".", RecordType::SOA, [script]);
        dns.validation().await
    };
    assert_eq!(look(root_soa(true)).await, Validation::Works);
    let address = server.address.to_string();
    let Validation::Missing(text) = look(root_soa(false)).await else { panic!() };
    assert!(text.contains(&address) && text.contains("without the AD bit"), "{text}");
    let Validation::Broken(text) = look(Script { refused: true, ..root_soa(false) }).await else { panic!() };
    assert!(text.contains(&address) && text.contains("checking disabled"), "{text}");
    let Validation::Silent(text) = look(Script { silent: true, ..Script::default() }).await else { panic!() };
    assert!(text.contains(&address), "{text}");
    let failing = Script { code: Some(ResponseCode::ServFail), ..Script::default() };
    assert!(matches!(look(failing).await, Validation::Silent(_)));
    // Another name, or none.
    server.set("signed.test.", RecordType::SOA, [Script { authentic: true, ..Script::default() }]);
    let other = server.dns(|options| options.dnssec_probe = "signed.test".to_owned());
    assert_eq!(other.validation().await, Validation::Works);
    for change in [(|options: &mut Options| options.dnssec_probe.clear()) as fn(&mut Options), |options| {
        options.dnssec = Dnssec::Off
    }] {
        let before = server.asked().len();
        assert!(matches!(server.dns(change).validation().await, Validation::Off(_)));
        assert_eq!(server.asked().len(), before);
    }
}

#[tokio::test]
async fn domains_refused_in_a_row_tell_of_a_validator_whose_probe_still_works() {
    let server = Server::start().await;
    server.set(".", RecordType::SOA, [root_soa(true)]);
    let dns = server.dns(|_| ());
    for n in 0..validation::BOGUS_DOMAINS {
        assert_eq!(dns.validation().await, Validation::Works, "{n} domains");
        let name = format!("d{n}.test");
        let script = Script {
            answers: vec![mx(&format!("{name}."), 1, "m.test.")],
            refused: true,
            ..Script::default()
        };
        server.set(&format!("{name}."), RecordType::MX, [script]);
        assert!(failed(dns.mx(&domain(&name)).await).bogus);
    }
    assert!(matches!(dns.validation().await, Validation::Broken(_)));
    // One secure answer, and it was the domains.
    let script = Script { answers: vec![mx("s.test.", 1, "m.test.")], authentic: true, ..Script::default() };
    server.set("s.test.", RecordType::MX, [script]);
    found(dns.mx(&domain("s.test")).await);
    assert_eq!(dns.validation().await, Validation::Works);
}

#[tokio::test]
async fn our_own_validation_is_seen_to_work_or_not() {
    let server = Server::start().await;
    let (root, other) = (SignedRoot::new(), SignedRoot::new());
    root.serve(&server);
    let soa = root_soa(false).answers;
    server.set(".", RecordType::SOA, says(root.sign(soa.clone())));
    assert_eq!(validate(&server, &root.anchor_file()).validation().await, Validation::Works);
    assert_eq!(validate(&server, &root.ds_file()).validation().await, Validation::Works);
    // The key was rolled and the anchor was not.
    let Validation::Broken(text) = validate(&server, &other.anchor_file()).validation().await else {
        panic!()
    };
    assert!(text.contains("dns.trust_anchor_file"), "{text}");
    // Signatures stripped on the way.
    server.set(".", RecordType::SOA, says(soa));
    assert!(matches!(validate(&server, &root.anchor_file()).validation().await, Validation::Broken(_)));
    // No answer is no fault of the anchor.
    server.set(".", RecordType::SOA, says(root.sign(root_soa(false).answers)));
    server.set(".", RecordType::DNSKEY, [Script { silent: true, ..Script::default() }]);
    assert!(matches!(validate(&server, &root.anchor_file()).validation().await, Validation::Silent(_)));
}

#[test]
fn a_probe_that_is_no_name_is_told() {
    let nameservers = vec!["127.0.0.1:53".parse().unwrap()];
    let options = Options { nameservers, dnssec_probe: "a..b".to_owned(), ..Options::default() };
    assert!(HickoryDns::new(options).err().unwrap().starts_with("dns.dnssec_probe \"a..b\""));
}
