//! Judges whether DNSSEC validation works: that of the resolver on this host, or our own.
//!
//! Pure: what a look showed comes in, a judgement with a sentence for operators goes out. A resolver that
//! does not validate switches DANE off without a word; one whose clock or trust anchor is wrong stops all
//! mail to signed domains. Neither is the fault of a recipient's domain, and neither is told by a single
//! answer. Never changes what an answer means. Called by `resolver`.

use serde::{Deserialize, Serialize};

/// So many different domains that fail validation, with no secure answer between, are not their fault.
pub(super) const BOGUS_DOMAINS: usize = 4;

/// How validation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "text", rename_all = "kebab-case")]
pub enum Validation {
    /// Nothing is validated, as configured; why.
    Off(String),
    /// A name known to be signed is secure.
    Works,
    /// A name known to be signed is answered as if it were not: no answer counts as secure.
    Missing(String),
    /// What is signed is refused, and is there all the same.
    Broken(String),
    /// Nobody answers at all.
    Silent(String),
}

impl Validation {
    /// For the text of a failed lookup: whose fault it is, when it is not that of the name asked about.
    pub fn blame(&self) -> Option<String> {
        match self {
            Self::Broken(text) => Some(format!(
                "the local DNSSEC validator seems broken, which is not the recipient domain's fault: {text}"
            )),
            Self::Silent(text) => Some(format!(
                "the DNS resolver of this relay seems out of order, which is not the recipient domain's fault: {text}"
            )),
            Self::Off(_) | Self::Works | Self::Missing(_) => None,
        }
    }

    /// Why an answer without proof says nothing about what it answers.
    pub fn doubt(&self) -> Option<String> {
        match self {
            Self::Missing(text) | Self::Broken(text) => Some(format!(
                "the local DNSSEC validator seems broken, which is not the recipient domain's fault: {text}"
            )),
            Self::Off(_) | Self::Works | Self::Silent(_) => None,
        }
    }
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off(text) => write!(f, "off: {text}"),
            Self::Works => f.write_str("works"),
            Self::Missing(text) => write!(f, "missing, so DANE is not used: {text}"),
            Self::Broken(text) => write!(f, "broken: {text}"),
            Self::Silent(text) => write!(f, "not known: {text}"),
        }
    }
}

/// What one question showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// An answer or a denial that is proven.
    Secure,
    /// One that is not.
    Insecure,
    /// The server says that it cannot answer: the response code.
    Refused(String),
    /// No usable reply.
    Silent(String),
}

/// What a server showed of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// The server.
    pub(super) server: String,
    /// As every question is asked.
    pub(super) checked: Seen,
    /// The same with CD set (RFC 4035 §3.2.2), where the other was refused.
    pub(super) unchecked: Option<Seen>,
}

impl Shown {
    /// RFC 4035 §5.5: SERVFAIL for what fails validation, and the data for who checks by himself.
    fn is_refused_by_validation(&self) -> bool {
        matches!(self.checked, Seen::Refused(_))
            && matches!(self.unchecked, Some(Seen::Secure | Seen::Insecure))
    }
}

/// Judges a resolver whose AD bit is believed; `bogus` are the domains that failed validation since the
/// last secure answer.
pub(super) fn of_resolver(probe: &str, servers: &[Shown], bogus: &[String]) -> Validation {
    // Whichever server is asked, its word counts: one that does not validate is enough.
    if let Some(shown) = servers.iter().find(|shown| shown.checked == Seen::Insecure) {
        return Validation::Missing(format!(
            "{} answers about {probe} without the AD bit: it does not validate DNSSEC, or has no trust anchor; \
             switch validation on there, or set dns.dnssec = \"validate\"",
            shown.server
        ));
    }
    let works = servers.iter().any(|shown| shown.checked == Seen::Secure);
    if !works {
        return match servers.iter().find(|shown| shown.is_refused_by_validation()) {
            Some(shown) => Validation::Broken(format!(
                "{} refuses to answer about {probe} ({}), and answers with checking disabled; its clock or its \
                 trust anchor may be wrong (a rolled root key), or its DNSSEC records are stripped on the way",
                shown.server,
                what_of(&shown.checked)
            )),
            None => {
                let said: Vec<String> = servers
                    .iter()
                    .map(|shown| format!("{}: {}", shown.server, what_of(&shown.checked)))
                    .collect();
                Validation::Silent(format!("no answer about {probe} ({})", said.join(", ")))
            }
        };
    }
    // The probe may be an answer from before: what is asked about now tells more.
    if bogus.len() >= BOGUS_DOMAINS {
        let some = bogus[..BOGUS_DOMAINS.min(bogus.len())].join(", ");
        return Validation::Broken(format!(
            "{} domains in a row ({some}, ...) are refused by the resolver and answered with checking disabled; \
             its clock or its trust anchor may be wrong (a rolled root key)",
            bogus.len()
        ));
    }
    Validation::Works
}

/// Judges our own validation by what it made of the probe; `fetched` says whether all it needed came.
pub(super) fn of_ourselves(probe: &str, seen: &Seen, fetched: bool, bogus: &[String]) -> Validation {
    match seen {
        Seen::Secure if bogus.len() >= BOGUS_DOMAINS => {
            let some = bogus[..BOGUS_DOMAINS.min(bogus.len())].join(", ");
            Validation::Broken(format!(
                "{} domains in a row ({some}, ...) fail validation here; the resolver may strip DNSSEC records",
                bogus.len()
            ))
        }
        Seen::Secure => Validation::Works,
        Seen::Insecure => Validation::Missing(format!(
            "no trust anchor leads to {probe}; see dns.trust_anchor_file and dns.dnssec_probe"
        )),
        Seen::Refused(text) if fetched => Validation::Broken(format!(
            "{probe} fails validation here ({text}); this machine's clock or dns.trust_anchor_file may be wrong (a \
             rolled root key), or the resolver strips DNSSEC records"
        )),
        Seen::Refused(text) | Seen::Silent(text) => {
            Validation::Silent(format!("no answer about {probe} ({text})"))
        }
    }
}

fn what_of(seen: &Seen) -> &str {
    match seen {
        Seen::Secure => "secure",
        Seen::Insecure => "insecure",
        Seen::Refused(text) | Seen::Silent(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(checked: Seen, unchecked: Option<Seen>) -> Shown {
        Shown { server: "127.0.0.1:53".to_owned(), checked, unchecked }
    }

    fn refused() -> Seen {
        Seen::Refused("Server Failure".to_owned())
    }

    fn silent() -> Seen {
        Seen::Silent("request timed out".to_owned())
    }

    fn word(validation: &Validation) -> &'static str {
        match validation {
            Validation::Off(_) => "off",
            Validation::Works => "works",
            Validation::Missing(_) => "missing",
            Validation::Broken(_) => "broken",
            Validation::Silent(_) => "silent",
        }
    }

    #[test]
    fn a_resolver_is_judged_by_what_it_says_with_and_without_checking() {
        let good = || shown(Seen::Secure, None);
        for (servers, expected) in [
            (vec![good()], "works"),
            (vec![shown(Seen::Insecure, None)], "missing"),
            (vec![shown(refused(), Some(Seen::Insecure))], "broken"),
            (vec![shown(refused(), Some(Seen::Secure))], "broken"),
            (vec![shown(refused(), Some(refused()))], "silent"),
            (vec![shown(refused(), Some(silent()))], "silent"),
            (vec![shown(silent(), None)], "silent"),
            (vec![], "silent"),
            // One that works makes up for one that refuses or is silent, as it does for every question.
            (vec![shown(refused(), Some(Seen::Insecure)), good()], "works"),
            (vec![shown(silent(), None), good()], "works"),
            // One that does not validate is believed whenever it is asked.
            (vec![good(), shown(Seen::Insecure, None)], "missing"),
            (vec![shown(silent(), None), shown(refused(), Some(Seen::Insecure))], "broken"),
        ] {
            let validation = of_resolver(".", &servers, &[]);
            assert_eq!(word(&validation), expected, "{servers:?}");
        }
    }

    #[test]
    fn domains_that_fail_one_after_the_other_outweigh_a_probe_that_may_be_old() {
        let domains = |count: usize| (0..count).map(|n| format!("d{n}.test")).collect::<Vec<_>>();
        let works = [shown(Seen::Secure, None)];
        assert_eq!(of_resolver(".", &works, &domains(BOGUS_DOMAINS - 1)), Validation::Works);
        let broken = of_resolver(".", &works, &domains(BOGUS_DOMAINS));
        assert_eq!(word(&broken), "broken");
        assert!(broken.to_string().contains("d0.test, d1.test"), "{broken}");
        assert_eq!(word(&of_ourselves(".", &Seen::Secure, true, &domains(BOGUS_DOMAINS))), "broken");
    }

    #[test]
    fn our_own_validation_is_broken_only_when_it_had_all_it_needs() {
        for (seen, fetched, expected) in [
            (Seen::Secure, true, "works"),
            (Seen::Insecure, true, "missing"),
            (refused(), true, "broken"),
            (refused(), false, "silent"),
            (silent(), false, "silent"),
        ] {
            assert_eq!(word(&of_ourselves(".", &seen, fetched, &[])), expected, "{seen:?} {fetched}");
        }
    }

    #[test]
    fn only_what_is_not_the_domains_fault_is_put_to_the_resolver() {
        let text = || "x".to_owned();
        for (validation, blamed, doubted) in [
            (Validation::Off(text()), false, false),
            (Validation::Works, false, false),
            (Validation::Missing(text()), false, true),
            (Validation::Broken(text()), true, true),
            (Validation::Silent(text()), true, false),
        ] {
            assert_eq!(validation.blame().is_some(), blamed, "{validation:?}");
            assert_eq!(validation.doubt().is_some(), doubted, "{validation:?}");
            let line = serde_json::to_string(&validation).unwrap();
            assert_eq!(serde_json::from_str::<Validation>(&line).unwrap(), validation);
        }
        let blame = Validation::Broken(text()).blame().unwrap();
        assert!(
            blame.contains("local DNSSEC validator") && blame.contains("not the recipient domain's fault")
        );
    }
}
