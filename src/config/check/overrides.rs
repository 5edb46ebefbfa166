//! What is wrong, or without effect, in `[[policy.override]]`.
//!
//! A rule that is over is told and otherwise left alone: it may stand beside the one that follows it.

use jiff::Timestamp;

use super::super::Dnssec;
use super::super::sections::Override;
use super::Checker;
use crate::tlspolicy::LocalRule;

/// Checks all tables.
pub(super) fn check(checker: &mut Checker<'_>, now: Timestamp) {
    let loaded = checker.loaded;
    let rules = &loaded.config.policy.r#override;
    let is_over = |rule: &Override| rule.until.is_some_and(|until| until.end() <= now);
    for (index, rule) in rules.iter().enumerate() {
        let key = |name: &str| format!("policy.override[{index}].{name}");
        let whom = match (&rule.domain, &rule.mx, rule.whom()) {
            (Some(_), Some(_), _) => {
                checker.error(&key("mx"), "is set beside domain; make a table of its own for the host");
                continue;
            }
            (_, _, Some(whom)) => whom,
            (_, _, None) => {
                let text = "is missing; give domain = \"example.net\", \"*.example.net\" for all below, \
                            or mx = \"mx.example.net\"";
                checker.error(&key("domain"), text);
                continue;
            }
        };
        let name = if rule.domain.is_some() { "domain" } else { "mx" };
        if is_over(rule) {
            checker.note(&key("until"), format!("is in the past: the rule for {whom} has no effect"));
            continue;
        }
        let before = rules[..index]
            .iter()
            .position(|other| (&other.domain, &other.mx) == (&rule.domain, &rule.mx) && !is_over(other));
        if let Some(before) = before {
            let other = rules[before].require.word();
            checker.error(
                &key(name),
                format!(
                    "{whom} has a rule already: policy.override[{before}] says {other:?}; keep one of them"
                ),
            );
            continue;
        }
        match rule.require {
            LocalRule::None => {
                checker.note(&key("require"), format!("\"none\" demands nothing of {whom}: no effect"));
            }
            LocalRule::Dane if !loaded.config.policy.dane => checker.error(
                &key("require"),
                format!("\"dane\" cannot be met while policy.dane is off: mail for {whom} would never go"),
            ),
            LocalRule::Dane if loaded.config.dns.dnssec == Dnssec::Off => checker.error(
                &key("require"),
                format!("\"dane\" cannot be met while dns.dnssec is off: mail for {whom} would never go"),
            ),
            LocalRule::IgnoreSts => {
                checker.note(&key("require"), format!("MTA-STS of {whom} is not applied"));
            }
            LocalRule::Encrypt | LocalRule::Verify | LocalRule::Dane => {}
        }
    }
}
