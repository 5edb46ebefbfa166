//! Message content on the wire: dot-unstuffing on the way in, dot-stuffing on the way out, and the
//! strict line rules in between (RFC 5321 §2.3.8, §4.5.2).
//!
//! Incremental and without memory of its own beyond a few octets: content of any size and lines of
//! any length pass through in the pieces they come in. A line ends at CR LF and nowhere else; what
//! another server might take for a line end is noticed, so that the message can be refused.
//! Called by `submission::session` (in), `smtp::client`'s driver (out).

use memchr::{memchr2, memchr3};
use serde::{Deserialize, Serialize};

/// Octets of a text line without its CRLF at most (RFC 5321 §4.5.3.1.6: 1000 with CRLF).
pub const LINE_BYTES_MAX: usize = 998;

/// Why content is refused once its true end is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// CR without LF.
    BareCr,
    /// LF without CR.
    BareLf,
    /// NUL.
    Nul,
    /// A line over 998 octets (1000 with CRLF; RFC 5321 §4.5.3.1.6).
    LineTooLong,
}

/// What a CR or LF that stands alone is in DATA content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewlines {
    /// The reason to refuse the message.
    #[default]
    Refuse,
    /// The end of a line that becomes CRLF. It never ends the content, whatever follows it.
    Normalise,
}

/// The first violation counts, but one that could smuggle outranks a long line.
fn note(slot: &mut Option<Violation>, seen: Violation) {
    if matches!(slot, None | Some(Violation::LineTooLong)) {
        *slot = Some(seen);
    }
}

fn note_long(slot: &mut Option<Violation>, line: usize) {
    if line > LINE_BYTES_MAX {
        slot.get_or_insert(Violation::LineTooLong);
    }
}

/// Reads DATA content: finds the end, takes stuffing off, notices what could smuggle.
///
/// Strays are passed on as they are. Who wants them normalised puts a [`Normalizer`] behind: then a dot
/// after an LF alone counts as stuffed, as it does for servers that take that LF for a line end, but a
/// lone dot there stays a line of the message.
#[derive(Debug, Clone, Default)]
pub struct Unstuffer {
    bare: BareNewlines,
    at: Reading,
    /// Octets of the current line so far.
    line: usize,
    violation: Option<Violation>,
}

/// Where the next octet of DATA content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reading {
    /// After CRLF, the one of the DATA command included.
    #[default]
    LineStart,
    /// After a dot at the start of a line; the dot is held back.
    Dot,
    /// After dot and CR at the start of a line; both are held back.
    DotCr,
    /// After an LF alone that counts as the end of a line; likewise. Nothing here ends the content.
    BareStart,
    BareDot,
    BareDotCr,
    /// Inside a line.
    Text,
    /// After a CR inside a line; it has been passed on.
    Cr,
}

impl Unstuffer {
    /// One that takes a CR or LF alone for this.
    pub fn new(bare: BareNewlines) -> Self {
        Self { bare, ..Self::default() }
    }

    /// Takes input, appends content to `out`; returns how many octets were used and whether
    /// `CRLF.CRLF` was reached (only that ends it; the rest of `input` is the next command).
    ///
    /// After the end the unstuffer is spent.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        // `input[kept..i]` is content not yet copied: runs go over in one piece.
        let mut kept = 0;
        let mut i = 0;
        while let Some(&octet) = input.get(i) {
            match self.at {
                Reading::LineStart | Reading::BareStart if octet == b'.' => {
                    out.extend_from_slice(&input[kept..i]);
                    i += 1;
                    kept = i;
                    let after_crlf = self.at == Reading::LineStart;
                    self.at = if after_crlf { Reading::Dot } else { Reading::BareDot };
                }
                Reading::LineStart | Reading::BareStart => self.at = Reading::Text,
                Reading::Dot | Reading::BareDot if octet == b'\r' => {
                    i += 1;
                    kept = i;
                    self.at = if self.at == Reading::Dot { Reading::DotCr } else { Reading::BareDotCr };
                }
                // A line of one dot was not stuffed.
                Reading::Dot | Reading::BareDot if octet == b'\n' && self.bare == BareNewlines::Normalise => {
                    out.push(b'.');
                    self.at = Reading::Text;
                }
                // RFC 5321 §4.5.2: with other characters on the line the first dot goes.
                Reading::Dot | Reading::BareDot => self.at = Reading::Text,
                Reading::DotCr if octet == b'\n' => return (i + 1, true),
                // Never: after an LF alone this ends nothing.
                Reading::BareDotCr if octet == b'\n' => {
                    out.extend_from_slice(b".\r\n");
                    i += 1;
                    kept = i;
                    self.line = 0;
                    self.at = Reading::LineStart;
                }
                Reading::DotCr | Reading::BareDotCr => {
                    out.push(b'\r');
                    self.line += 1;
                    note(&mut self.violation, Violation::BareCr);
                    self.at = Reading::Text;
                }
                Reading::Text => match memchr3(b'\r', b'\n', 0, &input[i..]) {
                    None => {
                        self.run(input.len() - i);
                        i = input.len();
                    }
                    Some(run) => {
                        self.run(run);
                        i += run;
                        match input[i] {
                            b'\r' => self.at = Reading::Cr,
                            b'\n' => self.bare_lf(),
                            _ => self.stray(Violation::Nul),
                        }
                        i += 1;
                    }
                },
                Reading::Cr if octet == b'\n' => {
                    self.line = 0;
                    i += 1;
                    self.at = Reading::LineStart;
                }
                Reading::Cr => {
                    self.stray(Violation::BareCr);
                    self.at = Reading::Text;
                }
            }
        }
        out.extend_from_slice(&input[kept..]);
        (input.len(), false)
    }

    /// So many octets of a line more. A line that is too long is noticed before its end, whatever
    /// pieces it comes in.
    fn run(&mut self, octets: usize) {
        self.line += octets;
        note_long(&mut self.violation, self.line);
    }

    fn bare_lf(&mut self) {
        self.stray(Violation::BareLf);
        if self.bare == BareNewlines::Normalise {
            self.line = 0;
            self.at = Reading::BareStart;
        }
    }

    fn stray(&mut self, violation: Violation) {
        self.line += 1;
        note(&mut self.violation, violation);
    }

    /// The first violation seen so far; a stray CR, LF or NUL outranks a long line.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }
}

/// Writes DATA content: stuffs dots, in pieces of any size.
///
/// A stray CR or LF becomes CRLF on the way, so that no content, wherever it came from, can put one
/// on the wire.
#[derive(Debug, Default)]
pub struct Stuffer {
    lines: Lines,
}

impl Stuffer {
    /// Appends `input`, stuffed, to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.lines.feed(input, out, true);
    }

    /// Appends what ends the content: `CRLF.CRLF`, or `.CRLF` after a complete line.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.lines.at == Writing::LineStart { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

/// Reads BDAT content (RFC 3030), octets counted by the caller, nothing stuffed; or DATA content that an
/// [`Unstuffer`] has read, where strays are to be normalised.
///
/// A stray CR or LF becomes CRLF, so that the message can go on to hosts that only know DATA.
#[derive(Debug, Clone, Default)]
pub struct Normalizer {
    lines: Lines,
    violation: Option<Violation>,
}

impl Normalizer {
    /// Appends `input` in whole CRLF lines' form to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if memchr::memchr(0, input).is_some() {
            note(&mut self.violation, Violation::Nul);
        }
        self.lines.feed(input, out, false);
        note_long(&mut self.violation, self.lines.longest);
    }

    /// Ends the content: the last line gets its CRLF if it had none.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.lines.at != Writing::LineStart {
            out.extend_from_slice(b"\r\n");
            self.lines.at = Writing::LineStart;
        }
    }

    /// NUL or a line too long; strays were mended.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }
}

/// Whether content can go out by BDAT as it is: whole CRLF lines and no stray CR or LF.
pub fn is_canonical(content: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = memchr2(b'\r', b'\n', &content[at..]) {
        if content.get(at + found..at + found + 2) != Some(b"\r\n") {
            return false;
        }
        at += found + 2;
    }
    at == content.len()
}

/// Any text to CRLF lines.
#[derive(Debug, Clone, Default)]
struct Lines {
    at: Writing,
    line: usize,
    longest: usize,
}

/// Where the next octet of content to be written stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Writing {
    #[default]
    LineStart,
    Text,
    /// After a CR, which is held back.
    Cr,
}

impl Lines {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, stuff: bool) {
        out.reserve(input.len());
        let mut kept = 0;
        let mut i = 0;
        while let Some(&octet) = input.get(i) {
            match self.at {
                Writing::LineStart => {
                    if stuff && octet == b'.' {
                        out.extend_from_slice(&input[kept..i]);
                        kept = i;
                        out.push(b'.');
                    }
                    self.at = Writing::Text;
                }
                Writing::Text => {
                    let run = memchr2(b'\r', b'\n', &input[i..]).unwrap_or(input.len() - i);
                    self.line += run;
                    self.longest = self.longest.max(self.line);
                    i += run;
                    match (input.get(i), input.get(i + 1)) {
                        (None, _) => {}
                        (Some(b'\r'), Some(b'\n')) => {
                            i += 2;
                            self.end_line();
                        }
                        // A CR at the end of a piece waits for what follows; a stray is mended.
                        (Some(&stray), _) => {
                            out.extend_from_slice(&input[kept..i]);
                            i += 1;
                            kept = i;
                            if stray == b'\r' {
                                self.at = Writing::Cr;
                            } else {
                                out.extend_from_slice(b"\r\n");
                                self.end_line();
                            }
                        }
                    }
                }
                Writing::Cr => {
                    out.extend_from_slice(b"\r\n");
                    if octet == b'\n' {
                        i += 1;
                        kept = i;
                    }
                    self.end_line();
                }
            }
        }
        out.extend_from_slice(&input[kept..]);
    }

    fn end_line(&mut self) {
        self.line = 0;
        self.at = Writing::LineStart;
    }
}

#[cfg(test)]
mod tests;
