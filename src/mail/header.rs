//! Just enough header reading and writing (RFC 5322 §2.2): no MIME, no rewriting.

use jiff::Timestamp;

/// Splits a message into its header section (final CRLF of the last field included) and the rest
/// (starting at the empty line). A message without empty line is all header.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    if message.starts_with(b"\r\n") {
        return (&[], message);
    }
    match memchr::memmem::find(message, b"\r\n\r\n") {
        Some(at) => message.split_at(at + 2),
        None => (message, &[]),
    }
}

/// The fields of a header section, unfolded lines still joined by their CRLF: `(name, raw value)`.
/// A line that is no field ends the walk.
pub fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut end = 0;
        loop {
            end += memchr::memmem::find(&rest[end..], b"\r\n")? + 2;
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        let colon = memchr::memchr(b':', field)?;
        let name = field[..colon].trim_ascii_end();
        let valid = !name.is_empty() && name.iter().all(|b| matches!(b, 33..=126));
        valid.then_some((name, field[colon + 1..].trim_ascii()))
    })
}

/// How many fields of this name there are (case-insensitive).
pub fn count(header: &[u8], name: &str) -> usize {
    fields(header).filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).count()
}

/// The raw value of the first field of this name.
pub fn first<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(header).find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// Whether a header section says `TLS-Required: No` (RFC 8689 §3): one such field and no other value,
/// neither of which depends on case (RFC 5234 §2.3). A second field makes the wish unclear, and
/// protection is not taken off for an unclear wish.
pub fn says_tls_not_required(header: &[u8]) -> bool {
    count(header, "TLS-Required") == 1
        && first(header, "TLS-Required").is_some_and(|value| value.eq_ignore_ascii_case(b"No"))
}

/// An RFC 5322 §3.3 date-time in UTC, zone numeric: `Sun, 22 Nov 2026 04:09:36 +0000`.
pub fn date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// Makes any text safe for one header line, a reply line or a log: every control character and line
/// break becomes a blank.
pub fn sanitize(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_not_required_only_by_one_plain_no() {
        for (header, wanted) in [
            ("TLS-Required: No\r\n", true),
            ("Subject: x\r\ntls-required:no \r\nTo: b\r\n", true),
            ("TLS-Required:\r\n No\r\n", true),
            ("TLS-Required: Yes\r\n", false),
            ("TLS-Required: No, thanks\r\n", false),
            ("TLS-Required: No (really)\r\n", false),
            ("TLS-Required: \"No\"\r\n", false),
            ("TLS-Required:\r\n", false),
            ("TLS-Required: No\r\nTLS-Required: No\r\n", false),
            ("TLS-Required: No\r\nTLS-Required: Yes\r\n", false),
            ("X-TLS-Required: No\r\n", false),
            ("Subject: TLS-Required: No\r\n", false),
        ] {
            assert_eq!(says_tls_not_required(header.as_bytes()), wanted, "{header:?}");
        }
    }

    const MESSAGE: &[u8] = b"Received: a\r\n\tb\r\nreceived: c\r\nSubject: x\r\n\r\nReceived: not me\r\n";

    #[test]
    fn fields_are_found_folded_and_case_insensitive_and_only_in_the_header() {
        let (header, body) = split(MESSAGE);
        assert_eq!(body, b"\r\nReceived: not me\r\n");
        assert_eq!(count(header, "Received"), 2);
        assert_eq!(first(header, "RECEIVED"), Some(&b"a\r\n\tb"[..]));
        assert_eq!(first(header, "Date"), None);
    }

    #[test]
    fn a_message_may_have_no_header_or_no_body() {
        assert_eq!(split(b"\r\nbody\r\n"), (&b""[..], &b"\r\nbody\r\n"[..]));
        assert_eq!(split(b"A: b\r\n"), (&b"A: b\r\n"[..], &b""[..]));
    }

    #[test]
    fn dates_are_rfc_5322() {
        let at: Timestamp = "2026-11-02T04:09:36Z".parse().unwrap();
        assert_eq!(date(at), "Mon, 02 Nov 2026 04:09:36 +0000");
    }
}
