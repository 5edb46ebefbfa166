//! The leaves of a mail, decoded, wherever in its structure they are (RFC 2045, RFC 2046).
//!
//! Fields and encodings are mail-parser's business; the walk is ours, since its own follows nested
//! messages as deep as a hostile mail has them. Bounded in depth and parts. The only file that names
//! mail-parser. Called by `unpack`.

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{MessageParser, MimeHeaders};

/// Levels of multiparts and nested messages followed; a forwarded report has four.
const DEPTH_MAX: usize = 10;
/// Parts of one mail looked at.
const PARTS_MAX: usize = 1000;
/// Octets of a header section looked at.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// One decoded part that has none within.
#[derive(Debug)]
pub(super) struct Leaf {
    /// `type/subtype` in small letters; empty if not said.
    pub(super) kind: String,
    /// Its file name.
    pub(super) name: Option<String>,
    /// Its content.
    pub(super) body: Vec<u8>,
}

/// Whether octets look like a mail: they begin with a header field.
pub(super) fn looks_like_mail(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let name = start.iter().take(80).take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
    name > 0 && start.get(name) == Some(&b':')
}

/// All leaves; an error when there are too many or they lie too deep, besides those found before.
pub(super) fn leaves(mail: &[u8]) -> (Vec<Leaf>, Option<&'static str>) {
    let mut walk = Walk { leaves: Vec::new(), parts: 0, trouble: None };
    walk.entity(mail, 0);
    (walk.leaves, walk.trouble)
}

struct Walk {
    leaves: Vec<Leaf>,
    parts: usize,
    trouble: Option<&'static str>,
}

impl Walk {
    fn entity(&mut self, bytes: &[u8], depth: usize) {
        self.parts += 1;
        if depth > DEPTH_MAX {
            self.trouble = Some("the mail is nested too deeply; what lies deeper was not read");
            return;
        }
        if self.parts > PARTS_MAX {
            self.trouble = Some("the mail has more than 1000 parts; the others were not read");
            return;
        }
        let (header, body) = split(bytes);
        let mut header = header[..header.len().min(HEADER_BYTES_MAX)].to_vec();
        header.extend_from_slice(b"\r\n\r\n");
        let parsed = MessageParser::default().parse_headers(&header);
        let part = parsed.as_ref().and_then(|message| message.parts.first());
        let content_type = part.and_then(|part| part.content_type());
        let kind = content_type
            .map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        if kind.starts_with("multipart/")
            && let Some(boundary) = content_type.and_then(|kind| kind.attribute("boundary"))
        {
            for inner in parts(body, boundary.as_bytes()) {
                self.entity(inner, depth + 1);
            }
            return;
        }
        let encoding =
            part.and_then(|part| part.content_transfer_encoding()).map(str::trim).unwrap_or_default();
        let body = decoded(encoding, body);
        if matches!(&kind[..], "message/rfc822" | "message/global") {
            self.entity(&body, depth + 1);
            return;
        }
        let name = part.and_then(|part| part.attachment_name()).map(str::to_owned);
        self.leaves.push(Leaf { kind, name, body });
    }
}

fn decoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    if encoding.eq_ignore_ascii_case("base64") {
        // Stray characters are left out (RFC 2045 §6.8).
        let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let text: Vec<u8> = body.iter().copied().filter(known).collect();
        return base64_decode(&text).unwrap_or_else(|| body.to_vec());
    }
    if encoding.eq_ignore_ascii_case("quoted-printable") {
        return quoted_printable_decode(body).unwrap_or_else(|| body.to_vec());
    }
    body.to_vec()
}

/// Header section and body, whichever line ends there are.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    // A part without header fields begins with its empty line.
    if let Some(body) = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")) {
        return (&[], body);
    }
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
        at += end + 1;
        let rest = &bytes[at..];
        if let Some(body) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            return (&bytes[..at], body);
        }
    }
    (bytes, &[])
}

/// What stands between the delimiter lines of a multipart; a missing last one is no matter.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let (mut found, mut begun, mut at) = (Vec::new(), None, 0);
    while at < body.len() {
        let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |end| at + end + 1);
        let line = body[at..end].trim_ascii_end();
        if let Some(rest) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) {
            let last = rest == b"--";
            // Another boundary may begin like this one.
            if last || rest.is_empty() {
                if let Some(start) = begun.replace(end) {
                    found.push(without_line_end(&body[start..at.max(start)]));
                }
                if found.len() > PARTS_MAX {
                    return found;
                }
                if last {
                    return found;
                }
            }
        }
        at = end;
    }
    if let Some(start) = begun {
        found.push(&body[start..]);
    }
    found
}

/// The line end before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).
fn without_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}
