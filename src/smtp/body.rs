//! Message content on the wire: dot-unstuffing on the way in, dot-stuffing on the way out, and the
//! strict line rules in between (RFC 5321 §2.3.8, §4.5.2).

/// Reads DATA content: finds the end, takes stuffing off, notices what could smuggle.
#[derive(Debug, Default)]
pub struct Unstuffer {
    _private: (),
}

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

impl Unstuffer {
    /// Takes input, appends content to `out`; returns how many octets were used and whether
    /// `CRLF.CRLF` was reached (only that ends it; the rest of `input` is the next command).
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        todo!()
    }

    /// The first violation seen so far.
    pub fn violation(&self) -> Option<Violation> {
        todo!()
    }
}

/// Writes DATA content: stuffs dots, in pieces of any size.
#[derive(Debug, Default)]
pub struct Stuffer {
    _private: (),
}

impl Stuffer {
    /// Appends `input`, stuffed, to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        todo!()
    }

    /// Appends what ends the content: `CRLF.CRLF`, or `.CRLF` after a complete line.
    pub fn finish(self, out: &mut Vec<u8>) {
        todo!()
    }
}
