//! A small MIME writer for the mail we make ourselves: bounces, delay warnings, TLS reports
//! (RFC 2045, RFC 2046, RFC 5322 §2.2).
//!
//! Writes CRLF lines only, folds header fields, and never lets a foreign text break out of its
//! field. Reads nothing. Called by `dsn` and `reporting`.

#[cfg(test)]
pub(crate) mod reader;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Octets of a header line we aim at, CRLF not counted (RFC 5322 §2.1.1).
const HEADER_LINE_BYTES: usize = 76;
/// A word beyond this is cut in pieces, so that no line can pass 998 octets.
const WORD_BYTES_MAX: usize = 900;
/// Blanks in a row kept in a header field: more than a local part can have (RFC 5321 §4.5.3.1.1).
const BLANKS_MAX: usize = 64;
/// Octets of an encoded body line at most (RFC 2045 §6.7, §6.8).
const ENCODED_LINE_BYTES_MAX: usize = 76;
/// Octets of any line at most, CRLF not counted (RFC 5322 §2.1.1).
pub const LINE_BYTES_MAX: usize = 998;

/// A header section under construction.
#[derive(Debug, Clone, Default)]
pub struct Header {
    text: String,
}

impl Header {
    /// An empty header section.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field, folded at blanks where it is long. Control characters and line breaks in `value`
    /// become one blank; blanks stay as many as they are, since a quoted local part may have several;
    /// a word longer than a line stays whole up to 900 octets.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.text.push_str(name);
        self.text.push(':');
        let mut column = name.len() + 1;
        for (nth, (blanks, word)) in words(value).enumerate() {
            let blanks = if nth == 0 { 1 } else { blanks };
            // Never folded right after the colon: a first line without content is easily misread.
            if nth > 0 && column + blanks + word.len() > HEADER_LINE_BYTES {
                self.text.push_str("\r\n");
                column = 0;
            }
            self.text.extend(std::iter::repeat_n(' ', blanks));
            self.text.push_str(word);
            column += blanks + word.len();
        }
        self.text.push_str("\r\n");
        self
    }

    /// Adds a field when there is a value.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// The fields, each ended by CRLF, without the empty line.
    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }
}

/// The words of a value, each cut where it is too long, with the number of blanks before it.
fn words(value: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = value;
    let gap = std::iter::from_fn(move || {
        let start = rest.find(|c: char| c != ' ' && !c.is_control())?;
        let blanks = rest[..start].bytes().filter(|b| *b == b' ').count().clamp(1, BLANKS_MAX);
        let word = &rest[start..];
        let end = word.find(|c: char| c == ' ' || c.is_control()).unwrap_or(word.len());
        rest = &word[end..];
        Some((blanks, &word[..end]))
    });
    gap.flat_map(|(blanks, word)| {
        pieces(word, WORD_BYTES_MAX)
            .enumerate()
            .map(move |(nth, piece)| (if nth == 0 { blanks } else { 1 }, piece))
    })
}

/// `word` in pieces of at most `max` octets.
fn pieces(word: &str, max: usize) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(rest.floor_char_boundary(max));
        rest = after;
        Some(piece)
    })
}

/// `Content-Transfer-Encoding` (RFC 2045 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// ASCII lines of at most 998 octets.
    SevenBit,
    /// Any lines of at most 998 octets; the envelope must say `BODY=8BITMIME`.
    EightBit,
    /// For mostly readable text.
    QuotedPrintable,
    /// For everything else.
    Base64,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
        }
    }
}

/// One part of a multipart body.
#[derive(Debug, Clone)]
pub struct Part {
    /// `Content-Type` with its parameters.
    pub content_type: String,
    /// How `body` is encoded; done by [`multipart`].
    pub encoding: Encoding,
    /// Further fields, e.g. `Content-Description`.
    pub fields: Vec<(&'static str, String)>,
    /// The content, not yet encoded; CRLF lines where it is text.
    pub body: Vec<u8>,
}

impl Part {
    /// Readable text: 7-bit where it can be, otherwise UTF-8 in quoted-printable.
    pub fn text(body: String) -> Self {
        let (charset, encoding) = match is_seven_bit(body.as_bytes()) {
            true => ("us-ascii", Encoding::SevenBit),
            false => ("utf-8", Encoding::QuotedPrintable),
        };
        Self {
            content_type: format!("text/plain; charset={charset}"),
            encoding,
            fields: Vec::new(),
            body: body.into_bytes(),
        }
    }

    fn encoded(self) -> (Encoding, Vec<u8>, Vec<u8>) {
        let mut header = Header::new()
            .field("Content-Type", &self.content_type)
            .field("Content-Transfer-Encoding", self.encoding.name());
        for (name, value) in &self.fields {
            header = header.field(name, value);
        }
        let body = match self.encoding {
            Encoding::SevenBit | Encoding::EightBit => self.body,
            Encoding::QuotedPrintable => quoted_printable(&self.body),
            Encoding::Base64 => base64_lines(&self.body),
        };
        (self.encoding, header.into_bytes(), body)
    }
}

/// A multipart body: the boundary for the Content-Type field, and the body behind the empty line.
#[derive(Debug, Clone)]
pub struct Multipart {
    /// To be quoted in `boundary="..."`.
    pub boundary: String,
    /// The encoded parts with their delimiters.
    pub body: Vec<u8>,
    /// Some part is [`Encoding::EightBit`]: the envelope must say so.
    pub eight_bit: bool,
}

/// Joins parts under a boundary that occurs in none of them; `random` makes it hard to guess.
pub fn multipart(parts: Vec<Part>, random: u64) -> Multipart {
    let parts: Vec<_> = parts.into_iter().map(Part::encoded).collect();
    let mut number = random;
    let boundary = loop {
        // RFC 2045 §6.7: "=_" occurs in no quoted-printable and no base64 body.
        let boundary = format!("=_{number:016x}");
        let finder = memchr::memmem::Finder::new(&boundary);
        if parts.iter().all(|(_, _, body)| finder.find(body).is_none()) {
            break boundary;
        }
        number = number.wrapping_add(1);
    };
    let mut body = Vec::with_capacity(parts.iter().map(|(_, h, b)| h.len() + b.len() + 64).sum());
    let mut eight_bit = false;
    for (encoding, header, content) in &parts {
        eight_bit |= *encoding == Encoding::EightBit;
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend_from_slice(header);
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Multipart { boundary, body, eight_bit }
}

/// Whether bytes may go as `7bit`: ASCII without NUL, no line over 998 octets.
pub fn is_seven_bit(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, 1..=127)) && has_short_lines(bytes)
}

/// Whether no line is over 998 octets.
pub fn has_short_lines(bytes: &[u8]) -> bool {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        // The CR before the LF is not counted; one octet more or less does no harm without it.
        if end.saturating_sub(start) > LINE_BYTES_MAX + 1 {
            return false;
        }
        start = end + 1;
    }
    true
}

/// base64 in lines of 76 characters (RFC 2045 §6.8).
pub fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let text = BASE64_STANDARD.encode(bytes);
    let mut lines = Vec::with_capacity(text.len() + text.len() / 38 + 2);
    for line in text.as_bytes().chunks(ENCODED_LINE_BYTES_MAX) {
        lines.extend_from_slice(line);
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// quoted-printable (RFC 2045 §6.7); line ends of the input (CRLF or LF) stay line ends.
pub fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    let mut lines = bytes.split(|&b| b == b'\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        let line = if last { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        let mut column = 0;
        for (at, &b) in line.iter().enumerate() {
            let at_end = at + 1 == line.len();
            // Blanks at line ends would be lost, a leading dot or "From " is touched by some MTAs.
            let literal = matches!(b, 33..=60 | 62..=126) && !(b == b'.' && at == 0)
                || matches!(b, b' ' | b'\t') && !at_end;
            let width = if literal { 1 } else { 3 };
            let room = if at_end { ENCODED_LINE_BYTES_MAX } else { ENCODED_LINE_BYTES_MAX - 1 };
            if column + width > room {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            if literal {
                out.push(b);
            } else {
                out.extend_from_slice(format!("={b:02X}").as_bytes());
            }
            column += width;
        }
        if !last {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unquote(text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(text.to_vec()).unwrap().replace("=\r\n", "");
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first == b'=' {
                out.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                rest = &tail[2..];
            } else {
                out.push(*first);
                rest = tail;
            }
        }
        out
    }

    #[test]
    fn fields_are_folded_and_cannot_be_broken_out_of() {
        let header = Header::new().field("Subject", &"word ".repeat(40)).field("X", "a\r\nBcc: b\0c");
        let text = String::from_utf8(header.into_bytes()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 76), "{text}");
        assert!(text.ends_with("X: a Bcc: b c\r\n"), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        let quoted = Header::new().field("To", "<\"a  b\"@example.org>").field("X", "  a \t b ").into_bytes();
        assert_eq!(quoted, b"To: <\"a  b\"@example.org>\r\nX: a  b\r\n");
        let wide = format!("{} {}{}", "x".repeat(60), " ".repeat(40), "y".repeat(60));
        let wide = String::from_utf8(Header::new().field("X", &wide).into_bytes()).unwrap();
        assert!(wide.lines().all(|line| !line.trim().is_empty()), "{wide:?}");
        assert_eq!(wide.replace("\r\n", "").matches(' ').count(), 42);
        let endless = Header::new().field("X", &"ä".repeat(4000)).into_bytes();
        assert!(has_short_lines(&endless));
        let long = "x".repeat(300);
        assert_eq!(
            Header::new().field("Subject", &format!("{long} y")).into_bytes(),
            format!("Subject: {long}\r\n y\r\n").into_bytes()
        );
    }

    #[test]
    fn quoted_printable_keeps_every_octet_and_short_lines() {
        for text in [
            "",
            "plain\r\n",
            "trailing blank \r\nnext",
            ".dot\r\n=eq\r\n",
            &"ä".repeat(200),
            &"x".repeat(75),
            &"x".repeat(76),
            &"x".repeat(77),
            &("x".repeat(75) + "ä"),
        ] {
            let encoded = quoted_printable(text.as_bytes());
            assert_eq!(unquote(&encoded), text.as_bytes(), "{text}");
            assert!(encoded.split(|&b| b == b'\n').all(|line| line.len() <= 77), "{text}");
            assert!(is_seven_bit(&encoded));
            assert!(!encoded.windows(3).any(|w| w == b" \r\n"));
        }
        assert_eq!(quoted_printable(b"raw \xff\0"), b"raw =FF=00");
    }

    #[test]
    fn the_boundary_is_in_no_part() {
        let hostile = b"--=_0000000000000007\r\n=_0000000000000008".to_vec();
        let part = Part {
            content_type: "text/plain".into(),
            encoding: Encoding::EightBit,
            fields: vec![],
            body: hostile,
        };
        let made = multipart(vec![part, Part::text("hi\r\n".into())], 7);
        assert_eq!(made.boundary, "=_0000000000000009");
        assert!(made.eight_bit);
        assert!(made.body.ends_with(b"hi\r\n\r\n--=_0000000000000009--\r\n"));
    }

    #[test]
    fn seven_bit_means_ascii_and_short_lines() {
        assert!(is_seven_bit(b""));
        assert!(is_seven_bit(&[b'x'; 998]));
        assert!(!is_seven_bit(&[b'x'; 1000]));
        assert!(!is_seven_bit("ä".as_bytes()));
        assert!(!is_seven_bit(b"a\0b"));
        assert!(base64_lines(&[0; 500]).split(|&b| b == b'\n').all(|line| line.len() <= 77));
    }
}
