//! Static routes (`[[route]]`): mail for some domains, or for all, is handed to a configured next hop.
//!
//! Pure: which route is whose, what it says, and the [`Hop`] it makes of a destination. The policy domain is
//! the next hop's name, never the recipient domain (RFC 8461 §3.4, RFC 8460 §1.1); an address has none.
//! Whatever is wrong with a configured next hop makes mail wait and bounces nothing. Called by
//! `delivery::gather`, which asks DNS about hops, and by `config`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::{Destination, Domain, Failure, Pattern, Permanence};
use crate::smtp::client::{Credentials, TlsUse};
use crate::tlspolicy::{LocalRule, Override, TlsPlan, Whom};

/// RFC 8314 §7.3: submissions.
const IMPLICIT_TLS_PORT: u16 = 465;

/// Whose mail goes by a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFor {
    /// `*`: all mail that no other route is for, to address literals too.
    All,
    /// A recipient domain, or all below a name.
    Domain(Pattern),
}

impl RouteFor {
    fn matches(&self, destination: &Destination) -> bool {
        match (self, destination) {
            (Self::All, _) => true,
            (Self::Domain(pattern), Destination::Domain(domain)) => pattern.matches(domain),
            (Self::Domain(_), Destination::Literal(_)) => false,
        }
    }

    /// Greater is nearer.
    fn specificity(&self) -> Option<(bool, usize)> {
        match self {
            Self::All => None,
            Self::Domain(pattern) => Some(pattern.specificity()),
        }
    }
}

/// `next_hop` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHopName {
    /// `direct`: as if there were no route; an exception to a wider one.
    Direct,
    /// `smart.example.org`, with a port or without: the MX hosts of that name.
    MxOf(Domain, Option<u16>),
    /// `[smart.example.org]:587`: that host, no MX lookup.
    Host(Domain, Option<u16>),
    /// `[192.0.2.1]:25`, `[IPv6:2001:db8::1]:25`.
    Address(IpAddr, Option<u16>),
}

/// How TLS begins at a configured next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopTls {
    /// By STARTTLS.
    #[default]
    Starttls,
    /// With the first octet (RFC 8314 §3.3).
    Implicit,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    whom: RouteFor,
    next_hop: NextHopName,
    tls: HopTls,
    rule: Override,
    credentials: Option<Credentials>,
}

impl StaticRoute {
    /// A route. What it demands is at least TLS where TLS is implicit, and at least an authenticated
    /// server where there is a password: one that is shown to nobody else.
    pub fn new(
        whom: RouteFor,
        next_hop: NextHopName,
        tls: HopTls,
        require: LocalRule,
        credentials: Option<Credentials>,
    ) -> Self {
        let require = match require {
            LocalRule::Dane => LocalRule::Dane,
            _ if credentials.is_some() => LocalRule::Verify,
            LocalRule::None if tls == HopTls::Implicit => LocalRule::Encrypt,
            other => other,
        };
        let named = Whom::Route(format!("the route for {whom} to {next_hop}"));
        let rule = Override { whom: named, require, until: None, reason: String::new() };
        Self { whom, next_hop, tls, rule, credentials }
    }

    /// Whose mail goes by it.
    pub fn whom(&self) -> &RouteFor {
        &self.whom
    }

    /// Where it goes.
    pub fn next_hop(&self) -> &NextHopName {
        &self.next_hop
    }

    /// What it demands, as a local rule among the others.
    pub fn rule(&self) -> &Override {
        &self.rule
    }

    /// How TLS begins.
    pub fn tls(&self) -> HopTls {
        self.tls
    }

    /// With what we log in.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

/// `* to [smart.example.org]:587`
impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.whom, self.next_hop)
    }
}

/// What is asked about: hosts named by MX records, one host, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The MX hosts of a name.
    MxOf(Domain),
    /// A host that the operator names.
    Host(Domain),
    /// An address literal, or what the operator gives.
    Address(IpAddr),
}

/// Where mail for a destination is handed over, before DNS is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// What is asked about.
    pub target: Target,
    /// The port that is connected to.
    pub port: u16,
    /// The static route that leads there; absent for the destination itself.
    pub via: Option<Arc<StaticRoute>>,
}

impl Hop {
    /// The hop for a destination: by the nearest route, or by its own MX records at `smtp_port`.
    pub fn of(destination: &Destination, routes: &[Arc<StaticRoute>], smtp_port: u16) -> Self {
        let route = routes
            .iter()
            .filter(|route| route.whom.matches(destination))
            .max_by_key(|route| route.whom.specificity());
        let to = |target, port: Option<u16>, route: &Arc<StaticRoute>| {
            let usual = if route.tls == HopTls::Implicit { IMPLICIT_TLS_PORT } else { smtp_port };
            Self { target, port: port.unwrap_or(usual), via: Some(Arc::clone(route)) }
        };
        match route.map(|route| (route, &route.next_hop)) {
            Some((route, NextHopName::MxOf(domain, port))) => to(Target::MxOf(domain.clone()), *port, route),
            Some((route, NextHopName::Host(domain, port))) => to(Target::Host(domain.clone()), *port, route),
            Some((route, NextHopName::Address(ip, port))) => to(Target::Address(*ip), *port, route),
            None | Some((_, NextHopName::Direct)) => {
                let target = match destination {
                    Destination::Domain(domain) => Target::MxOf(domain.clone()),
                    Destination::Literal(ip) => Target::Address(*ip),
                };
                Self { target, port: smtp_port, via: None }
            }
        }
    }

    /// Whose MTA-STS policy, TLSA records and TLS-RPT record count here; nobody's for an address
    /// (RFC 8461 §3.4, RFC 8460 §1.1).
    pub fn policy_domain(&self) -> Option<&Domain> {
        match &self.target {
            Target::MxOf(domain) | Target::Host(domain) => Some(domain),
            Target::Address(_) => None,
        }
    }

    /// The demand of the route.
    pub fn rule(&self) -> Option<&Override> {
        self.via.as_deref().map(StaticRoute::rule)
    }

    /// With what we log in.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.via.as_deref().and_then(StaticRoute::credentials)
    }

    /// How TLS is used on a connection with this plan.
    pub fn tls_use(&self, plan: &TlsPlan) -> TlsUse {
        match &self.via {
            Some(route) if route.tls == HopTls::Implicit => TlsUse::Implicit,
            _ if plan.require.allows_cleartext() => TlsUse::IfOffered,
            _ => TlsUse::Required,
        }
    }

    /// A failure on the way to, or at, the next hop. Of a configured one it says nothing about the
    /// recipient: its operator mends it, and the mail waits.
    pub fn failing(&self, failure: Failure) -> Failure {
        match &self.via {
            None => failure,
            Some(route) => Failure {
                permanence: Permanence::Transient,
                status: failure.status.with_class(4),
                text: format!("{} (by the static route for {})", failure.text, route.whom),
                ..failure
            },
        }
    }
}

impl fmt::Display for RouteFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(pattern) => pattern.fmt(f),
        }
    }
}

impl FromStr for RouteFor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::Domain) }
    }
}

impl fmt::Display for NextHopName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match self {
            Self::Direct => return f.write_str("direct"),
            Self::MxOf(domain, port) => {
                domain.fmt(f)?;
                port
            }
            Self::Host(domain, port) => {
                write!(f, "[{domain}]")?;
                port
            }
            Self::Address(ip, port) => {
                Destination::Literal(*ip).fmt(f)?;
                port
            }
        };
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for NextHopName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!(
                "{text:?} is no next hop{why}; write \"smart.example.org\" for its MX hosts, \
                 \"[smart.example.org]:587\" for that host, \"[192.0.2.1]:25\", or \"direct\""
            )
        };
        if text == "direct" {
            return Ok(Self::Direct);
        }
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(bad(&format!(": {text:?} is no port"))),
        };
        if let Some(rest) = text.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').ok_or_else(|| bad(": a bracket is missing"))?;
            let port = match rest.strip_prefix(':') {
                Some(number) => Some(port(number)?),
                None if rest.is_empty() => None,
                None => return Err(bad("")),
            };
            if let Ok(ip) = name.parse::<Ipv6Addr>() {
                return Ok(Self::Address(ip.into(), port));
            }
            return match Destination::parse(&format!("[{name}]")) {
                Ok(Destination::Literal(ip)) => Ok(Self::Address(ip, port)),
                _ => Domain::parse(name)
                    .map(|name| Self::Host(name, port))
                    .map_err(|error| bad(&format!(": {error}"))),
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address.ip(), Some(port(&address.port().to_string())?)));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, number)) => (name, Some(port(number)?)),
            None => (text, None),
        };
        Domain::parse(name).map(|name| Self::MxOf(name, port)).map_err(|error| bad(&format!(": {error}")))
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(RouteFor);
as_text!(NextHopName);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{EnhancedStatus, Scope};

    fn route(whom: &str, next_hop: &str) -> Arc<StaticRoute> {
        let (whom, next_hop) = (whom.parse().unwrap(), next_hop.parse().unwrap());
        Arc::new(StaticRoute::new(whom, next_hop, HopTls::Starttls, LocalRule::None, None))
    }

    fn hop(routes: &[(&str, &str)], to: &str) -> String {
        let routes: Vec<Arc<StaticRoute>> = routes.iter().map(|(whom, to)| route(whom, to)).collect();
        let hop = Hop::of(&Destination::parse(to).unwrap(), &routes, 25);
        let target = match &hop.target {
            Target::MxOf(domain) => format!("mx of {domain}"),
            Target::Host(domain) => format!("host {domain}"),
            Target::Address(ip) => ip.to_string(),
        };
        let via = hop.via.map(|route| format!(" by {}", route.whom())).unwrap_or_default();
        format!("{target} {}{via}", hop.port)
    }

    #[test]
    fn the_nearest_route_holds_and_without_one_mail_goes_by_its_own_mx_records() {
        let routes = [
            ("*", "[smart.test]:587"),
            ("*.example", "hub.test"),
            ("*.b.example", "192.0.2.7:2525"),
            ("b.example", "hub.test:26"),
            ("c.example", "direct"),
        ];
        for (to, expected) in [
            ("elsewhere.test", "host smart.test 587 by *"),
            ("[192.0.2.1]", "host smart.test 587 by *"),
            ("a.example", "mx of hub.test 25 by *.example"),
            ("b.example", "mx of hub.test 26 by b.example"),
            ("x.b.example", "192.0.2.7 2525 by *.b.example"),
            ("c.example", "mx of c.example 25"),
        ] {
            assert_eq!(hop(&routes, to), expected, "{to}");
            let reversed: Vec<_> = routes.iter().rev().copied().collect();
            assert_eq!(hop(&reversed, to), expected, "{to}");
        }
        assert_eq!(hop(&routes[1..], "elsewhere.test"), "mx of elsewhere.test 25");
        assert_eq!(hop(&routes[1..], "[192.0.2.1]"), "192.0.2.1 25");
    }

    #[test]
    fn next_hops_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("smart.example.org", "smart.example.org"),
            ("Smart.Example.ORG:587", "smart.example.org:587"),
            ("[smart.example.org]", "[smart.example.org]"),
            ("[smart.example.org]:587", "[smart.example.org]:587"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("192.0.2.1:25", "[192.0.2.1]:25"),
            ("[2001:db8::1]:2525", "[IPv6:2001:db8::1]:2525"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("direct", "direct"),
        ] {
            let next_hop: NextHopName = text.parse().unwrap();
            assert_eq!(next_hop.to_string(), shown);
            assert_eq!(shown.parse::<NextHopName>().unwrap(), next_hop);
        }
        for bad in [
            "",
            "192.0.2.1",
            "2001:db8::1",
            "[smart.example.org",
            "[smart.example.org]587",
            "[smart.example.org]:",
            "[smart.example.org]:0",
            "smart.example.org:65536",
            "192.0.2.1:0",
            "[]",
            "a..b",
            "smart example",
            "smtp://smart.example.org",
        ] {
            let error = bad.parse::<NextHopName>().unwrap_err();
            assert!(error.contains("\"[smart.example.org]:587\""), "{error}");
        }
    }

    #[test]
    fn a_password_demands_an_authenticated_server_and_implicit_tls_tls() {
        let credentials = || Some(Credentials::new("relay", "s3cret").unwrap());
        let (starttls, implicit) = (HopTls::Starttls, HopTls::Implicit);
        for (require, tls, credentials, expected) in [
            (LocalRule::None, starttls, None, LocalRule::None),
            (LocalRule::None, implicit, None, LocalRule::Encrypt),
            (LocalRule::Verify, implicit, None, LocalRule::Verify),
            (LocalRule::None, starttls, credentials(), LocalRule::Verify),
            (LocalRule::Encrypt, starttls, credentials(), LocalRule::Verify),
            (LocalRule::Dane, implicit, credentials(), LocalRule::Dane),
        ] {
            let made =
                StaticRoute::new(RouteFor::All, "[s.test]".parse().unwrap(), tls, require, credentials);
            assert_eq!(made.rule().require, expected, "{require:?} {tls:?}");
        }
        let made = StaticRoute::new(
            RouteFor::All,
            "[s.test]".parse().unwrap(),
            implicit,
            LocalRule::None,
            credentials(),
        );
        assert_eq!(made.rule().to_string(), "\"verify\" for the route for * to [s.test]");
        let shown = format!("{made:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        let hop = Hop::of(&Destination::parse("a.test").unwrap(), &[Arc::new(made)], 25);
        assert_eq!(hop.port, IMPLICIT_TLS_PORT);
    }

    #[test]
    fn what_is_wrong_with_a_configured_hop_never_bounces() {
        let failure = Failure {
            scope: Scope::Domain,
            permanence: Permanence::Permanent,
            status: EnhancedStatus::new(5, 1, 2),
            text: "no route to smart.test".to_owned(),
            host: None,
            reply: None,
            rule: None,
        };
        let to = Destination::parse("a.test").unwrap();
        let waits = Hop::of(&to, &[route("*", "smart.test")], 25).failing(failure.clone());
        assert_eq!((waits.permanence, waits.status.to_string().as_str()), (Permanence::Transient, "4.1.2"));
        assert!(waits.text.contains("static route for *"), "{}", waits.text);
        assert_eq!(Hop::of(&to, &[], 25).failing(failure.clone()), failure);
    }
}
