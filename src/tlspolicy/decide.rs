//! The table: facts of one host to a verdict.
//!
//! | TLSA lookup | MTA-STS | the host must show |
//! |---|---|---|
//! | failed | any | nothing helps: skip |
//! | any | enforce, host not listed | nothing helps: skip |
//! | usable | enforce, listed | TLSA match and PKIX name |
//! | usable | testing, none, absent | TLSA match |
//! | all unusable | enforce, listed | PKIX name |
//! | all unusable | testing, none, absent | TLS |
//! | absent, insecure | enforce, listed | PKIX name |
//! | absent, insecure | testing, none, absent | nothing (TLS if it works) |
//!
//! With `dane_with_sts = "dane"` a TLSA match is enough wherever records are usable. On top of a row,
//! a local rule or REQUIRETLS only ever adds to what must be shown:
//!
//! | local rule | adds |
//! |---|---|
//! | none | nothing |
//! | encrypt | TLS |
//! | verify | TLS and PKIX name |
//! | dane, MX secure and TLSA usable | TLSA match |
//! | dane, otherwise | nothing helps: skip, `dane-required` |
//!
//! What a static route demands (`[[route]] require`; `verify` with a password) is a local rule like these.
//!
//! The ways down: `ignore-sts` and `dane_audit_only` (the rows of an absent policy, of absent records;
//! the second yields to the local rule `dane`), and `TLS-Required: No` (the last row), which yields to
//! all local rules.

use super::applied;
use super::{
    DaneUse, DaneWithSts, Expectation, HostFacts, LocalRule, ReportOn, Requirement, Rule, SkipReason,
    TlsPlan, Verdict,
};
use crate::dane::names::NextHop;
use crate::dane::{self, Tlsa, TlsaAnswer};
use crate::mail::{Domain, Permanence, TlsRequest};
use crate::route::DnssecStatus;
use crate::sts::{Mode, StsPolicy};
use crate::tlsrpt::{AppliedPolicy, ResultType};

/// The verdict on one host: the outcome matrix, row by row.
pub fn decide(facts: &HostFacts) -> Verdict {
    let sts = Sts::of(facts);
    let seen = Dane::of(&facts.tlsa);
    if facts.local == LocalRule::Dane
        && let Some(skip) = lacks_dane(facts, sts, &seen)
    {
        return Verdict::Skip(skip);
    }
    if facts.request == TlsRequest::NotRequired {
        return Verdict::Use(not_required(facts, sts, &seen));
    }
    let dane_is_enough = facts.dane_with_sts == DaneWithSts::Dane;
    let audited = facts.dane_use == DaneUse::Audit && facts.local != LocalRule::Dane;
    // RFC 7672 §9.1: as if there were no records, but for the log and the report.
    let dane = if audited { &Dane::None } else { &seen };
    let (require, rule) = match (dane, sts) {
        // RFC 7672 §2.1.2: a failed lookup is never "no records".
        (Dane::Failed(why), _) => return Verdict::Skip(skip_lookup_failed(facts, sts, why)),
        (Dane::Usable(usable), Sts::Enforce(_, _)) if dane_is_enough => {
            (only_dane(facts, usable), Rule::Dane)
        }
        // RFC 8461 §5: enforce forbids a host that fails MX matching.
        (_, Sts::Enforce(policy, Listed::No)) => return skip_not_listed(facts, policy),
        // RFC 8461 §2: MTA-STS must not make up for a DANE failure, so both have to pass.
        (Dane::Usable(usable), Sts::Enforce(_, Listed::Yes)) => (
            Requirement::DaneAndPkix { records: usable.clone(), names: names(facts), name: facts.mx.clone() },
            Rule::DaneAndSts,
        ),
        (Dane::Usable(usable), Sts::Testing(..) | Sts::None) => (only_dane(facts, usable), Rule::Dane),
        (Dane::Unusable | Dane::None, Sts::Enforce(_, Listed::Yes)) => (pkix(facts), Rule::StsEnforce),
        // RFC 7672 §2.2: secure records, none usable: TLS is mandatory, unauthenticated.
        (Dane::Unusable, Sts::Testing(..) | Sts::None) => (Requirement::Encrypt, Rule::DaneUnusable),
        // RFC 8461 §5: testing never stops mail.
        (Dane::None, Sts::Testing(..)) => (Requirement::Opportunistic, Rule::StsTesting),
        (Dane::None, Sts::None) if facts.local == LocalRule::IgnoreSts => {
            (Requirement::Opportunistic, Rule::LocalOverride)
        }
        (Dane::None, Sts::None) if !matches!(seen, Dane::None) => {
            (Requirement::Opportunistic, Rule::DaneAudited)
        }
        (Dane::None, Sts::None) => (Requirement::Opportunistic, Rule::Opportunistic),
    };
    let (require, rule) = raised_by_local_rule(facts, dane, require, rule);
    match raised_by_requiretls(facts, sts, require, rule) {
        Ok((require, rule)) => {
            let mut plan = plan(facts, require, report_on(facts, sts, &seen), rule);
            if audited && !plan.require.names_host() {
                looked_at(&mut plan, facts, &seen);
            }
            Verdict::Use(plan)
        }
        Err(skip) => Verdict::Skip(skip),
    }
}

/// MTA-STS as it bears on this host.
#[derive(Debug, Clone, Copy)]
enum Sts<'a> {
    Enforce(&'a StsPolicy, Listed),
    Testing(&'a StsPolicy, Listed),
    /// No policy, mode none, or ignored by a local rule.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Yes,
    No,
}

impl<'a> Sts<'a> {
    fn of(facts: &'a HostFacts) -> Self {
        let Some(policy) = facts.sts.as_deref().filter(|_| facts.local != LocalRule::IgnoreSts) else {
            return Self::None;
        };
        // RFC 8461 §4.1: the name in the MX record is what patterns are held against.
        let listed = if policy.allows(&facts.mx) { Listed::Yes } else { Listed::No };
        match policy.mode {
            Mode::Enforce => Self::Enforce(policy, listed),
            Mode::Testing => Self::Testing(policy, listed),
            // RFC 8461 §5: as if there were no policy.
            Mode::None => Self::None,
        }
    }
}

/// DANE as it bears on this host.
#[derive(Debug)]
enum Dane<'a> {
    Failed(&'a str),
    Usable(Vec<Tlsa>),
    Unusable,
    None,
}

impl<'a> Dane<'a> {
    fn of(answer: &'a TlsaAnswer) -> Self {
        match answer {
            TlsaAnswer::Failed(why) => Self::Failed(why),
            // RFC 7672 §2.1.1: without DNSSEC as if absent.
            TlsaAnswer::Absent | TlsaAnswer::Insecure => Self::None,
            TlsaAnswer::Secure(records) => {
                let usable = dane::usable(records);
                if usable.is_empty() { Self::Unusable } else { Self::Usable(usable) }
            }
        }
    }
}

fn pkix(facts: &HostFacts) -> Requirement {
    // RFC 8461 §4.2: the reference identity is the MX host name, nothing else.
    Requirement::Pkix { name: facts.mx.clone() }
}

fn only_dane(facts: &HostFacts, usable: &[Tlsa]) -> Requirement {
    Requirement::Dane { records: usable.to_vec(), names: names(facts) }
}

/// Reference identities for usage 2 (RFC 7672 §3.2.2). Without MX records the next hop is the host
/// itself and needs nobody to lead to it.
fn names(facts: &HostFacts) -> Vec<Domain> {
    let vouched = is_vouched_for(facts);
    let next_hop = NextHop { domain: &facts.policy_domain, expanded: facts.expanded.as_ref() };
    dane::reference_names(&facts.tlsa_base, vouched.then_some(next_hop))
}

/// Whether DNSSEC leads from the domain to the host, or the host is the domain itself.
fn is_vouched_for(facts: &HostFacts) -> bool {
    facts.mx_status == DnssecStatus::Secure || facts.policy_domain == facts.mx
}

fn plan(facts: &HostFacts, require: Requirement, report_on: Vec<ReportOn>, rule: Rule) -> TlsPlan {
    let sni = match &require {
        // RFC 7672 §8.1.
        Requirement::Dane { .. } | Requirement::DaneAndPkix { .. } => &facts.tlsa_base,
        Requirement::Encrypt | Requirement::Pkix { .. } | Requirement::Opportunistic => &facts.mx,
    };
    TlsPlan {
        sni: sni.clone(),
        name: facts.mx.clone(),
        mx_status: facts.mx_status,
        require,
        report_on,
        rule,
        local_text: facts.local_text.clone().filter(|_| rule == Rule::LocalOverride),
    }
}

/// `TLS-Required: No` and our own reports: TLS is tried, and nothing it shows stops the mail
/// (RFC 8689 §4.2.2, RFC 8460 §3). A demand of this relay's operator still stands. What the session
/// shows is judged by the domain's policies all the same: their owner wants to know (RFC 8460 §4).
fn not_required(facts: &HostFacts, sts: Sts<'_>, dane: &Dane<'_>) -> TlsPlan {
    let (require, rule) = raised_by_local_rule(facts, dane, Requirement::Opportunistic, Rule::TlsNotRequired);
    let mut plan = plan(facts, require, report_on(facts, sts, dane), rule);
    looked_at(&mut plan, facts, dane);
    plan
}

/// RFC 7672 §8.1: the certificate that the records are about, where they are only counted.
fn looked_at(plan: &mut TlsPlan, facts: &HostFacts, dane: &Dane<'_>) {
    if let Dane::Usable(_) = dane {
        plan.sni = facts.tlsa_base.clone();
    }
}

/// Mandatory DANE that cannot be met, whatever a session would show (RFC 7672 §6).
fn lacks_dane(facts: &HostFacts, sts: Sts<'_>, dane: &Dane<'_>) -> Option<SkipReason> {
    let why = match dane {
        Dane::Failed(why) => return Some(skip_lookup_failed(facts, sts, why)),
        // RFC 7672 §2.2.1: without DNSSEC anybody could have named the host.
        _ if !is_vouched_for(facts) => {
            format!("the MX records of {} are not DNSSEC-secure", facts.policy_domain)
        }
        Dane::Usable(_) => return None,
        Dane::Unusable => "none of its TLSA records is usable".to_owned(),
        Dane::None if facts.tlsa == TlsaAnswer::Insecure => {
            "its TLSA records are not DNSSEC-secure".to_owned()
        }
        Dane::None => "it has no TLSA records".to_owned(),
    };
    let records = if let TlsaAnswer::Secure(records) = &facts.tlsa { records.as_slice() } else { &[] };
    let mut report = vec![(
        applied::tlsa(&facts.tlsa_base, records),
        ResultType::DaneRequired,
        applied::reason_code(&why),
    )];
    if let Sts::Enforce(policy, Listed::No) | Sts::Testing(policy, Listed::No) = sts {
        report.push(report_not_listed(facts, policy));
    }
    let rule = facts.local_text.as_deref().map_or(String::new(), |text| format!(" {text}"));
    Some(SkipReason {
        rule: Rule::LocalOverride,
        permanence: Permanence::Transient,
        text: format!(
            "mx host {} of {} cannot be used: the local rule{rule} demands DANE, and {why}",
            facts.mx, facts.policy_domain
        ),
        report,
    })
}

fn raised_by_local_rule(
    facts: &HostFacts,
    dane: &Dane<'_>,
    require: Requirement,
    rule: Rule,
) -> (Requirement, Rule) {
    match (facts.local, require) {
        // Without usable records the host is skipped already; all other rows demand the match themselves.
        (LocalRule::Dane, Requirement::Opportunistic) => match dane {
            Dane::Usable(usable) => (only_dane(facts, usable), Rule::LocalOverride),
            Dane::Failed(_) | Dane::Unusable | Dane::None => (Requirement::Encrypt, Rule::LocalOverride),
        },
        (LocalRule::Encrypt, Requirement::Opportunistic) => (Requirement::Encrypt, Rule::LocalOverride),
        (LocalRule::Verify, Requirement::Opportunistic | Requirement::Encrypt) => {
            (pkix(facts), Rule::LocalOverride)
        }
        (LocalRule::Verify, Requirement::Dane { records, names }) => {
            (Requirement::DaneAndPkix { records, names, name: facts.mx.clone() }, Rule::LocalOverride)
        }
        (_, require) => (require, rule),
    }
}

fn raised_by_requiretls(
    facts: &HostFacts,
    sts: Sts<'_>,
    require: Requirement,
    rule: Rule,
) -> Result<(Requirement, Rule), SkipReason> {
    if facts.request != TlsRequest::Required {
        return Ok((require, rule));
    }
    // RFC 8689 §4.2.1: the host must be named by a DNSSEC-secure MX answer or by MTA-STS. Testing is
    // no basis: nothing would be enforced. §2: a host that is the domain itself was named by nobody;
    // its certificate is for that name.
    let vouched = is_vouched_for(facts) || matches!(sts, Sts::Enforce(_, Listed::Yes));
    if !vouched {
        // Trouble with the policy is trouble: one may exist, and vouch for the host.
        let trouble = facts.sts_trouble.as_deref().filter(|_| facts.sts.is_none());
        let (permanence, because) = match trouble {
            Some(why) => (Permanence::Transient, format!(" (its policy could not be fetched: {why})")),
            None => (Permanence::Permanent, String::new()),
        };
        return Err(SkipReason {
            rule: Rule::RequireTls,
            permanence,
            text: format!(
                "the message requires TLS (REQUIRETLS), and neither DNSSEC nor an enforced MTA-STS policy of {} vouches for mx host {}{because}",
                facts.policy_domain, facts.mx
            ),
            report: Vec::new(),
        });
    }
    Ok(match require {
        // RFC 8689 §4.2.1: the server must be authenticated.
        Requirement::Opportunistic | Requirement::Encrypt => (pkix(facts), Rule::RequireTls),
        authenticated => (authenticated, rule),
    })
}

fn skip_not_listed(facts: &HostFacts, policy: &StsPolicy) -> Verdict {
    let id = facts.sts_id.as_deref().map(|id| format!(", id {id}")).unwrap_or_default();
    Verdict::Skip(SkipReason {
        rule: Rule::StsEnforce,
        permanence: Permanence::Transient,
        text: format!(
            "mx host {} is not listed in the MTA-STS policy of {} (mode enforce{id})",
            facts.mx, facts.policy_domain
        ),
        report: vec![report_not_listed(facts, policy)],
    })
}

fn skip_lookup_failed(facts: &HostFacts, sts: Sts<'_>, why: &str) -> SkipReason {
    let mut report =
        vec![(applied::tlsa(&facts.tlsa_base, &[]), ResultType::DnssecInvalid, applied::reason_code(why))];
    if let Sts::Enforce(policy, Listed::No) | Sts::Testing(policy, Listed::No) = sts {
        report.push(report_not_listed(facts, policy));
    }
    SkipReason {
        rule: Rule::DaneLookupFailed,
        permanence: Permanence::Transient,
        text: format!(
            "the TLSA lookup for mx host {} of {} failed ({why}), so it is not known whether DANE protects it",
            facts.mx, facts.policy_domain
        ),
        report,
    }
}

fn report_not_listed(facts: &HostFacts, policy: &StsPolicy) -> (AppliedPolicy, ResultType, String) {
    // RFC 8460 §4.3: there is no result type of its own for this.
    let reason = applied::mx_not_in_policy(&facts.mx);
    (applied::sts(&facts.policy_domain, policy), ResultType::ValidationFailure, reason)
}

/// The policies a session with this host is counted under (RFC 8460 §4.1: each that applies).
fn report_on(facts: &HostFacts, sts: Sts<'_>, dane: &Dane<'_>) -> Vec<ReportOn> {
    let mut report_on = Vec::with_capacity(2);
    if let TlsaAnswer::Secure(records) = &facts.tlsa {
        let policy = applied::tlsa(&facts.tlsa_base, records);
        // With unusable records only, no session can match: `tlsa-invalid` is what the owner should see.
        let usable = if let Dane::Usable(usable) = dane { usable.clone() } else { Vec::new() };
        report_on
            .push(ReportOn { policy, expects: Expectation::Tlsa { records: usable, names: names(facts) } });
    }
    if let Dane::Failed(why) = dane {
        let expects = Expectation::Never(ResultType::DnssecInvalid, applied::reason_code(why));
        report_on.push(ReportOn { policy: applied::tlsa(&facts.tlsa_base, &[]), expects });
    }
    if let Sts::Enforce(policy, listed) | Sts::Testing(policy, listed) = sts {
        let expects = match listed {
            Listed::Yes => Expectation::Pkix,
            // RFC 8460 §4.3: there is no result type of its own for this.
            Listed::No => {
                Expectation::Never(ResultType::ValidationFailure, applied::mx_not_in_policy(&facts.mx))
            }
        };
        report_on.push(ReportOn { policy: applied::sts(&facts.policy_domain, policy), expects });
    }
    if report_on.is_empty() {
        let policy = applied::none(&facts.policy_domain);
        report_on.push(ReportOn { policy, expects: Expectation::Tls });
    }
    report_on
}

#[cfg(test)]
mod tests;
