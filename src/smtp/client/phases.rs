//! What a session can be doing: time limit and operator's words, in one table.

use std::time::Duration;

use super::options::{QUIT_WAIT, Timeouts};

/// What the session was doing, with RFC 5321 §4.5.3.2 time limits and phrases in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for 220.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, until 354.
    Data,
    /// Sending content.
    Body,
    /// The answer to the final dot.
    Dot,
    /// RSET.
    Reset,
    /// Open, between transactions.
    Idle,
    /// QUIT.
    Quit,
}

struct Row {
    phrase: &'static str,
    command: &'static str,
    limit: fn(&Timeouts) -> Duration,
}

impl Phase {
    #[rustfmt::skip]
    const fn row(self) -> Row {
        const fn row(phrase: &'static str, command: &'static str, limit: fn(&Timeouts) -> Duration) -> Row {
            Row { phrase, command, limit }
        }
        match self {
            //                        while ...                                in reply to ...       within
            Self::Greeting => row("receiving the server greeting",             "the connection",     |t| t.greeting),
            Self::Hello    => row("sending EHLO",                              "EHLO",               |t| t.command),
            Self::StartTls => row("starting TLS",                              "STARTTLS",           |t| t.command),
            Self::Auth     => row("logging in",                                "AUTH",               |t| t.command),
            Self::Mail     => row("sending MAIL FROM",                         "MAIL FROM",          |t| t.command),
            Self::Rcpt     => row("sending RCPT TO",                           "RCPT TO",            |t| t.rcpt),
            Self::Data     => row("sending DATA",                              "DATA",               |t| t.data),
            Self::Body     => row("sending message content",                   "message content",    |t| t.body),
            Self::Dot      => row("sending end of data -- message may be sent more than once",
                                                                               "end of data",        |t| t.dot),
            Self::Reset    => row("sending RSET",                              "RSET",               |t| t.command),
            Self::Idle     => row("waiting between messages",                  "nothing",            |t| t.command),
            Self::Quit     => row("sending QUIT",                              "QUIT",               |_| QUIT_WAIT),
        }
    }

    /// For "connection lost while ...".
    pub const fn phrase(self) -> &'static str {
        self.row().phrase
    }

    /// For "said ... in reply to ...".
    pub const fn command(self) -> &'static str {
        self.row().command
    }

    /// How long it may take.
    pub fn limit(self, timeouts: &Timeouts) -> Duration {
        (self.row().limit)(timeouts)
    }
}
