//! What there is outside of the relay: hosts, domains, their policies and manners, and what the relay
//! was told of them. Plain data; `doors` and `mx` act on it, `scenario` changes it, `verdict` judges.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest;
use rustls::ServerConfig;
use stsrelay::dane::Tlsa;
use stsrelay::mail::Domain;

use crate::pki::{Kind, Leaf, Pki};

/// How an MX host treats whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Good,
    /// Each reply takes seconds.
    Slow,
    /// Connects and never greets.
    Silent,
    /// 450 for five minutes, per recipient.
    Greylisting,
    /// 421 as greeting.
    Busy,
    /// 450 for every recipient.
    Deferring,
    /// 552 after the dot.
    Full,
    /// 550 for every recipient.
    Refusing,
    /// 451 after the dot.
    Failing,
    /// Takes the message and drops the connection before it says so.
    DropsAfterDot,
    /// Takes the message and says so when nobody listens any more.
    LateReply,
    /// Drops the connection at MAIL.
    DropsAtMail,
    /// One recipient at a time.
    OneRecipient,
    /// 450 for every other recipient.
    Choosy,
    /// 550 for every other recipient.
    Picky,
    /// 421 at the second recipient, and away.
    Leaves,
    NoStartTls,
    /// Says 220 to STARTTLS and then no TLS.
    BrokenTls,
    /// Nothing listens.
    Dead,
    /// Packets vanish.
    Blackhole,
}

/// A certificate a host may show.
pub struct Shown {
    pub config: Arc<ServerConfig>,
    /// PKIX-valid for the host.
    pub valid: bool,
    /// Which of the host's keys.
    pub key: usize,
}

pub struct Host {
    pub name: Domain,
    pub ip: [u8; 4],
    pub manner: Manner,
    /// Good with key 0, good with key 1, wrong name, expired, self-signed.
    pub certificates: Vec<Arc<Shown>>,
    pub certificate: usize,
    /// In a signed zone.
    pub signed: bool,
    /// `3 1 1` of each key.
    pub records: Vec<Tlsa>,
    /// Which keys are published, and since when (ms); newest last.
    pub tlsa: Vec<(u64, Vec<usize>)>,
    pub tlsa_answers: Answers,
    /// Recipients greylisted, with the time they were first seen.
    pub greylist: Vec<(String, u64)>,
    /// Wall seconds of each connection.
    pub sessions: Vec<i64>,
    /// Offers REQUIRETLS within TLS.
    pub requiretls: bool,
    /// Connections open now.
    pub open: u32,
    /// What each connection came to that reached a decision about TLS.
    pub seen: Vec<Seen>,
}

/// A connection as its host saw it, for the tallies.
pub struct Seen {
    /// Wall seconds.
    pub wall: i64,
    /// When (ms).
    pub at: u64,
    pub tls: SeenTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenTls {
    /// TLS with a PKIX-valid certificate.
    Valid,
    /// A handshake in which an invalid one was shown.
    Invalid,
    /// The handshake came to nothing.
    Broken,
    /// No STARTTLS was offered.
    Clear,
}

/// How a name server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Fine,
    Servfail,
    Silent,
    Bogus,
}

/// How a web server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    Fine,
    Refused,
    Silent,
    BadCertificate,
    Nonsense,
    /// A report endpoint that takes the report and is not heard.
    Unheard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub enforce: bool,
    pub mode: &'static str,
    /// Indices of hosts.
    pub mx: Vec<usize>,
    pub max_age: u64,
    pub id: u64,
}

/// What the relay knows of a policy for sure.
pub struct Told {
    /// When (ms).
    pub at: u64,
    /// `None`: it cannot be told what the relay knows.
    pub policy: Option<Policy>,
    /// By how much the clock was set forward since (ms).
    pub jumped: u64,
}

pub struct Zone {
    pub name: Domain,
    pub mx: Vec<(u16, usize)>,
    pub signed: bool,
    pub answers: Answers,
    pub policy: Option<Policy>,
    pub txt_lost: bool,
    pub web: Web,
    pub endpoint: Web,
    pub rua: Option<String>,
    /// When (ms) something about the policy changed last.
    pub changed: u64,
    pub told: Vec<Told>,
    /// Wall seconds of each (connection, this domain).
    pub uses: Vec<i64>,
    /// When nothing stood against ordinary mail.
    pub well: Spells,
    /// When nothing stood against mail that asks for no TLS.
    pub open: Spells,
}

/// Times (ms) in which something held and nothing about it changed.
#[derive(Default)]
pub struct Spells {
    pub since: Option<u64>,
    pub past: Vec<(u64, u64)>,
}

/// A local rule of the relay's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Index of the zone.
    pub zone: usize,
    pub require: &'static str,
    /// Wall milliseconds.
    pub until: Option<i64>,
}

/// The sender's domain; its troubles are short, so that every bounce can arrive.
pub const HOME: usize = 0;
/// Never in trouble: mail for it is never late.
pub const GOOD: usize = 1;
/// The relay's own domain: nobody writes to it, so nothing ever arrives there.
pub const TRAP: usize = 9;
/// Has no policy, and the hosts of `big.example`, which has one.
pub const LAX: usize = 7;
/// The domains whose hosts serve nobody else.
pub const ALONE: [usize; 3] = [GOOD, 5, 6];

pub fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

/// Names of hosts, and whether their zones are signed.
const NAMES: [(&str, bool); 12] = [
    ("mx1.home.example", false),
    ("mx2.home.example", false),
    ("mx.good.example", false),
    ("mx1.big.example", false),
    ("mx2.big.example", false),
    ("mx3.big.example", false),
    ("mx1.signed.example", true),
    ("mx2.signed.example", true),
    ("mx.small.example", false),
    ("mx.lonely.example", false),
    ("mx.relay.example", false),
    ("mx.aside.example", true),
];
/// Those that offer REQUIRETLS.
const REQUIRETLS: [usize; 5] = [1, 2, 4, 6, 9];

/// The CA, and for each host certificates: good, good with another key, wrong name, expired,
/// self-signed. Made once: nothing that happens depends on their octets.
static CERTIFICATES: LazyLock<(Pki, Vec<[Leaf; 5]>)> = LazyLock::new(|| {
    let pki = Pki::new();
    let leaves = |(name, _): &(&str, bool)| {
        [
            pki.leaf(&[name], Kind::Good),
            pki.leaf(&[name], Kind::Good),
            pki.leaf(&["elsewhere.example"], Kind::Good),
            pki.leaf(&[name], Kind::Expired),
            pki.leaf(&[name], Kind::SelfSigned),
        ]
    };
    let all = NAMES.iter().map(leaves).collect();
    (pki, all)
});

pub fn root_pem() -> String {
    CERTIFICATES.0.root_pem()
}

/// For the relay's own listener.
pub fn own_leaf() -> Leaf {
    CERTIFICATES.0.leaf(&["relay.example"], Kind::Good)
}

/// What the relay's clients trust.
pub fn root_der() -> rustls::pki_types::CertificateDer<'static> {
    CERTIFICATES.0.root_der()
}

pub fn hosts() -> Vec<Host> {
    let host = |(at, (name, signed)): (usize, &(&str, bool))| {
        let leaves = &CERTIFICATES.1[at];
        let shown = |(at, leaf): (usize, &Leaf)| {
            Arc::new(Shown { config: leaf.server_config(), valid: at < 2, key: at.min(2) })
        };
        let certificates = leaves.iter().enumerate().map(shown).collect();
        let record = |leaf: &Leaf| {
            let data = digest::digest(&digest::SHA256, &leaf.spki()).as_ref().to_vec();
            Tlsa { usage: 3, selector: 1, matching: 1, data }
        };
        Host {
            name: domain(name),
            ip: [192, 0, 2, at as u8 + 1],
            manner: Manner::Good,
            certificates,
            certificate: 0,
            signed: *signed,
            records: vec![record(&leaves[0]), record(&leaves[1])],
            tlsa: if *signed { vec![(0, vec![0])] } else { vec![(0, vec![])] },
            tlsa_answers: Answers::Fine,
            greylist: Vec::new(),
            sessions: Vec::new(),
            requiretls: REQUIRETLS.contains(&at),
            open: 0,
            seen: Vec::new(),
        }
    };
    NAMES.iter().enumerate().map(host).collect()
}

pub fn zones() -> Vec<Zone> {
    let enforce = |mx: &[usize]| {
        Some(Policy { enforce: true, mode: "enforce", mx: mx.to_vec(), max_age: 86_400, id: 1 })
    };
    let zone = |name: &str, mx: &[(u16, usize)], signed, policy| Zone {
        name: domain(name),
        mx: mx.to_vec(),
        signed,
        answers: Answers::Fine,
        policy,
        txt_lost: false,
        web: Web::Fine,
        endpoint: Web::Fine,
        rua: Some(format!("https://reports.{name}/tlsrpt")),
        changed: 0,
        told: Vec::new(),
        uses: Vec::new(),
        well: Spells::default(),
        open: Spells::default(),
    };
    let mut zones = vec![
        zone("home.example", &[(10, 0), (20, 1)], false, None),
        zone("good.example", &[(10, 2)], false, enforce(&[2])),
        zone("big.example", &[(10, 3), (10, 4), (20, 5)], false, enforce(&[3, 4])),
        zone("signed.example", &[(10, 6), (20, 7)], true, None),
        zone("both.example", &[(10, 6), (10, 3)], true, enforce(&[6, 3])),
        zone("small.example", &[(10, 8)], false, None),
        zone("lonely.example", &[(10, 9)], false, enforce(&[9])),
        zone("lax.example", &[(10, 3), (20, 4)], false, None),
        zone("aside.example", &[(10, 11)], false, enforce(&[11])),
        zone("relay.example", &[(10, 10)], false, None),
    ];
    zones[LAX].rua = Some("mailto:tls@home.example".to_owned());
    (zones[HOME].rua, zones[TRAP].rua) = (None, None);
    zones
}

impl Zone {
    pub fn policy_text(&self, hosts: &[Host]) -> Option<String> {
        let policy = self.policy.as_ref()?;
        let mx: String = policy.mx.iter().map(|host| format!("mx: {}\r\n", hosts[*host].name)).collect();
        Some(format!("version: STSv1\r\nmode: {}\r\n{mx}max_age: {}\r\n", policy.mode, policy.max_age))
    }
}
