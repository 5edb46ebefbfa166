//! What is known of one host: addresses, verdict, sessions, and what TLS-RPT would say.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{LocalFacts, Trouble};
use crate::dane::TlsaAnswer;
use crate::mail::Domain;
use crate::net::tls::TlsFacts;
use crate::tlspolicy::{Expectation, Requirement, Rule, SkipReason, TlsPlan, Verdict};
use crate::tlsrpt::{PolicyType, ResultType, SessionResult};

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
    /// The local rule at this host, where it is not the one of the domain.
    pub local: Option<LocalFacts>,
    /// May it be used, and how.
    pub verdict: VerdictFacts,
    /// The same for a message with REQUIRETLS (RFC 8689), which the host has to offer besides.
    #[serde(default)]
    pub requiretls: Option<VerdictFacts>,
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
    /// Of a host.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Use(plan) => Self::of_plan(plan),
            Verdict::Skip(reason) => Self::of_skip(reason),
        }
    }

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
            text: match &plan.local_text {
                Some(local) => format!("{demand} (local rule {local})"),
                None => format!("{demand} ({})", rule_in_words(plan.rule)),
            },
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
        Rule::DaneAudited => "DANE is only audited: TLSA records of the host are counted and stop nothing",
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
                    Expectation::Tlsa { .. } => {
                        "TLS with a certificate that a TLSA record matches".to_owned()
                    }
                    Expectation::Never(_, why) => format!("nothing can do: {why}"),
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
    /// Whether the host offers REQUIRETLS; absent where it was not asked inside TLS.
    #[serde(default)]
    pub offers_requiretls: Option<bool>,
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
    /// Whether a TLSA record matches; absent where none has to.
    #[serde(default)]
    pub tlsa_matches: Option<bool>,
    /// SHA-256 over the chain, hex.
    pub chain_sha256: String,
}

impl From<&TlsFacts> for TlsShown {
    fn from(facts: &TlsFacts) -> Self {
        Self {
            version: facts.version.to_owned(),
            cipher: facts.cipher.clone(),
            certificate_trouble: facts.pkix.as_ref().err().map(ToString::to_string),
            tlsa_matches: None,
            chain_sha256: facts.chain_sha256.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tlsa_answers_tell_which_records_count() {
        let record = |usage| crate::dane::Tlsa { usage, selector: 1, matching: 1, data: vec![1; 32] };
        let facts = TlsaFacts::from(&TlsaAnswer::Secure(vec![record(3), record(1)]));
        assert_eq!(facts.records.iter().map(|r| r.usable).collect::<Vec<_>>(), [true, false]);
        assert_eq!(TlsaFacts::from(&TlsaAnswer::Failed("x".into())).trouble.as_deref(), Some("x"));
        assert_eq!(TlsaFacts::from(&TlsaAnswer::Absent).answer, "absent");
    }
}
