//! One report's JSON, read with patience (RFC 8460 §4.4).
//!
//! Keys are found in any spelling of case, `-` and `_`; each liberty taken is a [`Deviation`]. An
//! object that shows no sign of a TLS report is refused, so that other attachments are not taken for
//! one. Called by `unpack`.

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{Deviation, ReadFailure, ReadPolicy, ReadReport, clean};
use crate::tlsrpt::{PolicyType, ResultType};

/// Octets of a report's text at most: receivers stop at 10 MB (RFC 8460 §5.2 asks for small ones).
pub(super) const JSON_BYTES_MAX: usize = 16 << 20;
/// Reports in one list at most.
const LIST_MAX: usize = 10_000;

/// Why octets are no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonError {
    /// Longer than we read.
    #[error("the report is larger than {} MB", JSON_BYTES_MAX >> 20)]
    TooLarge,
    /// Not JSON, or cut short.
    #[error("not readable as JSON: {0}")]
    NotJson(String),
    /// JSON, and something else.
    #[error("JSON, but no TLS report: none of policies, date-range and report-id is there")]
    NotReport,
}

/// Whether octets look like JSON: a mark or blanks, then `{` or `[`.
pub(super) fn looks_like_json(bytes: &[u8]) -> bool {
    if bytes.starts_with(&[0xFE, 0xFF]) || bytes.starts_with(&[0xFF, 0xFE]) {
        return bytes.iter().skip(2).take(64).any(|b| matches!(b, b'{' | b'['));
    }
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    matches!(text.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}

/// Reads the report, or the list of reports, that `bytes` are.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<ReadReport>, JsonError> {
    if bytes.len() > JSON_BYTES_MAX {
        return Err(JsonError::TooLarge);
    }
    let mut reader = Reader::default();
    let text = reader.text_of(bytes);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(JsonError::NotJson(error.to_string())),
        None => return Err(JsonError::NotJson("it is empty".to_owned())),
    };
    // NUL octets and the like behind the closing brace.
    if !text[values.byte_offset()..].trim().is_empty() {
        reader.note(Deviation::TrailingOctets);
    }
    match value {
        Value::Array(list) => {
            reader.note(Deviation::ListOfReports);
            let reports: Vec<ReadReport> = list
                .iter()
                .take(LIST_MAX)
                .filter_map(Value::as_object)
                .filter_map(|object| Reader { deviations: reader.deviations.clone() }.report(object))
                .collect();
            if reports.is_empty() { Err(JsonError::NotReport) } else { Ok(reports) }
        }
        Value::Object(object) => {
            reader.report(&object).map(|report| vec![report]).ok_or(JsonError::NotReport)
        }
        _ => Err(JsonError::NotReport),
    }
}

type Object = Map<String, Value>;

#[derive(Default)]
struct Reader {
    deviations: BTreeSet<Deviation>,
}

/// A key without its spelling.
fn spelled(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

impl Reader {
    fn note(&mut self, deviation: Deviation) {
        self.deviations.insert(deviation);
    }

    /// The octets as text.
    fn text_of(&mut self, bytes: &[u8]) -> String {
        let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        };
        if let Some(rest) = bytes.strip_prefix(&[0xFE, 0xFF]) {
            self.note(Deviation::Utf16);
            return utf16(rest, u16::from_be_bytes);
        }
        if let Some(rest) = bytes.strip_prefix(&[0xFF, 0xFE]) {
            self.note(Deviation::Utf16);
            return utf16(rest, u16::from_le_bytes);
        }
        let rest = bytes.strip_prefix(b"\xEF\xBB\xBF").inspect(|_| self.note(Deviation::ByteOrderMark));
        match String::from_utf8_lossy(rest.unwrap_or(bytes)) {
            std::borrow::Cow::Borrowed(text) => text.to_owned(),
            std::borrow::Cow::Owned(text) => {
                self.note(Deviation::NotUtf8);
                text
            }
        }
    }

    /// The member of this name, in this or another spelling; `null` is as good as absent.
    fn member<'v>(&mut self, object: &'v Object, name: &str) -> Option<&'v Value> {
        let present = |value: &&Value| !value.is_null();
        if let Some(value) = object.get(name) {
            return Some(value).filter(present);
        }
        let wanted = spelled(name);
        let found = object.iter().find(|(key, _)| spelled(key) == wanted)?.1;
        self.note(Deviation::KeySpelling);
        Some(found).filter(present)
    }

    /// A member of a draft, where the RFC's is absent.
    fn member_or<'v>(
        &mut self,
        object: &'v Object,
        name: &str,
        draft: &str,
        deviation: Deviation,
    ) -> Option<&'v Value> {
        if let Some(value) = self.member(object, name) {
            return Some(value);
        }
        let value = self.member(object, draft)?;
        self.note(deviation);
        Some(value)
    }

    fn text(&mut self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) if text.trim().is_empty() => None,
            Value::String(text) => Some(clean(text)),
            Value::Null => None,
            other => {
                self.note(Deviation::TextOfOtherType);
                Some(clean(&other.to_string()))
            }
        }
    }

    fn text_member(&mut self, object: &Object, name: &str) -> Option<String> {
        self.member(object, name).and_then(|value| self.text(value))
    }

    fn count(&mut self, value: &Value) -> u64 {
        let number = match value {
            Value::Number(number) => number
                .as_u64()
                .or_else(|| number.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64)),
            Value::String(text) => {
                self.note(Deviation::NumberAsText);
                text.trim().parse().ok()
            }
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.note(Deviation::CountUnreadable);
            0
        })
    }

    fn report(mut self, object: &Object) -> Option<ReadReport> {
        let policies = self.member(object, "policies");
        let range = self.member(object, "date-range").and_then(Value::as_object);
        let report_id = self.text_member(object, "report-id");
        if policies.is_none() && (range.is_none() || report_id.is_none()) {
            return None;
        }
        let policies = match policies {
            Some(Value::Array(list)) => list.iter().filter_map(|value| self.policy(value)).collect(),
            Some(one @ Value::Object(_)) => {
                self.note(Deviation::PoliciesNotArray);
                self.policy(one).into_iter().collect()
            }
            Some(_) | None => {
                self.note(Deviation::PoliciesMissing);
                Vec::new()
            }
        };
        // Some put the two dates beside the others.
        let range = range.unwrap_or(object);
        let start = self.member(range, "start-datetime").and_then(|value| self.instant(value));
        let end = self.member(range, "end-datetime").and_then(|value| self.instant(value));
        match (start, end) {
            (Some(start), Some(end)) if end < start => self.note(Deviation::DateRangeReversed),
            (Some(_), Some(_)) => {}
            _ => self.note(Deviation::DateRangeMissing),
        }
        let organization_name = self.text_member(object, "organization-name");
        let contact_info = self.text_member(object, "contact-info");
        for (missing, deviation) in [
            (organization_name.is_none(), Deviation::OrganizationMissing),
            (contact_info.is_none(), Deviation::ContactMissing),
            (report_id.is_none(), Deviation::ReportIdMissing),
        ] {
            if missing {
                self.note(deviation);
            }
        }
        Some(ReadReport {
            organization_name,
            contact_info,
            report_id,
            start_datetime: start,
            end_datetime: end,
            policies,
            deviations: self.deviations,
        })
    }

    fn policy(&mut self, value: &Value) -> Option<ReadPolicy> {
        let Some(object) = value.as_object() else {
            self.note(Deviation::PolicyUnreadable);
            return None;
        };
        let inner = match self.member(object, "policy") {
            Some(Value::Object(inner)) => inner,
            _ => {
                if self.member(object, "policy-type").is_none() {
                    self.note(Deviation::PolicyUnreadable);
                    return None;
                }
                self.note(Deviation::PolicyFlat);
                object
            }
        };
        let policy_type = self.text_member(inner, "policy-type").unwrap_or_default();
        if !is_one_of::<PolicyType>(&policy_type) {
            self.note(Deviation::PolicyTypeUnknown);
        }
        let policy_string = self.member(inner, "policy-string");
        let policy_string = policy_string
            .map(|value| self.texts(value, Deviation::PolicyStringNotArray))
            .unwrap_or_default()
            .into_iter()
            .flat_map(|text| self.unpacked(text))
            .collect();
        let mx_host = self.member_or(inner, "mx-host", "mx-host-pattern", Deviation::MxHostPattern);
        let mx_host = mx_host.map(|value| self.texts(value, Deviation::MxHostNotArray)).unwrap_or_default();
        let failure_details = self.failures(object);
        let details = failure_details.iter().fold(0u64, |sum, f| sum.saturating_add(f.failed_session_count));
        let (successful, failed) = match self.member(object, "summary").and_then(Value::as_object) {
            Some(summary) => {
                let successful = self.member(summary, "total-successful-session-count");
                let failed = self.member_or(
                    summary,
                    "total-failure-session-count",
                    "total-failed-session-count",
                    Deviation::KeySpelling,
                );
                (successful.map_or(0, |value| self.count(value)), failed.map_or(0, |value| self.count(value)))
            }
            None => {
                self.note(Deviation::SummaryMissing);
                (0, details)
            }
        };
        Some(ReadPolicy {
            policy_type,
            policy_domain: self.text_member(inner, "policy-domain"),
            policy_string,
            mx_host,
            total_successful_session_count: successful,
            total_failure_session_count: failed,
            failure_details,
        })
    }

    /// A list of texts, or the one text in its place.
    fn texts(&mut self, value: &Value, one: Deviation) -> Vec<String> {
        match value {
            Value::Array(list) => list.iter().filter_map(|value| self.text(value)).collect(),
            Value::String(text) if text.is_empty() => Vec::new(),
            Value::String(text) => {
                self.note(one);
                // A whole policy in one text has a line for each of its elements.
                text.lines().filter(|line| !line.trim().is_empty()).map(clean).collect()
            }
            other => self.text(other).into_iter().collect(),
        }
    }

    /// A text that is itself a JSON list of texts, taken apart.
    fn unpacked(&mut self, text: String) -> Vec<String> {
        if !text.starts_with('[') {
            return vec![text];
        }
        match serde_json::from_str::<Vec<String>>(&text) {
            Ok(list) => {
                self.note(Deviation::PolicyStringPacked);
                list.iter().map(|text| clean(text)).collect()
            }
            Err(_) => vec![text],
        }
    }

    fn failures(&mut self, object: &Object) -> Vec<ReadFailure> {
        match self.member(object, "failure-details") {
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_object).map(|detail| self.failure(detail)).collect()
            }
            Some(Value::Object(one)) => {
                self.note(Deviation::FailureDetailsNotArray);
                // Some write an empty object for none.
                if one.is_empty() { Vec::new() } else { vec![self.failure(one)] }
            }
            Some(_) => {
                self.note(Deviation::FailureDetailsNotArray);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn failure(&mut self, detail: &Object) -> ReadFailure {
        let result_type = self.text_member(detail, "result-type").unwrap_or_default();
        if !is_one_of::<ResultType>(&result_type) {
            self.note(Deviation::ResultTypeUnknown);
        }
        let count =
            self.member_or(detail, "failed-session-count", "failure-session-count", Deviation::KeySpelling);
        let failed_session_count = match count {
            Some(value) => self.count(value),
            None => {
                self.note(Deviation::CountMissing);
                1
            }
        };
        let reason =
            self.member_or(detail, "failure-reason-code", "failure-error-code", Deviation::FailureErrorCode);
        let failure_reason_code = reason.and_then(|value| self.text(value));
        let additional =
            self.member_or(detail, "additional-information", "additional-info-uri", Deviation::KeySpelling);
        let additional_information = additional.and_then(|value| self.text(value));
        ReadFailure {
            result_type,
            sending_mta_ip: self.text_member(detail, "sending-mta-ip"),
            receiving_mx_hostname: self.text_member(detail, "receiving-mx-hostname"),
            receiving_mx_helo: self.text_member(detail, "receiving-mx-helo"),
            receiving_ip: self.text_member(detail, "receiving-ip"),
            failed_session_count,
            failure_reason_code,
            additional_information,
        }
    }

    /// RFC 3339 with any offset; without one it is UTC; seconds since 1970 are understood too.
    fn instant(&mut self, value: &Value) -> Option<Timestamp> {
        let text = match value {
            Value::String(text) => text.trim(),
            Value::Number(number) => {
                self.note(Deviation::DateForm);
                return number.as_i64().and_then(|second| Timestamp::from_second(second).ok());
            }
            _ => return None,
        };
        if let Ok(at) = Timestamp::from_str(text) {
            if !text.contains(['T', 't']) {
                self.note(Deviation::DateForm);
            }
            return Some(at);
        }
        if let Ok(second) = text.parse::<i64>() {
            self.note(Deviation::DateForm);
            return Timestamp::from_second(second).ok();
        }
        let civil = DateTime::from_str(text).ok()?;
        self.note(Deviation::DateWithoutZone);
        civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

/// Whether a word is one of a closed set's, as serde names them.
fn is_one_of<T: serde::de::DeserializeOwned>(word: &str) -> bool {
    serde_json::from_value::<T>(Value::String(word.to_owned())).is_ok()
}
