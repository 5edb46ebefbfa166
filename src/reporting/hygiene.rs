//! Whom reports are kept from: what the operator lists, targets that fail, too many at one target, and
//! this relay itself.
//!
//! Anybody may name anybody in a TLS-RPT record, no third party is asked (RFC 8460 §3 knows no
//! consent), so a thousand domains may point at one victim. Every reason is one sentence and shown by
//! `report list`. Pure. Called by `work`.

use std::time::Duration;

use crate::mail::{Domain, Pattern};
use crate::store::targets::SuppressRule;
use crate::tlsrpt::record::{RUA_MAX, Rua};
use crate::tlsrpt::target::TargetPattern;

/// The default of [`Hygiene::reports_per_target`].
pub const REPORTS_PER_TARGET: u32 = 1000;
/// The default of [`Hygiene::suppress`].
pub const SUPPRESS: SuppressRule = SuppressRule { after: 3, keep: Duration::from_secs(7 * 24 * 3600) };

/// The operator's rules about who gets reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hygiene {
    /// `tlsrpt.allow_domains`: reports are made of these alone, unless empty.
    pub allow_domains: Vec<Pattern>,
    /// `tlsrpt.deny_domains`: never of these.
    pub deny_domains: Vec<Pattern>,
    /// `tlsrpt.allow_targets`: reports go to these alone, unless empty.
    pub allow_targets: Vec<TargetPattern>,
    /// `tlsrpt.deny_targets`: never to these.
    pub deny_targets: Vec<TargetPattern>,
    /// `tlsrpt.targets_per_domain`: targets used of one domain's record, in their order.
    pub targets_per_domain: usize,
    /// `tlsrpt.reports_per_target`: reports of one day to one target.
    pub reports_per_target: u32,
    /// `tlsrpt.suppress_after`, `tlsrpt.suppress_for`.
    pub suppress: SuppressRule,
}

impl Default for Hygiene {
    fn default() -> Self {
        Self {
            allow_domains: Vec::new(),
            deny_domains: Vec::new(),
            allow_targets: Vec::new(),
            deny_targets: Vec::new(),
            targets_per_domain: RUA_MAX,
            reports_per_target: REPORTS_PER_TARGET,
            suppress: SUPPRESS,
        }
    }
}

impl Hygiene {
    /// Why no report of this domain is made.
    pub fn domain_denied(&self, domain: &Domain) -> Option<&'static str> {
        let one_of = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(domain));
        if one_of(&self.deny_domains) {
            return Some("the domain is in tlsrpt.deny_domains");
        }
        let left_out = !self.allow_domains.is_empty() && !one_of(&self.allow_domains);
        left_out.then_some("the domain is not in tlsrpt.allow_domains")
    }

    /// Why nothing is sent to this target.
    pub fn target_denied(&self, rua: &Rua, ours: &Domain) -> Option<&'static str> {
        let one_of = |patterns: &[TargetPattern]| patterns.iter().any(|pattern| pattern.matches(rua));
        if one_of(&self.deny_targets) {
            return Some("the target is in tlsrpt.deny_targets");
        }
        // A report to ourselves would come back to us, or go round in circles.
        if rua.host().is_some_and(|host| host == *ours) {
            return Some("the target is this relay itself (server.hostname)");
        }
        let left_out = !self.allow_targets.is_empty() && !one_of(&self.allow_targets);
        left_out.then_some("the target is not in tlsrpt.allow_targets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rua(text: &str) -> Rua {
        text.parse().unwrap()
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn targets(texts: &[&str]) -> Vec<TargetPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn domains_are_denied_and_allowed_by_pattern_and_deny_wins() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let mut hygiene = Hygiene::default();
        let open = |hygiene: &Hygiene, name: &str| hygiene.domain_denied(&domain(name)).is_none();
        assert!(open(&hygiene, "a.example"));
        hygiene.deny_domains = patterns(&["a.example", "*.b.example"]);
        assert!(
            !open(&hygiene, "a.example") && !open(&hygiene, "x.b.example") && open(&hygiene, "b.example")
        );
        hygiene.allow_domains = patterns(&["a.example", "b.example"]);
        assert!(!open(&hygiene, "a.example") && open(&hygiene, "b.example") && !open(&hygiene, "c.example"));
    }

    #[test]
    fn targets_are_denied_by_address_and_by_host() {
        let ours = domain("relay.sender.example");
        let hygiene = Hygiene {
            deny_targets: targets(&["Victim@v.example", "evil.example", "*.evil.example"]),
            ..Hygiene::default()
        };
        let denied = |text: &str| hygiene.target_denied(&rua(text), &ours).is_some();
        for bad in [
            "mailto:victim@v.example",
            "mailto:VICTIM@V.example",
            "mailto:a@evil.example",
            "https://evil.example/x",
            "https://EVIL.example:8443?x",
            "https://a.evil.example./",
            "mailto:root@relay.sender.example",
            "https://relay.sender.example/report",
        ] {
            assert!(denied(bad), "{bad}");
        }
        for good in ["mailto:other@v.example", "https://v.example/evil.example", "https://[2001:db8::1]/"] {
            assert!(!denied(good), "{good}");
        }
        let only = Hygiene { allow_targets: targets(&["mailto:a@b.example"]), ..Hygiene::default() };
        assert_eq!(only.target_denied(&rua("mailto:a@b.example"), &ours), None);
        assert!(only.target_denied(&rua("https://b.example/"), &ours).is_some());
        for bad in ["", "@", "a@b@c", "https://x.example/", "*"] {
            assert!(bad.parse::<TargetPattern>().is_err(), "{bad}");
        }
    }
}
