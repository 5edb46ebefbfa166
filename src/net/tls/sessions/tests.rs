//! Whether a session serves only where a full handshake with exactly these demands has succeeded.

use std::sync::Mutex;

use aws_lc_rs::digest;
use rcgen::date_time_ymd;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::dane::Tlsa;
use crate::net::testing::{Ca, Leaf};
use crate::net::tls::{ClientOptions, ClientTls, TlsFacts};
use crate::net::world::Clock;
use crate::route::DnssecStatus;
use crate::tlspolicy::{Rule, TlsFailure};

const NAME: &str = "mx1.example.test";
const HOUR: Duration = Duration::from_secs(3600);
const EACH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

struct Watch(Mutex<Timestamp>);

impl Watch {
    fn advance(&self, minutes: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_mins(minutes);
    }
}

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A client with a clock of its own, and a server that remembers its sessions.
struct House {
    clock: Arc<Watch>,
    client: Arc<ClientTls>,
    server: TlsAcceptor,
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn house(ca: &Ca, leaf: &Leaf, version: &'static SupportedProtocolVersion) -> House {
    let (_dir, file) = ca.roots_file();
    let options = ClientOptions { use_system_roots: false, extra_roots_file: Some(file) };
    let clock = Arc::new(Watch(Mutex::new("2026-11-22T08:00:00Z".parse().unwrap())));
    let client = ClientTls::with_clock(&options, clock.clone()).unwrap().resuming(HOUR);
    House { clock, client, server: leaf.acceptor(&[version]) }
}

impl House {
    async fn try_shake(&self, plan: &TlsPlan) -> Result<TlsFacts, TlsFailure> {
        let (near, far) = duplex(64 * 1024);
        let acceptor = self.server.clone();
        let server = tokio::spawn(async move {
            let mut stream = acceptor.accept(far).await.ok()?;
            let kind = stream.get_ref().1.handshake_kind()?;
            stream.write_all(b"x").await.ok()?;
            stream.read_u8().await.ok()?;
            Some(kind)
        });
        let recalled = self.client.recall(plan);
        let (mut stream, facts) = self.client.handshake_for(Box::new(near), plan, recalled).await?;
        // What the server gives for the next time comes with its first octets.
        stream.read_u8().await.unwrap();
        stream.write_u8(0).await.unwrap();
        stream.flush().await.unwrap();
        let kind = server.await.unwrap().unwrap();
        assert_eq!(facts.resumed, kind == HandshakeKind::Resumed, "both ends say the same");
        assert_eq!(facts.at, self.clock.now());
        Ok(facts)
    }

    async fn resumed(&self, plan: &TlsPlan) -> bool {
        let facts = self.try_shake(plan).await.unwrap();
        assert!(!facts.resumed || facts.verify(&plan.require).is_ok());
        facts.resumed
    }
}

fn plan(require: Requirement) -> TlsPlan {
    TlsPlan {
        require,
        name: domain(NAME),
        sni: domain(NAME),
        mx_status: DnssecStatus::Secure,
        report_on: Vec::new(),
        rule: Rule::StsEnforce,
        local_text: None,
    }
}

fn pkix() -> TlsPlan {
    plan(Requirement::Pkix { name: domain(NAME) })
}

fn dane(keys: &[&[u8]]) -> TlsPlan {
    let record = |key: &&[u8]| {
        let data = digest::digest(&digest::SHA256, key).as_ref().to_vec();
        Tlsa { usage: 3, selector: 1, matching: 1, data }
    };
    plan(Requirement::Dane { records: keys.iter().map(record).collect(), names: vec![domain(NAME)] })
}

#[tokio::test]
async fn the_same_demands_are_met_by_a_resumed_session_with_the_same_proof() {
    for version in EACH {
        let ca = Ca::new();
        let leaf = ca.leaf(&[NAME]);
        let house = house(&ca, &leaf, version);
        for plan in [pkix(), dane(&[&leaf.spki()]), plan(Requirement::Opportunistic)] {
            let full = house.try_shake(&plan).await.unwrap();
            for _ in 0..3 {
                let again = house.try_shake(&plan).await.unwrap();
                assert!(!full.resumed && again.resumed, "{plan:?}");
                assert_eq!((&again.chain_sha256, &again.pkix), (&full.chain_sha256, &full.pkix));
                assert_eq!(again.verify(&plan.require), Ok(()));
            }
        }
    }
}

#[tokio::test]
async fn other_demands_are_met_by_a_full_handshake_only() {
    for version in EACH {
        let ca = Ca::new();
        let leaf = ca.leaf(&[NAME, "mx2.example.test"]);
        let house = house(&ca, &leaf, version);
        let key = leaf.spki();
        let other_name = TlsPlan { name: domain("mx2.example.test"), ..plan(Requirement::Opportunistic) };
        let other_sni = TlsPlan { sni: domain("mx2.example.test"), ..pkix() };
        let both = Requirement::DaneAndPkix { records: vec![], names: vec![], name: domain(NAME) };
        let with_records = |of: &TlsPlan| match (&of.require, both.clone()) {
            (Requirement::Dane { records, names }, Requirement::DaneAndPkix { name, .. }) => {
                plan(Requirement::DaneAndPkix { records: records.clone(), names: names.clone(), name })
            }
            _ => unreachable!(),
        };
        let plans = [
            plan(Requirement::Opportunistic),
            plan(Requirement::Encrypt),
            pkix(),
            other_name,
            other_sni,
            dane(&[&key]),
            // A record more: the set was changed.
            dane(&[&key, b"next key"]),
            with_records(&dane(&[&key])),
        ];
        for plan in &plans {
            assert!(!house.resumed(plan).await, "{plan:?} was met by another plan's session");
        }
        for plan in &plans {
            assert!(house.resumed(plan).await, "{plan:?}");
        }
    }
}

#[tokio::test]
async fn what_did_not_meet_the_plan_or_proved_nothing_is_not_kept() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    for version in EACH {
        let bad = house(&ca, &stranger.leaf(&[NAME]), version);
        for plan in
            [pkix(), dane(&[b"other key"]), plan(Requirement::Encrypt), plan(Requirement::Opportunistic)]
        {
            for _ in 0..3 {
                assert!(!bad.resumed(&plan).await, "{plan:?}");
            }
        }
        // TLSA records vouch for it all the same.
        let leaf = stranger.leaf(&[NAME]);
        let vouched = house(&ca, &leaf, version);
        let plan = dane(&[&leaf.spki()]);
        assert!(!vouched.resumed(&plan).await && vouched.resumed(&plan).await);
    }
}

#[tokio::test]
async fn a_session_lives_an_hour_from_its_full_handshake_however_often_it_is_resumed() {
    for version in EACH {
        let ca = Ca::new();
        let house = house(&ca, &ca.leaf(&[NAME]), version);
        assert!(!house.resumed(&pkix()).await);
        for _ in 0..2 {
            house.clock.advance(25);
            assert!(house.resumed(&pkix()).await);
        }
        house.clock.advance(10);
        assert!(!house.resumed(&pkix()).await, "an hour is over");
        assert!(house.resumed(&pkix()).await, "a new hour");
        house.clock.advance(-1);
        assert!(!house.resumed(&pkix()).await, "nobody knows how old it is");
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_its_certificate() {
    for version in EACH {
        let ca = Ca::new();
        let leaf = ca.leaf_with(&[NAME], |params| params.not_after = date_time_ymd(2026, 11, 23));
        let house = house(&ca, &leaf, version);
        house.clock.advance(15 * 60 + 30);
        assert!(!house.resumed(&pkix()).await && house.resumed(&pkix()).await);
        house.clock.advance(31);
        assert!(house.client.recall(&pkix()).is_none());
        let facts = house.try_shake(&pkix()).await.unwrap();
        assert!(!facts.resumed && facts.verify(&pkix().require).is_err());
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_gets_a_full_handshake_and_shows_what_it_has_now() {
    for version in EACH {
        let ca = Ca::new();
        let mut house = house(&ca, &ca.leaf(&[NAME]), version);
        assert!(!house.resumed(&pkix()).await);
        house.server = Ca::new().leaf(&[NAME]).acceptor(&[version]);
        let facts = house.try_shake(&pkix()).await.unwrap();
        assert!(!facts.resumed && facts.verify(&pkix().require).is_err(), "the old proof is worth nothing");
    }
}

#[tokio::test]
async fn forgotten_and_switched_off_is_never_resumed() {
    let ca = Ca::new();
    let mut house = house(&ca, &ca.leaf(&[NAME]), &TLS13);
    assert!(!house.resumed(&pkix()).await);
    house.client.forget(&pkix());
    assert!(!house.resumed(&pkix()).await);
    house.client = house.client.resuming(Duration::ZERO);
    for _ in 0..2 {
        assert!(!house.resumed(&pkix()).await);
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let ca = Ca::new();
    let house = house(&ca, &ca.leaf(&[NAME]), &TLS12);
    assert!(!house.resumed(&pkix()).await);
    let sessions = Sessions::new(HOUR);
    let session = || house.client.recall(&pkix()).unwrap();
    for number in 0..KEYS_MAX + 10 {
        let key = Key { sni: domain(&format!("mx{number}.example.test")), ..Key::of(&pkix()) };
        let Recalled { secret, origin } = session();
        sessions.keep(&key, secret, origin);
    }
    let keys = sessions.lock().len();
    assert!((KEYS_MAX / 2..=KEYS_MAX).contains(&keys), "{keys}");
    let tickets = self::house(&ca, &ca.leaf(&[NAME]), &TLS13);
    for _ in 0..3 * SESSIONS_PER_KEY_MAX {
        let Recalled { secret, origin } = {
            tickets.client.forget(&pkix());
            assert!(!tickets.resumed(&pkix()).await);
            tickets.client.recall(&pkix()).unwrap()
        };
        sessions.keep(&Key::of(&pkix()), secret, origin);
    }
    assert_eq!(sessions.lock()[&Key::of(&pkix())].len(), SESSIONS_PER_KEY_MAX);
}
