//! What `explain` found out: every fact that bears on mail to one destination, and what follows.
//!
//! Pure, and serialised as it is: these types are the JSON of `stsrelay explain --json` and travel
//! over the admin socket. Filled in by [`super::Explainer`], shown by `cli::explain`.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dane::TlsaAnswer;
use crate::mail::{Destination, Domain, Failure, Permanence};
use crate::net::dns::{Answer, Lookup};
use crate::net::tls::TlsFacts;
use crate::route::DnssecStatus;
use crate::sts::{FetchTrouble, Mode, StsPolicy, freshness};
use crate::tlspolicy::{Expectation, LocalRule, Requirement, Rule, SkipReason, TlsPlan};
use crate::tlsrpt::{PolicyType, ResultType, SessionResult};

/// Everything about mail to one destination, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// When.
    pub at: Timestamp,
    /// Where mail is to go.
    pub destination: Destination,
    /// What follows: the first thing to read.
    pub conclusion: Conclusion,
    /// The MX answer; absent for an address literal.
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
    /// Until when.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostExplained {
    /// The name as in the MX record, or the address literal.
    pub host: String,
    /// Lower first.
    pub preference: u16,
    /// Whether the policy lists it; absent where no policy applies.
    pub listed: Option<bool>,
    /// In the order to try.
    pub addresses: Vec<AddressFacts>,
    /// Why there is no address.
    pub address_trouble: Option<Trouble>,
    /// What the TLSA lookup said; absent when it was not looked up.
    pub tlsa: Option<TlsaFacts>,
    /// May it be used, and how.
    pub verdict: VerdictFacts,
    /// One attempt does not get as far as this host.
    pub out_of_reach: bool,
    /// What TLS-RPT would say: of a host that is skipped, or as far as it is known without a session.
    pub tls_rpt: Vec<ReportFacts>,
    /// What connecting to it showed, in the order tried.
    pub tries: Vec<Try>,
}

/// An address and whether it may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFacts {
    /// The address.
    pub ip: IpAddr,
    /// Why the address guard refuses it.
    pub refused: Option<String>,
}

/// A TLSA answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsaFacts {
    /// `secure`, `absent`, `insecure` or `failed`.
    pub answer: String,
    /// The records of a secure answer, and whether DANE for SMTP can use them.
    pub records: Vec<TlsaRecord>,
    /// Why the lookup failed.
    pub trouble: Option<String>,
}

/// A TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsaRecord {
    /// `3 1 1 HEX`
    pub text: String,
    /// RFC 7672 §3.1.
    pub usable: bool,
}

impl From<&TlsaAnswer> for TlsaFacts {
    fn from(answer: &TlsaAnswer) -> Self {
        let plain = |word: &str| Self { answer: word.to_owned(), records: Vec::new(), trouble: None };
        match answer {
            TlsaAnswer::Secure(records) => Self {
                records: records
                    .iter()
                    .map(|record| TlsaRecord { text: record.to_string(), usable: record.is_usable() })
                    .collect(),
                ..plain("secure")
            },
            TlsaAnswer::Absent => plain("absent"),
            TlsaAnswer::Insecure => plain("insecure"),
            TlsaAnswer::Failed(why) => Self { trouble: Some(why.clone()), ..plain("failed") },
        }
    }
}

/// The verdict with its rule in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictFacts {
    /// Whether the host may be used.
    pub usable: bool,
    /// The rule that decided.
    pub rule: Rule,
    /// What must be proven: `nothing`, `tls`, `pkix`, `dane`, `dane-and-pkix`; absent when skipped.
    pub require: Option<String>,
    /// One sentence: what is demanded and by which rule, or why the host is skipped.
    pub text: String,
}

impl VerdictFacts {
    /// Of a host that may be used.
    pub fn of_plan(plan: &TlsPlan) -> Self {
        let (require, demand) = match &plan.require {
            Requirement::Opportunistic => {
                ("nothing", "TLS if it works, whatever the certificate, and in clear otherwise".to_owned())
            }
            Requirement::Encrypt => ("tls", "TLS, whatever the certificate; never in clear".to_owned()),
            Requirement::Pkix { name } => {
                ("pkix", format!("TLS with a trusted certificate for {name}, or nothing is sent"))
            }
            Requirement::Dane { .. } => {
                ("dane", "TLS with a certificate that a TLSA record matches, or nothing is sent".to_owned())
            }
            Requirement::DaneAndPkix { name, .. } => (
                "dane-and-pkix",
                format!(
                    "TLS with a trusted certificate for {name} that a TLSA record matches, or nothing is sent"
                ),
            ),
        };
        Self {
            usable: true,
            rule: plan.rule,
            require: Some(require.to_owned()),
            text: format!("{demand} ({})", rule_in_words(plan.rule)),
        }
    }

    /// Of a host that may not.
    pub fn of_skip(reason: &SkipReason) -> Self {
        Self { usable: false, rule: reason.rule, require: None, text: reason.text.clone() }
    }
}

/// What a rule says, for somebody who does not know its name.
pub fn rule_in_words(rule: Rule) -> &'static str {
    match rule {
        Rule::Opportunistic => "no policy applies",
        Rule::StsEnforce => "MTA-STS of the domain is in mode enforce",
        Rule::StsTesting => "MTA-STS of the domain is in mode testing: failures are only reported",
        Rule::Dane => "DANE: the host has usable TLSA records",
        Rule::DaneAndSts => "DANE, and MTA-STS of the domain is in mode enforce",
        Rule::DaneUnusable => "DANE: the host has TLSA records, and none of them is usable",
        Rule::DaneLookupFailed => "DANE: the TLSA lookup failed",
        Rule::LocalOverride => "a local override",
        Rule::RequireTls => "the message requires TLS",
        Rule::TlsNotRequired => "the message does not require TLS",
    }
}

/// What TLS-RPT would say under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFacts {
    /// `sts`, `tlsa` or `no-policy-found`.
    pub policy_type: PolicyType,
    /// Whose policy.
    pub policy_domain: Domain,
    /// What a session must show to count as successful; absent once it is decided.
    pub expects: Option<String>,
    /// The failures; absent when no session was made, empty for a success.
    pub failures: Option<Vec<ResultFacts>>,
}

/// One failure as reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFacts {
    /// Its result type.
    pub result_type: ResultType,
    /// `failure-reason-code`
    pub reason: Option<String>,
}

impl ReportFacts {
    /// What a plan's sessions will be counted under.
    pub fn of_plan(plan: &TlsPlan) -> Vec<Self> {
        plan.report_on
            .iter()
            .map(|on| Self {
                policy_type: on.policy.policy_type,
                policy_domain: on.policy.policy_domain.clone(),
                expects: Some(match &on.expects {
                    Expectation::Tls => "a completed TLS handshake".to_owned(),
                    Expectation::Pkix => "TLS with a trusted certificate for the host".to_owned(),
                    Expectation::Tlsa => "TLS with a certificate that a TLSA record matches".to_owned(),
                    Expectation::Never(why) => format!("nothing can do: {why}"),
                }),
                failures: None,
            })
            .collect()
    }

    /// What is counted.
    pub fn of_results(results: &[SessionResult]) -> Vec<Self> {
        results
            .iter()
            .map(|result| Self {
                policy_type: result.policy.policy_type,
                policy_domain: result.policy.policy_domain.clone(),
                expects: None,
                failures: Some(
                    result
                        .failures
                        .iter()
                        .map(|failure| ResultFacts {
                            result_type: failure.result_type,
                            reason: failure.failure_reason_code.clone(),
                        })
                        .collect(),
                ),
            })
            .collect()
    }
}

/// One connection, up to where MAIL would be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// Where.
    pub address: SocketAddr,
    /// The second try, in clear, after TLS failed where nothing demands it.
    pub in_clear: bool,
    /// The name the host gave itself.
    pub host_says: Option<String>,
    /// The TLS session, if one came about.
    pub tls: Option<TlsShown>,
    /// Why nothing could be sent on it, in the words of the log; absent when mail could go.
    pub trouble: Option<Trouble>,
    /// What TLS-RPT would say of this session.
    pub tls_rpt: Vec<ReportFacts>,
}

/// A TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsShown {
    /// `TLSv1.3`
    pub version: String,
    /// IANA name.
    pub cipher: String,
    /// What is wrong with the certificate under PKIX; absent when nothing is.
    pub certificate_trouble: Option<String>,
    /// SHA-256 over the chain, hex.
    pub chain_sha256: String,
}

impl From<&TlsFacts> for TlsShown {
    fn from(facts: &TlsFacts) -> Self {
        Self {
            version: facts.version.to_owned(),
            cipher: facts.cipher.clone(),
            certificate_trouble: facts.pkix.as_ref().err().map(ToString::to_string),
            chain_sha256: facts.chain_sha256.clone(),
        }
    }
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

    #[test]
    fn tlsa_answers_tell_which_records_count() {
        let record = |usage| crate::dane::Tlsa { usage, selector: 1, matching: 1, data: vec![1; 32] };
        let facts = TlsaFacts::from(&TlsaAnswer::Secure(vec![record(3), record(1)]));
        assert_eq!(facts.records.iter().map(|r| r.usable).collect::<Vec<_>>(), [true, false]);
        assert_eq!(TlsaFacts::from(&TlsaAnswer::Failed("x".into())).trouble.as_deref(), Some("x"));
        assert_eq!(TlsaFacts::from(&TlsaAnswer::Absent).answer, "absent");
    }
}
