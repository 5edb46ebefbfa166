//! What is wrong, or without effect, in `[[route]]`.
//!
//! A route that no mail could ever take is an error, and so is one that would show its password to whoever
//! answers.

use super::super::Dnssec;
use super::super::sections::RouteSection;
use super::Checker;
use crate::delivery::static_route::{HopTls, NextHopName};
use crate::net::guard::AddressGuard;
use crate::tlspolicy::LocalRule;

/// Checks all tables.
pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    for (index, route) in loaded.config.route.iter().enumerate() {
        let key = |name: &str| format!("route[{index}].{name}");
        if let Some(before) = loaded.config.route[..index].iter().position(|at| at.domain == route.domain) {
            let text = format!("{} has a route already: route[{before}]; keep one of them", route.domain);
            checker.error(&key("domain"), text);
        }
        login(checker, route, &key);
        demand(checker, route, &key);
        target(checker, route, &key);
    }
}

fn login(checker: &mut Checker<'_>, route: &RouteSection, key: &dyn Fn(&str) -> String) {
    match (&route.username, &route.password_file) {
        (None, None) => return,
        (Some(_), None) => return checker.error(&key("password_file"), "is missing; username is set"),
        (None, Some(_)) => return checker.error(&key("username"), "is missing; password_file is set"),
        (Some(_), Some(_)) => {}
    }
    match (&route.next_hop, route.require) {
        (NextHopName::Address(..), _) => checker.error(
            &key("next_hop"),
            "is an address, so the server cannot be authenticated, and no password is sent to it; \
             give the name of the host, \"[smart.example.org]:587\"",
        ),
        (_, Some(LocalRule::None | LocalRule::Encrypt)) => checker.error(
            &key("require"),
            "would send the password to a server that is not authenticated; use \"verify\" or \"dane\"",
        ),
        _ => {}
    }
}

fn demand(checker: &mut Checker<'_>, route: &RouteSection, key: &dyn Fn(&str) -> String) {
    let config = &checker.loaded.config;
    let address = matches!(route.next_hop, NextHopName::Address(..));
    let text = match route.require {
        Some(LocalRule::IgnoreSts) => {
            "\"ignore-sts\" is no demand; say it in a [[policy.override]] for the next hop's domain"
        }
        Some(LocalRule::Verify | LocalRule::Dane) if address => {
            "cannot be met: next_hop is an address, and no certificate or TLSA record is for it; \
             give the name of the host"
        }
        Some(LocalRule::Dane) if !config.policy.dane => "\"dane\" cannot be met while policy.dane is off",
        Some(LocalRule::Dane) if config.dns.dnssec == Dnssec::Off => {
            "\"dane\" cannot be met while dns.dnssec is off"
        }
        _ => return,
    };
    checker.error(&key("require"), text);
}

fn target(checker: &mut Checker<'_>, route: &RouteSection, key: &dyn Fn(&str) -> String) {
    let config = &checker.loaded.config;
    match &route.next_hop {
        NextHopName::Direct => {
            let set = [
                ("tls", route.tls != HopTls::default()),
                ("require", route.require.is_some()),
                ("username", route.username.is_some()),
            ];
            for (name, _) in set.iter().filter(|(_, set)| *set) {
                checker.error(&key(name), "is set, and the route is \"direct\": there is no hop it is about");
            }
        }
        NextHopName::Address(ip, port) => {
            let port = port.unwrap_or(config.delivery.smtp_port);
            let own = config.listener.iter().find(|listener| {
                listener.listen.iter().any(|own| {
                    let everywhere = own.ip().is_unspecified() && ip.is_loopback();
                    own.port() == port && (own.ip() == *ip || everywhere)
                })
            });
            if let Some(listener) = own {
                let text = format!("is our own listener {:?}: mail would come back", listener.name);
                checker.error(&key("next_hop"), text);
            }
            let allowed = config.network.allow_private_destinations.iter().map(|network| network.0);
            if let Err(why) = AddressGuard::new(allowed.collect()).check(*ip) {
                checker.error(&key("next_hop"), format!("cannot be connected to: {why}"));
            }
        }
        NextHopName::MxOf(_, None) if route.tls == HopTls::Implicit => checker.note(
            &key("tls"),
            "MX hosts at port 465 with implicit TLS are unusual; for one host write \"[smart.example.org]:465\"",
        ),
        NextHopName::MxOf(..) | NextHopName::Host(..) => {}
    }
}
