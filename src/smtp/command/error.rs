//! Why a command line is refused, and what the client is told (RFC 5321 §4.2.4, RFC 3463, RFC 5248).

use crate::mail::{AddressError, EnhancedStatus, Reply};

/// Why a line is no acceptable command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// NUL, another control character, a CR or LF that ends no line.
    BadOctet,
    /// Not valid UTF-8, or not ASCII where only ASCII may be.
    NotAscii,
    /// Longer than [`super::COMMAND_LINE_BYTES_MAX`].
    TooLong,
    /// Longer than [`super::AUTH_LINE_BYTES_MAX`].
    AuthTooLong,
    /// No SMTP verb.
    Unrecognised,
    /// A verb we know and never do, such as TURN.
    NotImplemented,
    /// Arguments missing or malformed; how it should look.
    Syntax(&'static str),
    /// A malformed BDAT: how many octets follow cannot be known, so the session must end.
    Chunk,
    /// The reverse-path.
    Sender(AddressError),
    /// The reverse-path's domain has a single label, or is missing (RFC 6409 §4.2).
    SenderUnqualified,
    /// The forward-path.
    Recipient(AddressError),
    /// The forward-path's domain has a single label, or is missing (RFC 6409 §4.2).
    RecipientUnqualified,
    /// An address that is not ASCII without SMTPUTF8 (RFC 6531 §3.5).
    NeedsSmtputf8,
    /// A parameter of an extension we do not offer; its keyword.
    UnknownParameter(String),
    /// A known parameter twice or with a bad value; its keyword.
    BadParameter(&'static str),
}

impl CommandError {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        let reply = |code, status: (u16, u16), text: String| {
            Reply::new(code, EnhancedStatus::new(5, status.0, status.1), text)
        };
        match self {
            Self::BadOctet => reply(500, (5, 2), "control character or stray line end in command".into()),
            Self::NotAscii => reply(501, (5, 2), "not ASCII, or not valid UTF-8".into()),
            Self::TooLong => reply(500, (5, 2), "command line too long".into()),
            Self::AuthTooLong => reply(500, (5, 6), "AUTH line too long".into()),
            Self::Unrecognised => reply(500, (5, 1), "command not recognised".into()),
            Self::NotImplemented => reply(502, (5, 1), "command not implemented".into()),
            Self::Syntax(usage) => reply(501, (5, 4), format!("syntax: {usage}")),
            Self::Chunk => reply(501, (5, 4), "syntax: BDAT size [LAST]; closing the connection".into()),
            Self::Sender(error) => reply(501, (1, 7), format!("sender: {error}")),
            Self::SenderUnqualified => {
                reply(554, (1, 8), "sender: the domain must be fully qualified".into())
            }
            Self::Recipient(error) => reply(501, (1, 3), format!("recipient: {error}")),
            Self::RecipientUnqualified => {
                reply(554, (1, 2), "recipient: the domain must be fully qualified".into())
            }
            Self::NeedsSmtputf8 => {
                reply(553, (6, 7), "an address that is not ASCII needs MAIL ... SMTPUTF8".into())
            }
            Self::UnknownParameter(name) => reply(555, (5, 4), format!("parameter {name} not recognised")),
            Self::BadParameter(name) => reply(501, (5, 4), format!("bad value, or given twice: {name}")),
        }
    }

    /// Whether the session cannot go on because the next command cannot be found.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::Chunk)
    }

    /// Whether only this address is at fault: many of them are a bad list, not a bad client.
    pub fn concerns_address(&self) -> bool {
        matches!(
            self,
            Self::Sender(_)
                | Self::SenderUnqualified
                | Self::Recipient(_)
                | Self::RecipientUnqualified
                | Self::NeedsSmtputf8
        )
    }
}
