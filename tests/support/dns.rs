//! A name server with records and failures that a test sets while it runs, and a log of questions.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// How a name behaves instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SERVFAIL.
    ServFail,
    /// No answer at all.
    Silence,
    /// SERVFAIL unless checking is disabled, as a validator answers what is bogus.
    Bogus,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    faults: HashMap<(String, RecordType), Fault>,
    authentic: bool,
    unsigned: HashSet<String>,
    /// Every signed answer fails validation.
    broken: bool,
    ttl: u32,
    questions: Vec<(String, RecordType)>,
}

/// The server. Names are given without final dot.
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    /// Where it answers, UDP and TCP.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).expect("test names are names")
}

impl Dns {
    /// Starts an empty server; every name is NXDOMAIN, TTLs are 1 second.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// The same at an address of the caller's choice.
    pub async fn start_at(address: SocketAddr) -> Self {
        let mut tries = 0;
        let (udp, tcp) = loop {
            let bound = UdpSocket::bind(address).await;
            if let Ok(udp) = bound
                && let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")).await
            {
                break (udp, tcp);
            }
            // A world that was just dropped may hold it for a moment.
            tries += 1;
            assert!(tries < 100, "{address} can be bound");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        let address = udp.local_addr().expect("bound");
        let zone = Arc::new(Mutex::new(Zone { ttl: 1, ..Zone::default() }));
        let mut tasks = JoinSet::new();
        let udp_zone = zone.clone();
        tasks.spawn(async move {
            let mut buffer = [0u8; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&udp_zone, &buffer[..length]) {
                    let _ = udp.send_to(&answer, peer).await;
                }
            }
        });
        let tcp_zone = zone.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let zone = tcp_zone.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0u8; usize::from(length)];
                        if stream.read_exact(&mut question).await.is_err() {
                            break;
                        }
                        let Some(answer) = answer(&zone, &question) else { continue };
                        let length = u16::try_from(answer.len()).expect("test answers are short");
                        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err()
                        {
                            break;
                        }
                    }
                });
            }
        });
        Self { zone, address, _tasks: tasks }
    }

    fn add(&self, owner: &str, data: RData) {
        self.zone.lock().expect("no panic").records.entry(owner.to_lowercase()).or_default().push(data);
    }

    /// Adds an MX record.
    pub fn mx(&self, owner: &str, preference: u16, exchange: &str) {
        self.add(owner, RData::MX(MX::new(preference, name(exchange))));
    }

    /// Adds an A or AAAA record.
    pub fn address(&self, owner: &str, ip: IpAddr) {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.add(owner, data);
    }

    /// Adds a TXT record of one character-string.
    pub fn txt(&self, owner: &str, text: &str) {
        self.add(owner, RData::TXT(TXT::new(vec![text.to_owned()])));
    }

    /// Adds a TXT record of several character-strings.
    pub fn txt_strings(&self, owner: &str, strings: Vec<String>) {
        self.add(owner, RData::TXT(TXT::new(strings)));
    }

    /// Adds a TLSA record: `USAGE SELECTOR MATCHING` and its data.
    pub fn tlsa(&self, owner: &str, [usage, selector, matching]: [u8; 3], data: &[u8]) {
        let data = TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec());
        self.add(owner, RData::TLSA(data));
    }

    /// Adds a CNAME record.
    pub fn cname(&self, owner: &str, target: &str) {
        self.add(owner, RData::CNAME(CNAME(name(target))));
    }

    /// Removes all records of a name and type.
    pub fn remove(&self, owner: &str, kind: RecordType) {
        if let Some(records) = self.zone.lock().expect("no panic").records.get_mut(&owner.to_lowercase()) {
            records.retain(|data| data.record_type() != kind);
        }
    }

    /// Replaces the TXT records of a name.
    pub fn set_txt(&self, owner: &str, text: &str) {
        self.remove(owner, RecordType::TXT);
        self.txt(owner, text);
    }

    /// Makes questions for a name and type fail, or answer again.
    pub fn fault(&self, owner: &str, kind: RecordType, fault: Option<Fault>) {
        let mut zone = self.zone.lock().expect("no panic");
        let key = (owner.to_lowercase(), kind);
        match fault {
            Some(fault) => zone.faults.insert(key, fault),
            None => zone.faults.remove(&key),
        };
    }

    /// Whether answers carry the AD bit.
    pub fn authentic(&self, authentic: bool) {
        self.zone.lock().expect("no panic").authentic = authentic;
    }

    /// Makes answers to questions about this name lack the AD bit all the same.
    pub fn unsigned(&self, owner: &str) {
        self.zone.lock().expect("no panic").unsigned.insert(owner.to_lowercase());
    }

    /// The validator refuses whatever is signed unless checking is disabled, or works again.
    pub fn broken(&self, broken: bool) {
        self.zone.lock().expect("no panic").broken = broken;
    }

    /// The validator validates nothing, or does again.
    pub fn validates(&self, validates: bool) {
        let mut zone = self.zone.lock().expect("no panic");
        zone.authentic = validates;
        if validates {
            zone.unsigned.remove("");
        } else {
            zone.unsigned.insert(String::new());
        }
    }

    /// TTL of all answers, seconds.
    pub fn ttl(&self, seconds: u32) {
        self.zone.lock().expect("no panic").ttl = seconds;
    }

    /// How often this was asked.
    pub fn asked(&self, owner: &str, kind: RecordType) -> usize {
        let key = (owner.to_lowercase(), kind);
        self.zone.lock().expect("no panic").questions.iter().filter(|asked| **asked == key).count()
    }

    /// Questions in all, but for looks at the root: whether the resolver validates.
    pub fn questions(&self) -> usize {
        let zone = self.zone.lock().expect("no panic");
        zone.questions.iter().filter(|(name, _)| !name.is_empty()).count()
    }
}

fn answer(zone: &Mutex<Zone>, question: &[u8]) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).ok()?;
    let query = request.queries.first()?.clone();
    let asked = query.name().to_ascii().trim_end_matches('.').to_lowercase();
    let kind = query.query_type();
    let mut zone = zone.lock().expect("no panic");
    zone.questions.push((asked.clone(), kind));
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata.recursion_desired = true;
    response.metadata.recursion_available = true;
    // The root is always signed: it shows that there is a validator.
    let signed = (zone.authentic || asked.is_empty()) && !zone.unsigned.contains(&asked);
    response.metadata.authentic_data = signed;
    response.add_query(query);
    let refused = !request.metadata.checking_disabled;
    match zone.faults.get(&(asked.clone(), kind)) {
        Some(Fault::Bogus) if refused => response.metadata.response_code = ResponseCode::ServFail,
        _ if refused && signed && zone.broken => response.metadata.response_code = ResponseCode::ServFail,
        Some(Fault::Bogus) => fill(&zone, &mut response, asked, kind),
        Some(Fault::Silence) => return None,
        Some(Fault::ServFail) => response.metadata.response_code = ResponseCode::ServFail,
        None => fill(&zone, &mut response, asked, kind),
    }
    response.to_vec().ok()
}

fn fill(zone: &Zone, response: &mut Message, asked: String, kind: RecordType) {
    let mut owner = asked;
    for _ in 0..8 {
        let Some(records) = zone.records.get(&owner) else {
            // An empty non-terminal exists without records.
            let below = format!(".{owner}");
            if !zone.records.keys().any(|other| other.ends_with(&below)) {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            return;
        };
        let found: Vec<&RData> = records.iter().filter(|data| data.record_type() == kind).collect();
        for data in &found {
            response.add_answer(Record::from_rdata(name(&owner), zone.ttl, (*data).clone()));
        }
        let alias = records.iter().find_map(|data| match data {
            RData::CNAME(target) if found.is_empty() => Some(target.clone()),
            _ => None,
        });
        let Some(target) = alias else { return };
        response.add_answer(Record::from_rdata(name(&owner), zone.ttl, RData::CNAME(target.clone())));
        owner = target.0.to_ascii().trim_end_matches('.').to_lowercase();
    }
}
