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
