//! One attempt, told like a proof. Pure.

use jiff::Timestamp;
use maud::{Markup, html};

use super::destinations;
use super::shell::badge;
use super::text::{count, exactly, name, stamp, words};
use crate::queue::Evidence;
use crate::queue::evidence::{HostEvidence, HostVerdict, OutcomeWord};

/// Recipients of an attempt that are shown.
const RECIPIENTS_MAX: usize = 100;

/// An attempt.
pub(super) fn attempt(attempt: &Evidence, now: Timestamp) -> Markup {
    let own = &attempt.message;
    let of = |host: u16| attempt.hosts.get(usize::from(host)).and_then(|host| host.mx.as_deref());
    html! {
        section.panel.attempt {
            h3 { "Attempt " (own.attempt) " " span.quiet { (exactly(attempt.at, now)) } }
            p { span.id { (attempt.item) } " to " (destinations::to(&own.destination)) }
            ul.events {
                @for recipient in own.recipients.iter().take(RECIPIENTS_MAX) {
                    li {
                        p { (outcome(recipient.outcome)) " " (name(recipient.to.as_deref().unwrap_or("a recipient")))
                            @if let Some(mx) = recipient.host.and_then(of) { span.quiet { " by " (name(mx)) } } }
                        p.reply {
                            @if let Some(status) = recipient.status { (status) " " }
                            (words(&recipient.text))
                        }
                    }
                }
                @if own.recipients.len() > RECIPIENTS_MAX {
                    li { "and " (count((own.recipients.len() - RECIPIENTS_MAX) as u64)) " more recipients" }
                }
                @for refusal in &own.refusals {
                    li { p { (badge("odd", "refused")) " by " (name(of(refusal.host).unwrap_or("a host"))) ", for " (refusal.recipients) " of them" }
                        p.reply { (words(&refusal.text)) } }
                }
            }
            @if attempt.hosts.is_empty() { p { "No host was reached." } }
            @for (at, host) in attempt.hosts.iter().enumerate() {
                @let last = at + 1 == attempt.hosts.len();
                (shown(host, own.carried_before.filter(|_| last)))
            }
        }
    }
}

fn outcome(word: OutcomeWord) -> Markup {
    match word {
        OutcomeWord::Delivered => badge("fine", "delivered"),
        OutcomeWord::Deferred => badge("odd", "deferred"),
        OutcomeWord::Failed => badge("bad", "failed"),
    }
}

fn shown(host: &HostEvidence, carried_before: Option<u32>) -> Markup {
    let (tone, verdict) = match host.verdict {
        HostVerdict::Met => ("fine", "what was demanded was proven"),
        HostVerdict::Allowed => ("quiet", "nothing was demanded"),
        HostVerdict::Failed => ("bad", "nothing was sent"),
        HostVerdict::Skipped => ("odd", "not connected to"),
    };
    let word = match host.verdict {
        HostVerdict::Met => "met",
        HostVerdict::Allowed => "allowed",
        HostVerdict::Failed => "failed",
        HostVerdict::Skipped => "skipped",
    };
    html! {
        div.host {
            h4 { (name(host.mx.as_deref().unwrap_or("no host"))) " " (badge(tone, word)) }
            dl.facts {
                dt { "Verdict" } dd { (verdict) @if let Some(reason) = &host.reason { ": " (words(reason)) } }
                dt { "Demanded" } dd {
                    @match &host.requirement { Some(requirement) => (name(requirement)), None => "nothing could be" }
                    @if !host.names.is_empty() { " for " (words(&host.names.join(", "))) }
                    span.quiet { " (rule: " (name(&host.rule)) ")" }
                }
                @if let Some(address) = host.address {
                    dt { "Address" } dd { (address)
                        @if let Some(local) = host.local_address { span.quiet { " from " (local) } } }
                }
                @if let Some(helo) = &host.helo { dt { "Calls itself" } dd { (name(helo)) } }
                @if let Some(dnssec) = &host.mx_dnssec { dt { "MX records" } dd { (name(dnssec)) } }
                @if let Some(route) = &host.route { dt { "By route" } dd { (name(route)) } }
                dt { "MTA-STS" } dd {
                    @match &host.policy {
                        None => "no policy",
                        Some(policy) => {
                            (name(&policy.mode))
                            @if let Some(id) = &policy.id { ", id " (name(id)) }
                            @if let Some(at) = policy.fetched_at { ", fetched " (stamp(at)) }
                            ", max_age " (count(policy.max_age.into())) " s"
                            br; span.hash { "SHA-256 " (name(&policy.sha256)) }
                        }
                    }
                }
                @if let Some(tlsa) = &host.tlsa {
                    dt { "TLSA" } dd { (name(&tlsa.status)) " at " (name(&tlsa.base))
                        @for record in tlsa.records.iter().take(16) {
                            br; span.hash { (words(record)) }
                            @if tlsa.matched.as_ref() == Some(record) { " " (badge("fine", "matched")) }
                        }
                    }
                }
                @match &host.tls {
                    None => { dt { "TLS" } dd { "none" } },
                    Some(tls) => {
                        dt { "TLS" } dd { (name(&tls.version)) " " (name(&tls.cipher))
                            @if let Some(group) = &tls.group { ", " (name(group)) }
                            @if tls.resumed { ", resumed; the chain as shown before" } }
                        dt { "Certificate" } dd {
                            "issued by " (name(tls.issuer.as_deref().unwrap_or("somebody who is not named")))
                            @if let Some(end) = tls.not_after { ", valid to " (stamp(end)) }
                            ", PKIX: " (words(&tls.pkix))
                            @if let Some(matched) = &tls.name_matched { ", names " (name(matched)) }
                            br; span.hash { "chain SHA-256 " (name(&tls.chain_sha256)) }
                            @if let Some(spki) = &tls.spki_sha256 { br; span.hash { "key SHA-256 " (name(spki)) } }
                        }
                    }
                }
                @if let Some(before) = carried_before {
                    dt { "Connection" } dd { @match before {
                        0 => "a new one",
                        1 => "reused, after 1 other message",
                        _ => { "reused, after " (count(before.into())) " other messages" },
                    } }
                }
            }
        }
    }
}
