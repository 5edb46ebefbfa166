//! The fields of a notice that programs read: `message/delivery-status` (RFC 3464 §2) or, for a
//! sender with a UTF-8 address, `message/global-delivery-status` (RFC 6533 §4).

use super::{Action, Notice, NoticeFacts, Told};
use crate::mail::header::date;
use crate::mail::mime::{Encoding, Header, Part};
use crate::mail::{Mailbox, Reply};

/// Characters of a reply repeated: four full reply lines (RFC 5321 §4.5.3.1.5).
const DIAGNOSTIC_CHARS_MAX: usize = 2048;

/// The second part of the notice; `unicode` when the sender reads UTF-8.
pub(super) fn part(facts: &NoticeFacts<'_>, told: &[Told<'_>], unicode: bool) -> Part {
    // RFC 3464 §2.2.1: given back as it was before xtext, case kept; only if it was given.
    let envelope_id = facts.envelope.envid.as_deref().map(|envid| in_ascii(&from_xtext(envid), unicode));
    let mut body = Header::new()
        .optional("Original-Envelope-Id", envelope_id.as_deref())
        .field("Reporting-MTA", &format!("dns; {}", facts.hostname))
        .field("Arrival-Date", &date(facts.received_at))
        .into_bytes();
    for (recipient, notice) in told {
        body.extend_from_slice(b"\r\n");
        let original = recipient.orcpt.as_deref().and_then(|orcpt| original_recipient(orcpt, unicode));
        body.extend(
            recipient_fields(facts, notice, &recipient.path, original.as_deref(), unicode).into_bytes(),
        );
    }
    Part {
        content_type: match unicode {
            true => "message/global-delivery-status".to_owned(),
            false => "message/delivery-status".to_owned(),
        },
        encoding: if unicode { Encoding::EightBit } else { Encoding::SevenBit },
        fields: vec![("Content-Description", "Delivery report".to_owned())],
        body,
    }
}

fn recipient_fields(
    facts: &NoticeFacts<'_>,
    notice: &Notice,
    path: &Mailbox,
    original: Option<&str>,
    unicode: bool,
) -> Header {
    let action = match notice.action() {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Relayed => "relayed",
    };
    let header = Header::new()
        .optional("Original-Recipient", original)
        .field("Final-Recipient", &final_recipient(path, unicode))
        .field("Action", action)
        .field("Status", &notice.status().to_string());
    // RFC 3464 §2.3.5, §2.3.6: only a host that answered is named, only with what it said.
    let header = match (notice.failure(), remote_reply(notice)) {
        (failure, Some(reply)) => {
            let host = failure.and_then(|failure| failure.host.as_deref());
            let remote = host.map(|host| format!("dns; {}", in_ascii(host, unicode)));
            header
                .optional("Remote-MTA", remote.as_deref())
                .field("Diagnostic-Code", &format!("smtp; {}", in_ascii(&diagnostic(reply), unicode)))
        }
        (_, None) => header,
    };
    let header = header.field("Last-Attempt-Date", &date(facts.now));
    match notice {
        // RFC 3464 §2.3.9: in nothing but `delayed`.
        Notice::Delayed { will_retry_until, .. } => {
            header.field("Will-Retry-Until", &date(*will_retry_until))
        }
        Notice::Failed(_) | Notice::Relayed(_) => header,
    }
}

/// The reply on one line, cut where it babbles.
fn diagnostic(reply: &Reply) -> String {
    reply.to_string().chars().take(DIAGNOSTIC_CHARS_MAX).collect()
}

fn remote_reply(notice: &Notice) -> Option<&Reply> {
    match notice {
        Notice::Relayed(reply) => Some(reply),
        Notice::Failed(failure) | Notice::Delayed { failure, .. } => failure.reply.as_ref(),
    }
}

fn final_recipient(path: &Mailbox, unicode: bool) -> String {
    let text = path.to_string();
    match (text.is_ascii(), unicode) {
        (true, _) => format!("rfc822; {text}"),
        (false, true) => format!("utf-8; {text}"),
        (false, false) => format!("utf-8; {}", to_utf8_addr_xtext(&text)),
    }
}

/// `addr-type;xtext` as given becomes `addr-type; address` (RFC 3464 §2.3.1).
fn original_recipient(orcpt: &str, unicode: bool) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let address = from_xtext(address);
    let address = match address.is_ascii() || unicode {
        true => address,
        false => to_utf8_addr_xtext(&address),
    };
    (kind.bytes().all(|b| b.is_ascii_graphic()) && !kind.is_empty()).then(|| format!("{kind}; {address}"))
}

/// Undoes xtext (RFC 3461 §4); what is no xtext stays as it is.
fn from_xtext(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'+').then_some(tail).and_then(|tail| std::str::from_utf8(tail.get(..2)?).ok());
        let upper_hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        match hex.filter(|hex| hex.bytes().all(upper_hex)).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// A UTF-8 address in ASCII (RFC 6533 §3, utf-8-addr-xtext).
fn to_utf8_addr_xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c {
            '\\' | '+' | '=' => out.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
            '!'..='~' => out.push(c),
            _ => out.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    out
}

/// Free text for a field that must be ASCII; the words part has it unharmed.
fn in_ascii(text: &str, unicode: bool) -> String {
    match unicode {
        true => text.to_owned(),
        false => text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_undone_and_what_is_none_is_kept() {
        for (text, want) in [
            ("QQ314159", "QQ314159"),
            ("a+2Bb+3Dc", "a+b=c"),
            ("a+2bb", "a+2bb"),
            ("a+", "a+"),
            ("a+2", "a+2"),
            ("+C3+A4", "ä"),
            ("+C3", "+C3"),
            ("ä+2B", "ä+"),
        ] {
            assert_eq!(from_xtext(text), want, "{text}");
        }
    }

    #[test]
    fn utf8_addresses_are_written_in_ascii() {
        assert_eq!(to_utf8_addr_xtext("grü+ße@b.c"), "gr\\x{FC}\\x{2B}\\x{DF}e@b.c");
        assert_eq!(original_recipient("rfc822;Bob+2Bx@b.c", false).as_deref(), Some("rfc822; Bob+x@b.c"));
        assert_eq!(
            original_recipient("utf-8;gr\\x{FC}n@b.c", false).as_deref(),
            Some("utf-8; gr\\x{FC}n@b.c")
        );
        assert_eq!(original_recipient("nonsense", false), None);
    }
}
