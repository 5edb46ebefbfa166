//! Parameters of MAIL and RCPT (RFC 5321 §4.1.2 esmtp-param) and the xtext code (RFC 3461 §4).
//!
//! Keywords and enumerated values in any case; ENVID and ORCPT are checked and kept as given. What
//! they decode to is printable, so that a notification may quote it.

use super::{CommandError, Mail, Rcpt};
use crate::mail::{BodyType, Notify, NotifyWhen, Ret};

/// Octets of ENVID's value at most (RFC 3461 §5.4 wants 100 accepted).
const ENVID_BYTES_MAX: usize = 100;
/// Octets of ORCPT's value at most (RFC 3461 §5.4 wants 500 accepted).
const ORCPT_BYTES_MAX: usize = 500;
/// Octets of AUTH's value at most (RFC 4954 §3 lengthens MAIL by 500).
const AUTH_BYTES_MAX: usize = 500;
/// Digits of SIZE's value at most (RFC 1870 §6).
const SIZE_DIGITS_MAX: usize = 20;

pub(super) fn read_mail(text: &str, mail: &mut Mail) -> Result<(), CommandError> {
    for parameter in split(text) {
        let (keyword, value) = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => once("SIZE", &mut mail.size, value.and_then(size))?,
            "BODY" => once("BODY", &mut mail.body, value.and_then(body))?,
            "SMTPUTF8" => flag("SMTPUTF8", &mut mail.smtputf8, value)?,
            "RET" => once("RET", &mut mail.ret, value.and_then(ret))?,
            "ENVID" => once("ENVID", &mut mail.envid, value.and_then(envid))?,
            "REQUIRETLS" => flag("REQUIRETLS", &mut mail.require_tls, value)?,
            "AUTH" => {
                // RFC 4954 §5: syntax is checked; who may be believed is another matter.
                let good = value.filter(|v| v.len() <= AUTH_BYTES_MAX && (*v == "<>" || is_xtext(v)));
                let mut seen = mail.auth.then_some(());
                once("AUTH", &mut seen, good.map(|_| ()))?;
                mail.auth = true;
            }
            other => return Err(CommandError::UnknownParameter(other.to_owned())),
        }
    }
    Ok(())
}

pub(super) fn read_rcpt(text: &str, rcpt: &mut Rcpt) -> Result<(), CommandError> {
    for parameter in split(text) {
        let (keyword, value) = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => once("NOTIFY", &mut rcpt.notify, value.and_then(notify))?,
            "ORCPT" => once("ORCPT", &mut rcpt.orcpt, value.and_then(orcpt))?,
            other => return Err(CommandError::UnknownParameter(other.to_owned())),
        }
    }
    Ok(())
}

type Parameter<'a> = (&'a str, Option<&'a str>);

/// Keyword and value of each parameter.
fn split(text: &str) -> impl Iterator<Item = Result<Parameter<'_>, CommandError>> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let well_formed = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && value.is_none_or(|value| !value.is_empty() && !value.contains('='));
        if well_formed {
            Ok((keyword, value))
        } else {
            Err(CommandError::Syntax("parameters are KEYWORD or KEYWORD=value"))
        }
    })
}

fn once<T>(name: &'static str, slot: &mut Option<T>, value: Option<T>) -> Result<(), CommandError> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(CommandError::BadParameter(name)),
    }
}

fn flag(name: &'static str, slot: &mut bool, value: Option<&str>) -> Result<(), CommandError> {
    if *slot || value.is_some() {
        return Err(CommandError::BadParameter(name));
    }
    *slot = true;
    Ok(())
}

fn size(value: &str) -> Option<u64> {
    let digits = value.len() <= SIZE_DIGITS_MAX && value.bytes().all(|b| b.is_ascii_digit());
    // Twenty digits may pass 2^64: larger than any limit either way.
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// `BODY=`; BINARYMIME is not offered.
fn body(value: &str) -> Option<BodyType> {
    if value.eq_ignore_ascii_case("7BIT") {
        Some(BodyType::SevenBit)
    } else if value.eq_ignore_ascii_case("8BITMIME") {
        Some(BodyType::EightBitMime)
    } else {
        None
    }
}

fn ret(value: &str) -> Option<Ret> {
    if value.eq_ignore_ascii_case("FULL") {
        Some(Ret::Full)
    } else if value.eq_ignore_ascii_case("HDRS") {
        Some(Ret::Headers)
    } else {
        None
    }
}

fn envid(value: &str) -> Option<String> {
    // RFC 3461 §4.4: what it stands for is printable US-ASCII.
    let good = value.len() <= ENVID_BYTES_MAX && is_printable_xtext(value);
    good.then(|| value.to_owned())
}

fn notify(value: &str) -> Option<Notify> {
    // RFC 3461 §4.1: NEVER stands alone.
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let mut when = NotifyWhen::default();
    for word in value.split(',') {
        let slot = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut when.success,
            "FAILURE" => &mut when.failure,
            "DELAY" => &mut when.delay,
            _ => return None,
        };
        *slot = true;
    }
    Some(Notify::When(when))
}

fn orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let good = value.len() <= ORCPT_BYTES_MAX
        && !kind.is_empty()
        && kind.bytes().all(atom)
        && !address.is_empty()
        && if kind.eq_ignore_ascii_case("utf-8") {
            // RFC 6533 §3: utf-8-addr-xtext or, in a SMTPUTF8 transaction, unitext.
            address.chars().all(|c| !c.is_control() && !matches!(c, ' ' | '='))
        } else {
            is_printable_xtext(address)
        };
    good.then(|| value.to_owned())
}

fn is_xtext(text: &str) -> bool {
    xtext_decode(text).is_some()
}

/// xtext whose meaning can be put into a header field.
fn is_printable_xtext(text: &str) -> bool {
    xtext_decode(text).is_some_and(|decoded| decoded.iter().all(|b| matches!(b, 32..=126)))
}

/// Decodes xtext: `+` and two upper-case hexadecimal digits stand for an octet (RFC 3461 §4).
/// `None` when `text` is no xtext.
pub fn xtext_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'+' => upper_hex(octets.next()?)? << 4 | upper_hex(octets.next()?)?,
            b'=' => return None,
            33..=126 => octet,
            _ => return None,
        });
    }
    Some(decoded)
}

fn upper_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Encodes octets as xtext (RFC 3461 §4).
pub fn xtext_encode(octets: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(octets.len());
    for &octet in octets {
        if matches!(octet, 33..=126) && octet != b'+' && octet != b'=' {
            text.push(char::from(octet));
        } else {
            text.push('+');
            text.push(char::from(HEX[usize::from(octet >> 4)]));
            text.push(char::from(HEX[usize::from(octet & 15)]));
        }
    }
    text
}
