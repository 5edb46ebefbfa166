//! A small MIME reader for tests, written apart from the writer: what receivers would see.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// A message or part, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Entity {
    /// Unfolded fields in order.
    pub(crate) fields: Vec<(String, String)>,
    /// Decoded; empty for a multipart.
    pub(crate) body: Vec<u8>,
    /// Of a multipart.
    pub(crate) parts: Vec<Entity>,
}

impl Entity {
    /// Reads strictly: panics where a receiver could stumble.
    pub(crate) fn read(message: &[u8]) -> Self {
        let end = find(message, b"\r\n\r\n").expect("an empty line after the header");
        let (header, body) = (&message[..end + 2], &message[end + 4..]);
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in String::from_utf8(header.to_vec()).expect("UTF-8 header").split_terminator("\r\n") {
            assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
            if line.starts_with([' ', '\t']) {
                fields.last_mut().expect("a field to continue").1.push_str(line);
            } else {
                let (name, value) = line.split_once(": ").expect("a field");
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
        let mut entity = Self { fields, body: Vec::new(), parts: Vec::new() };
        match entity.parameter("boundary") {
            Some(boundary) => entity.parts = split(body, &boundary).into_iter().map(Self::read).collect(),
            None => entity.body = decode(entity.field("Content-Transfer-Encoding"), body),
        }
        entity
    }

    /// The only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    /// `Content-Type` without parameters.
    pub(crate) fn kind(&self) -> &str {
        self.field("Content-Type").expect("a type").split(';').next().expect("a first part").trim()
    }

    /// A parameter of `Content-Type`, quotes taken off.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let value = self.field("Content-Type")?;
        value.split(';').skip(1).find_map(|parameter| {
            let (found, value) = parameter.trim().split_once('=')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim_matches('"').to_owned())
        })
    }

    /// The decoded body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn split<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let open = format!("--{boundary}\r\n");
    let close = format!("\r\n--{boundary}--\r\n");
    let between = format!("\r\n--{boundary}\r\n");
    let mut rest = body.strip_prefix(open.as_bytes()).expect("an opening delimiter");
    rest = rest.strip_suffix(close.as_bytes()).expect("a closing delimiter");
    let mut parts = Vec::new();
    while let Some(at) = find(rest, between.as_bytes()) {
        parts.push(&rest[..at]);
        rest = &rest[at + between.len()..];
    }
    parts.push(rest);
    parts
}

fn decode(encoding: Option<&str>, body: &[u8]) -> Vec<u8> {
    match encoding.unwrap_or("7bit") {
        "7bit" => {
            assert!(body.is_ascii());
            body.to_vec()
        }
        "8bit" => body.to_vec(),
        "base64" => {
            let text: Vec<u8> = body.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
            BASE64_STANDARD.decode(text).expect("base64")
        }
        "quoted-printable" => {
            let text = String::from_utf8(body.to_vec()).expect("ASCII").replace("=\r\n", "");
            let mut pieces = text.split('=');
            let mut out = pieces.next().unwrap_or("").as_bytes().to_vec();
            for piece in pieces {
                out.push(u8::from_str_radix(&piece[..2], 16).expect("hex"));
                out.extend_from_slice(&piece.as_bytes()[2..]);
            }
            out
        }
        other => panic!("encoding {other}"),
    }
}
