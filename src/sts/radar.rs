//! Tells when a destination protects its mail less than it did: policies, TLSA records, DNSSEC.
//!
//! What was known and what is known now go in, the changes for the worse come out. A domain may have
//! good reasons (RFC 8461 §10.1), and so may somebody who attacks it; either way the operator should
//! hear of it once. Never changes what applies: a failed lookup, or a policy that is merely harder to
//! fetch, weakens nothing and is told as such. Pure. Called by `delivery::gather`, kept by
//! `store::Changes`, shown by `stsrelay policy changes`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policy::{Mode, StsPolicy};
use crate::mail::Domain;

/// Failed refetches in a row after which a policy is in danger: with the doubling waits of
/// `freshness` that is half an hour of trouble, more than a restart of a web server takes.
pub const FAILURES_ALARM: u32 = 4;
/// A reason is told up to as many characters.
const TEXT_CHARS_MAX: usize = 300;
/// Patterns told of each side of an MX set; more than sane policies have.
const PATTERNS_MAX: usize = 16;

/// How much a change matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Odd; protects as before.
    Notice,
    /// Protection may go, or is another.
    Warning,
    /// Mail is protected less than before, or soon will be.
    Alarm,
}

/// One change, of a policy domain or of an MX host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// The policy demands less: `enforce` to `testing` or `none`, or `testing` to `none`.
    ModeWeakened {
        /// Before.
        from: Mode,
        /// Now.
        to: Mode,
    },
    /// The policy names other MX hosts.
    MxChanged {
        /// Patterns that are new.
        added: Vec<String>,
        /// Patterns that are gone.
        removed: Vec<String>,
        /// So many changed besides.
        #[serde(default)]
        more: usize,
    },
    /// The policy is believed for less time, by half or more.
    MaxAgeShortened {
        /// Seconds.
        from: u32,
        /// Seconds.
        to: u32,
    },
    /// Another policy under the same id: other senders will not notice it (RFC 8461 §3.1).
    TextWithoutId {
        /// The id in DNS.
        id: String,
    },
    /// Another id and the very same policy.
    IdWithoutText {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// No usable `_mta-sts` record any more; what is held applies until it expires (RFC 8461 §5.1).
    RecordVanished {
        /// What DNS said.
        why: String,
    },
    /// The policy was withdrawn by `max_age: 0`.
    PolicyWithdrawn {
        /// Its mode until then.
        mode: Mode,
    },
    /// The policy ran out without having been fetched again: it applies no more.
    PolicyExpired {
        /// Its mode.
        mode: Mode,
        /// The last instant at which it applied.
        expired_at: Timestamp,
    },
    /// The policy cannot be fetched again, and runs out if that stays so.
    RefetchFailing {
        /// In a row.
        failures: u32,
        /// The last instant at which it applies.
        expires_at: Timestamp,
        /// The last failure.
        why: String,
    },
    /// An MX host had secure TLSA records and has none.
    TlsaVanished {
        /// Whose mail is known to go there; not all of them, if there are many.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        domains: Vec<Domain>,
    },
    /// An MX host had secure TLSA records; now they are, or the host is, without DNSSEC.
    TlsaInsecure {
        /// Whose mail is known to go there; not all of them, if there are many.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        domains: Vec<Domain>,
    },
    /// The MX records of a domain were signed and are not.
    MxInsecure,
}

impl Change {
    /// The word it goes by in logs and listings.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ModeWeakened { .. } => "mode-weakened",
            Self::MxChanged { .. } => "mx-changed",
            Self::MaxAgeShortened { .. } => "max-age-shortened",
            Self::TextWithoutId { .. } => "text-without-id",
            Self::IdWithoutText { .. } => "id-without-text",
            Self::RecordVanished { .. } => "record-vanished",
            Self::PolicyWithdrawn { .. } => "policy-withdrawn",
            Self::PolicyExpired { .. } => "policy-expired",
            Self::RefetchFailing { .. } => "refetch-failing",
            Self::TlsaVanished { .. } => "tlsa-vanished",
            Self::TlsaInsecure { .. } => "tlsa-insecure",
            Self::MxInsecure => "mx-insecure",
        }
    }

    /// The domains it is about besides the one it is noted for.
    pub fn domains(&self) -> &[Domain] {
        match self {
            Self::TlsaVanished { domains } | Self::TlsaInsecure { domains } => domains,
            _ => &[],
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::ModeWeakened { from: Mode::Enforce, .. }
            | Self::PolicyWithdrawn { mode: Mode::Enforce }
            | Self::PolicyExpired { mode: Mode::Enforce, .. }
            | Self::RefetchFailing { .. }
            | Self::TlsaVanished { .. }
            | Self::TlsaInsecure { .. }
            | Self::MxInsecure => Severity::Alarm,
            Self::ModeWeakened { .. }
            | Self::PolicyWithdrawn { .. }
            | Self::PolicyExpired { .. }
            | Self::MxChanged { .. }
            | Self::MaxAgeShortened { .. }
            | Self::RecordVanished { .. } => Severity::Warning,
            Self::TextWithoutId { .. } | Self::IdWithoutText { .. } => Severity::Notice,
        }
    }
}

impl fmt::Display for Change {
    /// One sentence for the operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModeWeakened { from, to } => write!(f, "the policy went from {from} to {to}"),
            Self::MxChanged { added, removed, more } => {
                write!(f, "the policy names other MX hosts:")?;
                let signed = |sign: char, list: &[String]| -> String {
                    list.iter().map(|mx| format!(" {sign}{mx}")).collect()
                };
                let text = signed('+', added) + &signed('-', removed);
                f.write_str(&text)?;
                if *more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::MaxAgeShortened { from, to } => {
                write!(f, "the policy is to be believed for {to} s instead of {from} s")
            }
            Self::TextWithoutId { id } => {
                write!(f, "the policy is another one, while its id in DNS stayed {id}")
            }
            Self::IdWithoutText { from, to } => {
                write!(f, "the id went from {from} to {to}, and the policy stayed the same")
            }
            Self::RecordVanished { why } => {
                write!(
                    f,
                    "no usable _mta-sts record any more ({why}); the policy held applies until it expires"
                )
            }
            Self::PolicyWithdrawn { mode } => write!(f, "the {mode} policy was withdrawn (max_age 0)"),
            Self::PolicyExpired { mode, expired_at } => {
                write!(f, "the {mode} policy ran out at {expired_at:.0} and could not be fetched again")
            }
            Self::RefetchFailing { failures, expires_at, why } => write!(
                f,
                "the policy could not be fetched again {failures} times in a row and expires at {expires_at:.0}: {why}"
            ),
            Self::TlsaVanished { domains } => {
                f.write_str("the host had secure TLSA records and has none any more")?;
                whose(f, domains)
            }
            Self::TlsaInsecure { domains } => {
                f.write_str("the host had secure TLSA records; answers about them are not secure any more")?;
                whose(f, domains)
            }
            Self::MxInsecure => {
                f.write_str("the MX records were secure by DNSSEC; answers about them are not any more")
            }
        }
    }
}

fn whose(f: &mut fmt::Formatter<'_>, domains: &[Domain]) -> fmt::Result {
    let names: Vec<&str> = domains.iter().map(Domain::as_str).collect();
    if names.is_empty() { Ok(()) } else { write!(f, "; mail for {} goes there", names.join(", ")) }
}

/// A change with whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noticed {
    /// Counts up; later changes have greater ones.
    pub number: u64,
    /// When it was noticed.
    pub at: Timestamp,
    /// The policy domain, or the MX host.
    pub domain: Domain,
    /// How much it matters.
    pub severity: Severity,
    /// What.
    #[serde(flatten)]
    pub change: Change,
}

/// What a newly fetched policy changes for the worse. `id` is the one in DNS now, if one was seen.
pub fn policy_changes(
    (before, before_id): (&StsPolicy, &str),
    (after, id): (&StsPolicy, Option<&str>),
) -> Vec<Change> {
    let mut changes = Vec::new();
    if after.max_age == 0 && before.mode != Mode::None {
        changes.push(Change::PolicyWithdrawn { mode: before.mode });
    }
    if strength(after.mode) < strength(before.mode) {
        changes.push(Change::ModeWeakened { from: before.mode, to: after.mode });
    }
    let protects = before.mode != Mode::None && after.mode != Mode::None;
    if protects {
        let patterns = |policy: &StsPolicy| policy.mx.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (old, new) = (patterns(before), patterns(after));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|mx| !those.contains(mx)).cloned().collect()
        };
        let (mut added, mut removed) = (only(&new, &old), only(&old, &new));
        if !added.is_empty() || !removed.is_empty() {
            let all = added.len() + removed.len();
            added.truncate(PATTERNS_MAX);
            removed.truncate(PATTERNS_MAX);
            let more = all - added.len() - removed.len();
            changes.push(Change::MxChanged { added, removed, more });
        }
        if after.max_age > 0 && after.max_age <= before.max_age / 2 {
            changes.push(Change::MaxAgeShortened { from: before.max_age, to: after.max_age });
        }
    }
    let is_same = before.text() == after.text();
    match id {
        Some(id) if id == before_id && !is_same => {
            changes.push(Change::TextWithoutId { id: id.to_owned() });
        }
        Some(id) if id != before_id && is_same => {
            changes.push(Change::IdWithoutText { from: before_id.to_owned(), to: id.to_owned() });
        }
        _ => {}
    }
    changes
}

/// Whether a policy that cannot be fetched again is in danger, for the `failures`th time in a row:
/// told when that begins, and at every further failure of its last day.
pub fn refetch_alarm(failures: u32, expires_at: Timestamp, now: Timestamp, why: &str) -> Option<Change> {
    let last_day = expires_at.duration_since(now).as_secs() < 86_400;
    (failures == FAILURES_ALARM || failures > FAILURES_ALARM && last_day).then(|| Change::RefetchFailing {
        failures,
        expires_at,
        why: cut(why),
    })
}

/// The record of a domain whose policy is held was there and is not.
pub fn record_vanished(why: &str) -> Change {
    Change::RecordVanished { why: cut(why) }
}

/// What is known now of something that was secure when last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// As before.
    Secure,
    /// There, or denied, without DNSSEC.
    Insecure,
    /// Not there, and DNSSEC does not say otherwise.
    Absent,
    /// No answer, or one that fails validation: says nothing of the zone, and nothing is downgraded.
    Unknown,
}

/// What of the DNS of a destination is remembered while it is secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Secure TLSA records of an MX host.
    Tlsa,
    /// Signed MX records of a domain.
    Mx,
    /// The `_mta-sts` record of a domain whose policy is held.
    Record,
    /// A policy of a mode other than `none`.
    Policy,
}

/// What TLSA records that were secure have come to, of a host where mail for `domains` goes; `None` when
/// to nothing worse.
pub fn tlsa_change(now: Now, domains: Vec<Domain>) -> Option<Change> {
    match now {
        Now::Secure | Now::Unknown => None,
        Now::Absent => Some(Change::TlsaVanished { domains }),
        Now::Insecure => Some(Change::TlsaInsecure { domains }),
    }
}

/// What MX records that were signed have come to; `None` when to nothing worse.
pub fn mx_change(now: Now) -> Option<Change> {
    match now {
        // Without MX records there is no host to be insecure: the domain has moved or gone.
        Now::Secure | Now::Unknown | Now::Absent => None,
        Now::Insecure => Some(Change::MxInsecure),
    }
}

fn strength(mode: Mode) -> u8 {
    match mode {
        Mode::Enforce => 2,
        Mode::Testing => 1,
        Mode::None => 0,
    }
}

fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: &str, mx: &[&str], max_age: u32) -> StsPolicy {
        let mx: String = mx.iter().map(|mx| format!("mx: {mx}\n")).collect();
        StsPolicy::parse(format!("version: STSv1\nmode: {mode}\n{mx}max_age: {max_age}\n").as_bytes())
            .unwrap()
    }

    fn words(before: (&StsPolicy, &str), after: (&StsPolicy, Option<&str>)) -> Vec<&'static str> {
        policy_changes(before, after).iter().map(Change::word).collect()
    }

    #[test]
    fn every_weakening_of_a_policy_is_told_and_no_strengthening() {
        let policies = |mode| policy(mode, &["mx.a.test"], 86_400);
        for (from, to, expected) in [
            ("enforce", "testing", Some(Severity::Alarm)),
            ("enforce", "none", Some(Severity::Alarm)),
            ("testing", "none", Some(Severity::Warning)),
            ("testing", "enforce", None),
            ("none", "testing", None),
            ("none", "enforce", None),
        ] {
            let changes = policy_changes((&policies(from), "1"), (&policies(to), Some("2")));
            assert_eq!(changes.first().map(Change::severity), expected, "{from} to {to}: {changes:?}");
            assert!(changes.len() <= 1, "{changes:?}");
        }
    }

    #[test]
    fn other_hosts_are_named() {
        let before = policy("enforce", &["mx1.a.test", "*.b.test"], 86_400);
        let after = policy("enforce", &["*.b.test", "mx.evil.test"], 86_400);
        let changes = policy_changes((&before, "1"), (&after, Some("2")));
        let (added, removed) = (vec!["mx.evil.test".to_owned()], vec!["mx1.a.test".to_owned()]);
        assert_eq!(changes, [Change::MxChanged { added, removed, more: 0 }]);
        assert_eq!(changes[0].to_string(), "the policy names other MX hosts: +mx.evil.test -mx1.a.test");
        let order = policy("enforce", &["*.b.test", "mx1.a.test"], 86_400);
        assert_eq!(words((&before, "1"), (&order, Some("2"))), [""; 0]);
        let names: Vec<String> = (0..100).map(|n| format!("mx{n}.c.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let changes = policy_changes((&before, "1"), (&policy("enforce", &names, 86_400), Some("2")));
        assert!(
            changes[0].to_string().ends_with("+mx15.c.test -mx1.a.test -*.b.test and 84 more"),
            "{changes:?}"
        );
    }

    #[test]
    fn a_shorter_life_and_a_withdrawal_are_told() {
        let before = policy("enforce", &["mx.a.test"], 604_800);
        let with = |max_age| policy("enforce", &["mx.a.test"], max_age);
        for (max_age, expected) in [
            (604_800, &[][..]),
            (400_000, &[][..]),
            (302_400, &["max-age-shortened"][..]),
            (0, &["policy-withdrawn"][..]),
            (1_209_600, &[][..]),
        ] {
            let id = if max_age == 604_800 { "1" } else { "2" };
            assert_eq!(words((&before, "1"), (&with(max_age), Some(id))), expected, "{max_age}");
        }
    }

    #[test]
    fn id_and_text_out_of_step_are_told_only_where_an_id_was_seen() {
        let one = policy("enforce", &["mx.a.test"], 604_800);
        let other = policy("enforce", &["mx.a.test"], 604_799);
        assert_eq!(words((&one, "1"), (&other, Some("1"))), ["text-without-id"]);
        assert_eq!(words((&one, "1"), (&one, Some("2"))), ["id-without-text"]);
        assert_eq!(words((&one, "1"), (&other, Some("2"))), [""; 0]);
        assert_eq!(words((&one, "1"), (&one, Some("1"))), [""; 0]);
        assert_eq!(words((&one, "1"), (&other, None)), [""; 0]);
        assert_eq!(words((&one, "1"), (&one, None)), [""; 0]);
    }

    #[test]
    fn failing_refetches_alarm_once_and_then_on_the_last_day() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        for (failures, left, told) in [
            (1, 604_800, false),
            (3, 60, false),
            (4, 604_800, true),
            (5, 604_800, false),
            (50, 86_400, false),
            (51, 86_399, true),
            (52, -1, true),
        ] {
            let change = refetch_alarm(failures, after(left), now, "refused");
            assert_eq!(change.is_some(), told, "{failures} {left}");
        }
        let text = refetch_alarm(4, after(0), now, "refused\nby peer").unwrap().to_string();
        assert!(
            text.ends_with("4 times in a row and expires at 2027-01-15T08:00:00Z: refused by peer"),
            "{text}"
        );
    }

    #[test]
    fn what_was_secure_is_lost_by_answers_and_never_by_failures() {
        let domains = || ["a.test", "b.test"].map(|name| Domain::parse(name).unwrap()).to_vec();
        for (now, tlsa, mx) in [
            (Now::Secure, None, None),
            (Now::Unknown, None, None),
            (Now::Absent, Some(Change::TlsaVanished { domains: domains() }), None),
            (Now::Insecure, Some(Change::TlsaInsecure { domains: domains() }), Some(Change::MxInsecure)),
        ] {
            assert_eq!((tlsa_change(now, domains()), mx_change(now)), (tlsa, mx), "{now:?}");
        }
        let text = Change::TlsaVanished { domains: domains() }.to_string();
        assert!(text.ends_with("has none any more; mail for a.test, b.test goes there"), "{text}");
        // As it was written before domains were known.
        let old: Change = serde_json::from_str(r#"{"change":"tlsa-vanished"}"#).unwrap();
        assert_eq!(old, Change::TlsaVanished { domains: Vec::new() });
    }

    #[test]
    fn the_word_is_the_one_programs_read() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let text = || "x".to_owned();
        for change in [
            Change::ModeWeakened { from: Mode::Enforce, to: Mode::None },
            Change::MxChanged { added: Vec::new(), removed: Vec::new(), more: 1 },
            Change::MaxAgeShortened { from: 2, to: 1 },
            Change::TextWithoutId { id: text() },
            Change::IdWithoutText { from: text(), to: text() },
            Change::RecordVanished { why: text() },
            Change::PolicyWithdrawn { mode: Mode::Testing },
            Change::PolicyExpired { mode: Mode::Testing, expired_at: at },
            Change::RefetchFailing { failures: 4, expires_at: at, why: text() },
            Change::TlsaVanished { domains: Vec::new() },
            Change::TlsaInsecure { domains: vec![Domain::parse("b.test").unwrap()] },
            Change::MxInsecure,
        ] {
            let domain = Domain::parse("a.test").unwrap();
            let noticed = Noticed { number: 1, at, domain, severity: change.severity(), change };
            let json = serde_json::to_value(&noticed).unwrap();
            assert_eq!(json["change"], noticed.change.word());
            assert_eq!(serde_json::from_value::<Noticed>(json).unwrap(), noticed);
        }
    }
}
