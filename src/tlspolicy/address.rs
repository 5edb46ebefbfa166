//! What a next hop that is only an address must prove: an address literal in a recipient's path, or the
//! address of a static route.
//!
//! Pure, and total as [`super::decide`](super::decide()): an address has no policy domain, so neither
//! MTA-STS (RFC 8461 §3.4) nor DANE (RFC 7672 §2.2) speaks of it, and no name that a certificate could be
//! held to. Whoever demands such proof gets nothing sent. Called by `delivery::attempt` and
//! `delivery::explain`.
//!
//! | the message, local rule | the host must show |
//! |---|---|
//! | REQUIRETLS | nothing helps: skip, for good |
//! | verify, dane | nothing helps: skip |
//! | encrypt | TLS |
//! | none, ignore-sts | nothing (TLS if it works) |

use super::{LocalRule, Requirement, Rule, SkipReason, TlsPlan, Verdict};
use crate::mail::{Domain, Permanence, TlsRequest};
use crate::route::DnssecStatus;

/// Everything known about a next hop that is an address.
#[derive(Debug, Clone, Copy)]
pub struct AddressFacts<'a> {
    /// As texts name it: `[192.0.2.1]`.
    pub literal: &'a str,
    /// Our own name, for want of another: never verified and never reported.
    pub own_name: &'a Domain,
    /// What the message asks (RFC 8689).
    pub request: TlsRequest,
    /// The local rule in force.
    pub local: LocalRule,
    /// That rule as texts name it.
    pub local_text: Option<&'a str>,
}

/// The verdict on an address.
pub fn decide_address(facts: &AddressFacts<'_>) -> Verdict {
    let literal = facts.literal;
    // RFC 8689 §4.2.1: nothing vouches for the host, and no later attempt can change that.
    if facts.request == TlsRequest::Required {
        return Verdict::Skip(SkipReason {
            rule: Rule::RequireTls,
            permanence: Permanence::Permanent,
            text: format!(
                "the message requires TLS (REQUIRETLS), and the address literal {literal} names no host that could be authenticated"
            ),
            report: Vec::new(),
        });
    }
    let (require, rule) = match facts.local {
        LocalRule::Verify | LocalRule::Dane => {
            let rule = facts.local_text.map_or(String::new(), |text| format!(" {text}"));
            return Verdict::Skip(SkipReason {
                rule: Rule::LocalOverride,
                permanence: Permanence::Transient,
                text: format!(
                    "next hop {literal} cannot be used: the local rule{rule} demands an authenticated server, and an address names none"
                ),
                report: Vec::new(),
            });
        }
        LocalRule::Encrypt => (Requirement::Encrypt, Rule::LocalOverride),
        LocalRule::None | LocalRule::IgnoreSts => (Requirement::Opportunistic, Rule::Opportunistic),
    };
    Verdict::Use(TlsPlan {
        require,
        sni: facts.own_name.clone(),
        name: facts.own_name.clone(),
        mx_status: DnssecStatus::Insecure,
        report_on: Vec::new(),
        rule,
        local_text: facts.local_text.map(str::to_owned).filter(|_| rule == Rule::LocalOverride),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let own_name = Domain::parse("relay.example").unwrap();
        let requests = [TlsRequest::None, TlsRequest::NotRequired, TlsRequest::Required];
        for request in requests {
            for (local, shows) in [
                (LocalRule::None, Some(Requirement::Opportunistic)),
                (LocalRule::IgnoreSts, Some(Requirement::Opportunistic)),
                (LocalRule::Encrypt, Some(Requirement::Encrypt)),
                (LocalRule::Verify, None),
                (LocalRule::Dane, None),
            ] {
                let facts = AddressFacts {
                    literal: "[192.0.2.1]",
                    own_name: &own_name,
                    request,
                    local,
                    local_text: Some("\"x\" for the route"),
                };
                match (decide_address(&facts), request, shows) {
                    (Verdict::Skip(skip), TlsRequest::Required, _) => {
                        assert_eq!((skip.rule, skip.permanence), (Rule::RequireTls, Permanence::Permanent));
                        assert!(skip.text.contains("[192.0.2.1]"), "{}", skip.text);
                    }
                    (Verdict::Skip(skip), _, None) => {
                        assert_eq!(skip.permanence, Permanence::Transient);
                        assert!(skip.text.contains("\"x\" for the route"), "{}", skip.text);
                    }
                    (Verdict::Use(plan), _, Some(wanted)) => {
                        assert_eq!(plan.require, wanted);
                        assert!(plan.report_on.is_empty() && !plan.require.authenticates());
                    }
                    (verdict, ..) => panic!("{local:?} {request:?}: {verdict:?}"),
                }
            }
        }
    }
}
