//! Reads SMTP replies, octet by octet if need be (RFC 5321 §4.2).
//!
//! Pure and bounded. Tolerant where servers are known to err and nothing depends on it: long lines,
//! LF alone as line end, a bare code as last line, any text. Strict where a guess could turn a
//! refusal into a delivery: codes. An error is final for the session. Called by
//! [`super::client::Session`].

use std::mem;

use crate::mail::{EnhancedStatus, Reply};

/// Octets of one reply at most, line ends included. RFC 5321 §4.5.3.1.5 knows lines of 512; long
/// explanations on many lines exist, endless ones are an attack.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Lines of one reply at most; the longest EHLO replies have some thirty.
pub const REPLY_LINES_MAX: usize = 500;

/// Why octets are no SMTP reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not three digits, then a blank, a hyphen or the line's end.
    #[error("got a line that is no SMTP reply")]
    NotAReply,
    /// The first digit is outside 2 to 5.
    #[error("got reply code {0:03}, outside 200 to 599,")]
    Code(u16),
    /// The lines of one reply have different codes.
    #[error("got a reply that begins with code {0} and goes on with {1}")]
    MixedCodes(u16, u16),
    /// Over [`REPLY_BYTES_MAX`] or [`REPLY_LINES_MAX`].
    #[error("got a reply over 64 KiB or 500 lines")]
    TooLong,
}

/// The decoder; holds at most one incomplete reply.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The incomplete line.
    line: Vec<u8>,
    /// The complete lines of the incomplete reply.
    reply: Option<Reply>,
    /// Octets of the incomplete reply, the incomplete line included.
    octets: usize,
}

impl Decoder {
    /// Takes input up to the end of one reply. Says how many octets were used, and the reply if it
    /// is complete; without one, all were used.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Result<Option<Reply>, DecodeError>) {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let (piece, complete) = match memchr::memchr(b'\n', rest) {
                Some(at) => (&rest[..=at], true),
                None => (rest, false),
            };
            used += piece.len();
            self.octets = self.octets.saturating_add(piece.len());
            if self.octets > REPLY_BYTES_MAX {
                return (used, Err(DecodeError::TooLong));
            }
            self.line.extend_from_slice(piece);
            if complete {
                let line = mem::take(&mut self.line);
                match self.take_line(&line) {
                    Ok(None) => {}
                    finished => return (used, finished),
                }
            }
        }
        (used, Ok(None))
    }

    /// Whether part of a reply is here.
    pub fn is_mid_reply(&self) -> bool {
        self.octets > 0
    }

    /// Takes one line with its LF.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<Reply>, DecodeError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, last, text) = split_line(line)?;
        let text = printable(text);
        let mut reply = match self.reply.take() {
            None => Reply { code, enhanced: enhanced_at_start(&text, code), lines: Vec::new() },
            // RFC 5321 §4.2.1: the same code on every line.
            Some(reply) if reply.code != code => return Err(DecodeError::MixedCodes(reply.code, code)),
            Some(reply) if reply.lines.len() >= REPLY_LINES_MAX => return Err(DecodeError::TooLong),
            Some(reply) => reply,
        };
        // RFC 2034 §4: the enhanced code stands on every line; one is enough to keep.
        let text = match reply.enhanced {
            Some(enhanced) if enhanced_at_start(&text, code) == Some(enhanced) => {
                text.split_once(' ').map_or("", |(_, rest)| rest).trim_start().to_owned()
            }
            _ => text,
        };
        reply.lines.push(text);
        if last {
            self.octets = 0;
            return Ok(Some(reply));
        }
        self.reply = Some(reply);
        Ok(None)
    }
}

/// Code, whether it is the last line, and the text.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), DecodeError> {
    let (digits, rest) = line.split_at_checked(3).ok_or(DecodeError::NotAReply)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::NotAReply);
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    // RFC 5321 §4.2.1: the first digit decides, so it has to be one that does.
    if !(200..600).contains(&code) {
        return Err(DecodeError::Code(code));
    }
    match rest {
        // RFC 5321 §4.2: a code alone is a last line.
        [] => Ok((code, true, rest)),
        [b' ', text @ ..] => Ok((code, true, text)),
        [b'-', text @ ..] => Ok((code, false, text)),
        _ => Err(DecodeError::NotAReply),
    }
}

/// RFC 2034 §4: at the start of the text, and of the code's class.
fn enhanced_at_start(text: &str, code: u16) -> Option<EnhancedStatus> {
    let word = text.split(' ').next()?;
    word.parse::<EnhancedStatus>().ok().filter(|status| u16::from(status.class) == code / 100)
}

/// The text with everything replaced that could deceive a log, a DSN or a terminal.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown: String = text
        .chars()
        .map(|c| match c {
            '\t' => ' ',
            // Line and paragraph separators; marks that turn the direction of what follows.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            char::REPLACEMENT_CHARACTER => '?',
            c if c.is_control() => '?',
            c => c,
        })
        .collect();
    shown.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(input: &[u8]) -> Result<Option<Reply>, DecodeError> {
        Decoder::default().feed(input).1
    }

    fn good(input: &[u8], code: u16, enhanced: Option<&str>, lines: &[&str]) {
        let reply = decode(input).unwrap().expect("complete");
        let enhanced = enhanced.map(|text| text.parse().unwrap());
        assert_eq!((reply.code, reply.enhanced), (code, enhanced), "{}", input.escape_ascii());
        assert_eq!(reply.lines, lines, "{}", input.escape_ascii());
    }

    #[test]
    fn replies_are_read() {
        good(b"250 ok\r\n", 250, None, &["ok"]);
        good(b"250\r\n", 250, None, &[""]);
        good(b"250 \r\n", 250, None, &[""]);
        good(b"250-\r\n250\r\n", 250, None, &["", ""]);
        good(b"250-a\r\n250-b\r\n250 c\r\n", 250, None, &["a", "b", "c"]);
        good(b"250-a\r\n250\r\n", 250, None, &["a", ""]);
        good(b"250 lf alone\n", 250, None, &["lf alone"]);
        good(b"599 odd\r\n", 599, None, &["odd"]);
        good(b"299 odd\r\n", 299, None, &["odd"]);
    }

    #[test]
    fn enhanced_codes_count_at_the_start_and_in_their_class() {
        good(b"250 2.1.5 ok\r\n", 250, Some("2.1.5"), &["ok"]);
        good(b"550 5.1.1\r\n", 550, Some("5.1.1"), &[""]);
        good(b"550-5.1.1 no\r\n550-5.1.1 one\r\n550 here\r\n", 550, Some("5.1.1"), &["no", "one", "here"]);
        good(b"550 4.1.1 wrong class\r\n", 550, None, &["4.1.1 wrong class"]);
        good(b"354 2.0.0 no class at all\r\n", 354, None, &["2.0.0 no class at all"]);
        good(b"550 5.1.1: colon\r\n", 550, None, &["5.1.1: colon"]);
        good(b"550 5.01.1 zero\r\n", 550, None, &["5.01.1 zero"]);
        good(b"550 said 5.1.1\r\n", 550, None, &["said 5.1.1"]);
        good(b"550-first\r\n550 5.1.1 second\r\n", 550, None, &["first", "5.1.1 second"]);
        good(b"550-5.1.1 a\r\n550 5.7.1 b\r\n", 550, Some("5.1.1"), &["a", "5.7.1 b"]);
    }

    #[test]
    fn text_is_made_printable() {
        good(b"250 a\x1b[2Jb\x00c\rd\x7fe\r\n", 250, None, &["a?[2Jb?c?d?e"]);
        good(b"250 a\tb\r\n", 250, None, &["a b"]);
        good(b"250 \xff\xfeok\r\n", 250, None, &["??ok"]);
        good("250 grüße \u{202e}gpj\u{2028}x\u{85}\r\n".as_bytes(), 250, None, &["grüße ?gpj?x?"]);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for (input, error) in [
            (&b"\r\n"[..], DecodeError::NotAReply),
            (b"25\r\n", DecodeError::NotAReply),
            (b"2x0 ok\r\n", DecodeError::NotAReply),
            (b"250ok\r\n", DecodeError::NotAReply),
            (b"2500 ok\r\n", DecodeError::NotAReply),
            (b"250\tok\r\n", DecodeError::NotAReply),
            (b" 250 ok\r\n", DecodeError::NotAReply),
            (b"\xff\xff\xff ok\r\n", DecodeError::NotAReply),
            (b"HTTP/1.1 400 Bad Request\r\n", DecodeError::NotAReply),
            (b"150 ok\r\n", DecodeError::Code(150)),
            (b"600 ok\r\n", DecodeError::Code(600)),
            (b"000 ok\r\n", DecodeError::Code(0)),
            (b"250-a\r\n550 b\r\n", DecodeError::MixedCodes(250, 550)),
            (b"250-a\r\n251-b\r\n", DecodeError::MixedCodes(250, 251)),
            (b"250-a\r\nnonsense\r\n", DecodeError::NotAReply),
        ] {
            assert_eq!(decode(input), Err(error), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn replies_are_bounded() {
        let long_line = [b"250 ".to_vec(), vec![b'x'; 60_000], b"\r\n".to_vec()].concat();
        assert_eq!(decode(&long_line).unwrap().expect("complete").lines[0].len(), 60_000);
        let endless_line = vec![b'2'; REPLY_BYTES_MAX + 1];
        assert_eq!(decode(&endless_line), Err(DecodeError::TooLong));
        let many = |lines: usize| [b"250-x\r\n".repeat(lines - 1), b"250 x\r\n".to_vec()].concat();
        assert_eq!(decode(&many(REPLY_LINES_MAX)).unwrap().expect("complete").lines.len(), REPLY_LINES_MAX);
        assert_eq!(decode(&many(REPLY_LINES_MAX + 1)), Err(DecodeError::TooLong));
    }

    #[test]
    fn one_reply_is_taken_at_a_time() {
        let mut decoder = Decoder::default();
        let input = b"250 a\r\n550 b\r\n3";
        let (used, reply) = decoder.feed(input);
        assert_eq!((used, reply.unwrap().expect("complete").code), (7, 250));
        assert!(!decoder.is_mid_reply());
        let (more, reply) = decoder.feed(&input[used..]);
        assert_eq!((more, reply.unwrap().expect("complete").code), (7, 550));
        assert_eq!(decoder.feed(&input[14..]), (1, Ok(None)));
        assert!(decoder.is_mid_reply());
    }

    #[test]
    fn the_bound_starts_anew_with_every_reply() {
        let mut decoder = Decoder::default();
        for _ in 0..REPLY_BYTES_MAX / 4 {
            assert!(matches!(decoder.feed(b"250 ok\r\n"), (8, Ok(Some(_)))));
        }
    }

    proptest! {
        #[test]
        fn any_octets_in_any_pieces_give_the_same(
            input in prop::collection::vec(
                prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '), Just(b'\n'), any::<u8>()],
                0..80,
            ),
            size in 1_usize..20,
        ) {
            let all = |pieces: Vec<&[u8]>| {
                let mut decoder = Decoder::default();
                let mut seen = Vec::new();
                for mut piece in pieces {
                    while !piece.is_empty() {
                        let (used, decoded) = decoder.feed(piece);
                        assert!(used > 0 && used <= piece.len());
                        piece = &piece[used..];
                        match decoded {
                            Ok(None) => assert!(piece.is_empty()),
                            Err(error) => { seen.push(Err(error)); return seen; }
                            Ok(Some(reply)) => {
                                assert!(reply.lines.iter().all(|line| !line.contains(char::is_control)));
                                seen.push(Ok(reply));
                            }
                        }
                    }
                }
                seen
            };
            prop_assert_eq!(all(vec![&input]), all(input.chunks(size).collect()));
        }
    }
}
