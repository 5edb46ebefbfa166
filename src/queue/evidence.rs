//! How a message travelled: what one delivery attempt knew, demanded, saw and was told.
//!
//! Plain facts, nothing decided here and nothing left out that a later reader needs to follow the
//! decision: the policy text by its hash, the TLSA records as they were, the certificates by hash.
//! Made by `delivery`, kept by `store`, shown by `cli`. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ItemId;
use crate::mail::EnhancedStatus;

/// Characters kept of a reply or a reason; what follows is noise.
pub const TEXT_CHARS_MAX: usize = 500;

/// One attempt, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it ended.
    pub at: Timestamp,
    /// Of which item.
    pub item: ItemId,
    /// What is this message's own.
    #[serde(flatten)]
    pub message: MessageEvidence,
    /// The hosts tried or left out, in order.
    pub hosts: Vec<HostEvidence>,
}

/// The part of an attempt that differs from message to message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MessageEvidence {
    /// 1 for the first.
    pub attempt: u32,
    /// The author's `Message-ID`, without angle brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Reverse-path without brackets, empty for the null one; absent where addresses are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Recipient domain or address literal.
    pub destination: String,
    /// Per recipient tried.
    pub recipients: Vec<RecipientEvidence>,
    /// Hosts that were talked to and did not take all recipients, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalEvidence>,
    /// Messages the connection had carried before; absent without a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_before: Option<u32>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientEvidence {
    /// The address; absent where addresses are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What became of it.
    pub outcome: OutcomeWord,
    /// RFC 3463; absent where a host said none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EnhancedStatus>,
    /// The reply's code, if a host said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The reply's text, or what happened.
    pub text: String,
    /// Position in [`Evidence::hosts`] of the host that took or refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
}

/// A host that left recipients to another host, or to another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalEvidence {
    /// Position in [`Evidence::hosts`].
    pub host: u16,
    /// How many recipients.
    pub recipients: u32,
    /// Why, for the first of them.
    pub text: String,
}

/// An [`Outcome`](crate::mail::Outcome) in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeWord {
    /// The next hop took responsibility.
    Delivered,
    /// Not now.
    Deferred,
    /// Never.
    Failed,
}

/// One host under one plan: the same for all messages on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostEvidence {
    /// The MX host's name, or an address literal; absent when no host was reached at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    /// The static route that led here: whose it is, and the next hop it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What DNSSEC says of the MX records; absent where none were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx_dnssec: Option<String>,
    /// The address connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// The name it gave itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The MTA-STS policy that applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyEvidence>,
    /// What the TLSA lookup said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlsa: Option<TlsaEvidence>,
    /// The rule that decided.
    pub rule: String,
    /// What had to be proven: `dane`, `dane and pkix`, `pkix`, `encrypt`, `opportunistic`; absent for
    /// a host that was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<String>,
    /// The names the certificate was held against.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The session's TLS; absent in clear and where none came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsEvidence>,
    /// What it came to.
    pub verdict: HostVerdict,
    /// Why, where the verdict is not [`HostVerdict::Met`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a host came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostVerdict {
    /// The connection showed what was demanded.
    Met,
    /// In clear or unverified, and nothing was demanded.
    Allowed,
    /// It did not show what was demanded, or there was no connection: nothing was sent.
    Failed,
    /// Not even connected to.
    #[default]
    Skipped,
}

/// An MTA-STS policy as applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEvidence {
    /// The TXT id it was fetched under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `enforce`, `testing` or `none`.
    pub mode: String,
    /// SHA-256 of the text as fetched, hex.
    pub sha256: String,
    /// When it was fetched; absent for a policy that is good for one attempt only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
    /// Its life in seconds.
    pub max_age: u32,
}

/// TLSA records as looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsaEvidence {
    /// `secure`, `absent`, `insecure`, or why the lookup failed.
    pub status: String,
    /// The TLSA base domain.
    pub base: String,
    /// The records, `3 1 1 AB..`, in order of their text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
    /// The first of them that the certificates match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
}

/// TLS as negotiated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsEvidence {
    /// `TLSv1.3`
    pub version: String,
    /// IANA name.
    pub cipher: String,
    /// Key exchange group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// SHA-256 over the DER certificates shown, in order, hex.
    pub chain_sha256: String,
    /// SHA-256 of the host's SubjectPublicKeyInfo, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki_sha256: Option<String>,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Who issued it: common name, or organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `valid`, or why the chain is not, under PKIX for the MX host name.
    pub pkix: String,
    /// Resumed from an earlier handshake, in which the chain was shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// The name in the certificate that covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_matched: Option<String>,
}

/// An attempt on its way to the store: the hosts are rendered once per connection, not per message.
#[derive(Debug, Clone)]
pub struct EvidenceDraft {
    /// When it ended.
    pub at: Timestamp,
    /// Of which item.
    pub item: ItemId,
    /// This message's own part.
    pub message: MessageEvidence,
    /// Each a [`HostEvidence`] as [`HostEvidence::render`] writes it.
    pub hosts: Vec<bytes::Bytes>,
}

impl HostEvidence {
    /// The form it is kept in.
    pub fn render(&self) -> bytes::Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// A text cut to [`TEXT_CHARS_MAX`], without control characters.
pub fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

/// A Message-ID as it is looked up: no angle brackets, no white space around or within.
pub fn plain_message_id(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let bare = bare.strip_prefix('<').unwrap_or(&bare);
    bare.strip_suffix('>').unwrap_or(bare).chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_found_with_and_without_brackets() {
        assert_eq!(plain_message_id(" <a.b@c.example>\r\n"), "a.b@c.example");
        assert_eq!(plain_message_id("a.b@c.example"), "a.b@c.example");
        assert_eq!(plain_message_id("<a\r\n b@c>"), "ab@c");
    }
}
