//! What a notice gives back of the message: all of it, or its header (RFC 3461 §4.3, §6.2;
//! RFC 6522 §3; RFC 6533 §5).

use super::{Action, NoticeFacts, RETURNED_BYTES_MAX, Told};
use crate::mail::header;
use crate::mail::mime::{Encoding, Part, has_short_lines, is_seven_bit};
use crate::mail::{Ret, TlsRequest};

/// The third part of a notice, and the sentence that says what it is.
pub(super) struct Returned {
    pub(super) part: Part,
    pub(super) remark: String,
}

/// Chooses and makes the part.
pub(super) fn part(facts: &NoticeFacts<'_>, told: &[Told<'_>]) -> Returned {
    let failed = told.iter().any(|(_, notice)| notice.action() == Action::Failed);
    let asked = facts.envelope.ret != Some(Ret::Headers);
    let header_only = |why: &str| headers(facts.original, why);
    if facts.original.is_empty() {
        return header_only("The message cannot be read any more, so nothing of it is attached.");
    }
    // RFC 3461 §6.2: the whole message only in failure notices, never against RET=HDRS.
    if !failed || !asked {
        return header_only("The header of the message is attached.");
    }
    // RFC 8689 §5: the way back may be in clear, so RET=FULL is not honoured.
    if facts.envelope.tls == TlsRequest::Required {
        return header_only("Only the header of the message is attached, since it was sent with REQUIRETLS.");
    }
    if !facts.complete || facts.original.len() > RETURNED_BYTES_MAX {
        return header_only("Only the header of the message is attached, since the message is long.");
    }
    if !has_short_lines(facts.original) || facts.original.contains(&0) {
        return header_only(
            "Only the header of the message is attached, since the message has lines no mail system \
             needs to accept.",
        );
    }
    whole(facts.original)
}

fn whole(original: &[u8]) -> Returned {
    let (header, _) = header::split(original);
    let (content_type, encoding) = if is_seven_bit(original) {
        ("message/rfc822", Encoding::SevenBit)
    } else if header.is_ascii() {
        ("message/rfc822", Encoding::EightBit)
    } else if std::str::from_utf8(header).is_ok() {
        // RFC 6532 §3.7: unlike message/rfc822 this type may be encoded, so the notice stays 7-bit.
        ("message/global", Encoding::Base64)
    } else {
        return headers(
            original,
            "Only the header of the message is attached, since it is neither ASCII nor UTF-8.",
        );
    };
    Returned {
        part: described(content_type, "Undelivered message", encoding, original.to_vec()),
        remark: "The message is attached.".to_owned(),
    }
}

fn headers(original: &[u8], why: &str) -> Returned {
    let (mut header, _) = header::split(original);
    let mut remark = why.to_owned();
    if header.len() > RETURNED_BYTES_MAX {
        let cut = memchr::memrchr(b'\n', &header[..RETURNED_BYTES_MAX]).map_or(0, |at| at + 1);
        header = &header[..cut];
        remark.push_str(" It is cut: the header is very long.");
    }
    let (content_type, encoding) = if is_seven_bit(header) {
        ("text/rfc822-headers", Encoding::SevenBit)
    } else if !header.is_ascii() && std::str::from_utf8(header).is_ok() {
        // RFC 6533 §5.
        ("message/global-headers", Encoding::QuotedPrintable)
    } else {
        ("text/rfc822-headers", Encoding::QuotedPrintable)
    };
    Returned { part: described(content_type, "Message header", encoding, header.to_vec()), remark }
}

fn described(content_type: &str, description: &str, encoding: Encoding, body: Vec<u8>) -> Part {
    Part {
        content_type: content_type.to_owned(),
        encoding,
        fields: vec![("Content-Description", description.to_owned())],
        body,
    }
}
