//! samotop parsers for lines: commands, and the lines of an AUTH exchange.
//!
//! A line ends at CRLF only; one that is too long comes out as an error of its own, already cut by the
//! driver.

use memchr::memmem;
use samotop_core::smtp::{ParseError, ParseResult, Parser, SmtpContext};

use super::{Mode, line_limit, mode};
use crate::smtp::command::{self, AUTH_LINE_BYTES_MAX, Command, CommandError};

/// A command line.
#[derive(Debug)]
pub(super) struct Line {
    pub command: Result<Command, CommandError>,
    /// The client has sent more without waiting for the reply.
    pub more: bool,
}

/// Reads command lines.
#[derive(Debug)]
pub(super) struct Lines;

/// A line of an AUTH exchange, without CRLF.
#[derive(Debug)]
pub(super) struct AuthLine {
    pub line: Result<Vec<u8>, CommandError>,
    /// The client has sent more without waiting for the reply.
    pub more: bool,
}

/// Reads lines of an AUTH exchange.
#[derive(Debug)]
pub(super) struct AuthLines;

/// Not for this parser; no text, since nobody reads it.
pub(super) fn not_mine<T>() -> ParseResult<T> {
    Err(ParseError::Mismatch(String::new()))
}

impl Parser<Line> for Lines {
    fn parse(&self, input: &[u8], state: &SmtpContext) -> ParseResult<Line> {
        if mode(&state.session) != Mode::Command {
            return not_mine();
        }
        let end = memmem::find(input, b"\r\n").ok_or(ParseError::Incomplete)?;
        let (length, limit) = (end + 2, line_limit(&state.session));
        let command = if length <= limit {
            command::parse(&input[..end])
        } else if limit == AUTH_LINE_BYTES_MAX {
            Err(CommandError::AuthTooLong)
        } else {
            Err(CommandError::TooLong)
        };
        Ok((length, Line { command, more: input.len() > length }))
    }
}

impl Parser<AuthLine> for AuthLines {
    fn parse(&self, input: &[u8], state: &SmtpContext) -> ParseResult<AuthLine> {
        if mode(&state.session) != Mode::Auth {
            return not_mine();
        }
        let end = memmem::find(input, b"\r\n").ok_or(ParseError::Incomplete)?;
        let length = end + 2;
        // RFC 4954 §4: 500 5.5.6 for a line that is too long.
        let line = if length <= AUTH_LINE_BYTES_MAX {
            Ok(input[..end].to_vec())
        } else {
            Err(CommandError::AuthTooLong)
        };
        Ok((length, AuthLine { line, more: input.len() > length }))
    }
}
