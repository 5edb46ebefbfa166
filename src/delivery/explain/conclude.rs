//! What follows from what is known of the hosts. Pure.

use super::Explained;
use super::facts::{Conclusion, Fate, HostExplained, Try, rule_in_words};
use crate::delivery::judge;
use crate::mail::{Failure, Outcome, Permanence};

/// What becomes of mail: the walk of an attempt over what is known of the hosts.
pub(super) fn conclude(first: Option<&Failure>, hosts: &[Explained], connected: bool) -> Conclusion {
    if let Some(failure) = first {
        return fails(failure);
    }
    let mut failures = Vec::new();
    for explained in hosts.iter().filter(|explained| !explained.host.out_of_reach) {
        let host = &explained.host;
        if explained.failures.is_empty() && host.verdict.usable {
            let text = match host.tries.last() {
                Some(tried) if connected => goes(host, tried),
                _ => format!("to {} first: {}", host.host, host.verdict.text),
            };
            return Conclusion { mail: Fate::Goes, text };
        }
        failures.extend(explained.failures.iter().cloned());
        if explained.ends_walk {
            break;
        }
    }
    match judge::exhausted(&failures) {
        Outcome::Deferred(failure) | Outcome::Failed(failure) => fails(&failure),
        Outcome::Delivered(reply) => Conclusion { mail: Fate::Goes, text: reply.to_string() },
    }
}

fn goes(host: &HostExplained, tried: &Try) -> String {
    let over = match &tried.tls {
        None => "in clear".to_owned(),
        Some(tls) if tls.tlsa_matches == Some(true) => {
            format!("over {} with a certificate that a TLSA record matches", tls.version)
        }
        Some(tls) if tls.certificate_trouble.is_none() => {
            format!("over {} with a trusted certificate", tls.version)
        }
        Some(tls) => format!("over {}, certificate not trusted", tls.version),
    };
    format!("to {} at {}, {over} ({})", host.host, tried.address.ip(), rule_in_words(host.verdict.rule))
}

fn fails(failure: &Failure) -> Conclusion {
    let mail = match failure.permanence {
        Permanence::Transient => Fate::Waits,
        Permanence::Permanent => Fate::Bounces,
    };
    Conclusion { mail, text: failure.sentence() }
}
