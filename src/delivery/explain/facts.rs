//! What `explain` found out: every fact that bears on mail to one destination, and what follows.
//!
//! Pure, and serialised as it is: these types are the JSON of `stsrelay explain --json` and travel
//! over the admin socket. Filled in by [`super::Explainer`], shown by `cli::explain`.

mod host;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::delivery::static_route::{Hop, HopTls};
use crate::mail::{Destination, Domain, Failure, Permanence};
use crate::net::dns::{Answer, Lookup};
use crate::route::DnssecStatus;
use crate::sts::{FetchTrouble, Mode, StsPolicy, freshness};
use crate::tlspolicy::LocalRule;
use crate::tlsrpt::ResultType;

pub use self::host::{
    AddressFacts, HostExplained, ReportFacts, ResultFacts, TlsShown, TlsaFacts, TlsaRecord, Try,
    VerdictFacts, rule_in_words,
};

/// Everything about mail to one destination, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// When.
    pub at: Timestamp,
    /// Where mail is to go.
    pub destination: Destination,
    /// What follows: the first thing to read.
    pub conclusion: Conclusion,
    /// Why queued mail is not tried at present, whatever is found below.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// What is the matter with the relay's own DNSSEC validation, if anything.
    #[serde(default)]
    pub validator: Option<String>,
    /// The static route that mail goes by.
    pub route: Option<RouteFacts>,
    /// The MX answer; absent where none is asked for: for an address, and for a host that a route names.
    pub mx: Option<Asked>,
    /// There are no MX records: the domain itself is the host (RFC 5321 §5.1).
    pub implicit_mx: bool,
    /// Why there is no route, if there is none.
    pub route_trouble: Option<Trouble>,
    /// The `_mta-sts` TXT answer; absent for an address literal.
    pub record: Option<RecordFacts>,
    /// What MTA-STS says; absent for an address literal (RFC 8461 §3.4).
    pub policy: Option<PolicyFacts>,
    /// The local rule in force.
    pub local: LocalFacts,
    /// In the order to try; hosts of equal preference are shuffled for each attempt.
    pub hosts: Vec<HostExplained>,
    /// Whether the hosts were connected to.
    pub connected: bool,
}

/// A time without attempts: the operator's, or one that its hosts asked for or made necessary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its end; absent for the operator's word.
    pub until: Option<Timestamp>,
    /// Why, one sentence.
    pub text: String,
}

/// A static route (`[[route]]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFacts {
    /// Whose mail goes by it, as configured: `*`, `*.example.net`.
    pub whom: String,
    /// Where, as configured: `[smart.example.org]:587`.
    pub next_hop: String,
    /// Whose policies count; absent for an address.
    pub policy_domain: Option<Domain>,
    /// The port connected to.
    pub port: u16,
    /// How TLS begins.
    pub tls: HopTls,
    /// As whom we log in.
    pub username: Option<String>,
}

impl RouteFacts {
    /// Of a hop that a route leads to.
    pub fn of(hop: &Hop) -> Option<Self> {
        hop.via.as_ref().map(|route| Self {
            whom: route.whom().to_string(),
            next_hop: route.next_hop().to_string(),
            policy_domain: hop.policy_domain().cloned(),
            port: hop.port,
            tls: route.tls(),
            username: route.credentials().map(|credentials| credentials.username().to_owned()),
        })
    }
}

/// What would become of mail now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// In one word.
    pub mail: Fate,
    /// In one sentence; of a failure the same as in the log and in bounces.
    pub text: String,
}

/// What becomes of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// A host may be used; with `--connect`, could be used.
    Goes,
    /// It is tried again.
    Waits,
    /// The sender is told.
    Bounces,
}

/// A failure in the words of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// RFC 3463 code.
    pub status: String,
    /// One sentence.
    pub text: String,
    /// Whether trying again cannot help.
    pub permanent: bool,
}

impl From<&Failure> for Trouble {
    fn from(failure: &Failure) -> Self {
        Self {
            status: failure.status.to_string(),
            text: failure.text.clone(),
            permanent: failure.permanence == Permanence::Permanent,
        }
    }
}

/// One DNS answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// `found`, `no-data`, `no-such-name` or `failed`.
    pub answer: String,
    /// `secure`, `insecure`, `bogus` or `indeterminate`; absent when the lookup failed.
    pub dnssec: Option<String>,
    /// The records as text.
    pub records: Vec<String>,
    /// Seconds the answer may be kept.
    pub ttl: Option<u64>,
    /// Why it failed.
    pub trouble: Option<String>,
}

impl Asked {
    /// The answer, its records told by `show`.
    pub fn new<T>(lookup: &Lookup<T>, show: impl Fn(&T) -> String) -> Self {
        let plain = |answer: &str, status: DnssecStatus| Self {
            answer: answer.to_owned(),
            dnssec: Some(dnssec_word(status).to_owned()),
            ..Self::default()
        };
        match lookup {
            Lookup::Found(Answer { records, status, ttl, .. }) => Self {
                records: records.iter().map(show).collect(),
                ttl: Some(ttl.as_secs()),
                ..plain("found", *status)
            },
            Lookup::NoData(status) => plain("no-data", *status),
            Lookup::NxDomain(status) => plain("no-such-name", *status),
            Lookup::Failed(failure) => {
                Self { answer: "failed".to_owned(), trouble: Some(failure.to_string()), ..Self::default() }
            }
        }
    }
}

/// The status as JSON and people read it.
pub fn dnssec_word(status: DnssecStatus) -> &'static str {
    match status {
        DnssecStatus::Secure => "secure",
        DnssecStatus::Insecure => "insecure",
        DnssecStatus::Bogus => "bogus",
        DnssecStatus::Indeterminate => "indeterminate",
    }
}

/// The `_mta-sts` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFacts {
    /// The TXT records of the name.
    #[serde(flatten)]
    pub asked: Asked,
    /// The id published, when there is one usable record.
    pub id: Option<String>,
    /// Why there is none.
    pub unusable: Option<String>,
}

/// What MTA-STS says for the domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyFacts {
    /// `policy.mta_sts` is off: nothing is asked and nothing applies.
    pub switched_off: bool,
    /// The policy that applies to mail now.
    pub applies: Option<AppliedFacts>,
    /// What is in the cache, afterwards.
    pub held: Option<HeldFacts>,
    /// The last fetch that failed.
    pub fetch_trouble: Option<FetchFacts>,
    /// Why it is not known what applies; mail waits.
    pub unknown: Option<Trouble>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFacts {
    /// Its mode.
    pub mode: Mode,
    /// The TXT id it was fetched under.
    pub id: Option<String>,
    /// Its patterns.
    pub mx: Vec<String>,
    /// Seconds.
    pub max_age: u32,
}

impl AppliedFacts {
    /// Of the policy that applies.
    pub fn new(policy: &StsPolicy, id: Option<&str>) -> Self {
        Self {
            mode: policy.mode,
            id: id.map(str::to_owned),
            mx: policy.mx.iter().map(ToString::to_string).collect(),
            max_age: policy.max_age,
        }
    }
}

/// A policy in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFacts {
    /// Its mode.
    pub mode: Mode,
    /// The TXT id it was fetched under.
    pub id: String,
    /// The HTTPS success that made it.
    pub fetched_at: Timestamp,
    /// The last instant at which it applies.
    pub expires_at: Timestamp,
    /// When the next regular fetch is due.
    pub refresh_at: Timestamp,
}

impl From<&freshness::HeldPolicy> for HeldFacts {
    fn from(held: &freshness::HeldPolicy) -> Self {
        Self {
            mode: held.policy.mode,
            id: held.id.clone(),
            fetched_at: held.fetched_at,
            expires_at: held.expires_at(),
            refresh_at: held.refresh_at,
        }
    }
}

/// A failed fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchFacts {
    /// When.
    pub at: Timestamp,
    /// How many in a row.
    pub count: u32,
    /// What TLS-RPT says of it.
    pub result_type: ResultType,
    /// One sentence.
    pub text: String,
}

impl From<&FetchTrouble> for FetchFacts {
    fn from(trouble: &FetchTrouble) -> Self {
        let result_type = match trouble.kind {
            freshness::TroubleKind::Fetch => ResultType::StsPolicyFetchError,
            freshness::TroubleKind::Invalid => ResultType::StsPolicyInvalid,
            freshness::TroubleKind::WebPki => ResultType::StsWebpkiInvalid,
        };
        Self { at: trouble.at, count: trouble.count, result_type, text: trouble.text.clone() }
    }
}

/// The local rule in force (`[[policy.override]]`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LocalFacts {
    /// What it demands.
    pub rule: LocalRule,
    /// Whom it is for, as configured: `*.example.net`, `mx mx.example.net`.
    pub whom: Option<String>,
    /// Until when.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::dns::LookupFailure;

    #[test]
    fn answers_keep_what_they_said() {
        let found = Lookup::Found(Answer {
            records: vec![7, 8],
            status: DnssecStatus::Secure,
            name: Domain::parse("a.example").unwrap(),
            ttl: Duration::from_secs(60),
        });
        let asked = Asked::new(&found, |n| format!("n{n}"));
        assert_eq!((asked.answer.as_str(), asked.dnssec.as_deref()), ("found", Some("secure")));
        assert_eq!((asked.records, asked.ttl), (vec!["n7".to_owned(), "n8".to_owned()], Some(60)));
        let none = Asked::new(&Lookup::<u8>::NxDomain(DnssecStatus::Insecure), u8::to_string);
        assert_eq!((none.answer.as_str(), none.dnssec.as_deref()), ("no-such-name", Some("insecure")));
        let failed = Lookup::<u8>::Failed(LookupFailure {
            name: "a.example".to_owned(),
            kind: "MX",
            bogus: false,
            text: "SERVFAIL".to_owned(),
        });
        let failed = Asked::new(&failed, u8::to_string);
        assert_eq!((failed.answer.as_str(), failed.dnssec), ("failed", None));
        assert_eq!(failed.trouble.as_deref(), Some("DNS lookup of a.example MX failed: SERVFAIL"));
    }
}
