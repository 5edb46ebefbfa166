//! Command lines as a server reads them (RFC 5321 §4.1): bytes to [`Command`], verbatim and strict.
//!
//! Pure and without state: whether a command may come now, and what it does, is the session's
//! business. Nothing that is not printable gets past here, so no field of a command can break a
//! header, a log line or another command. Called by `submission::session`, once per line.
//! See also: [`parameters`] (MAIL and RCPT parameters, xtext).

use crate::mail::address::unwrap_path;
use crate::mail::{AddressError, BodyType, Destination, Mailbox, Notify, Ret, ReversePath};

mod error;
pub mod parameters;

pub use self::error::CommandError;

/// Octets of a command line with its CRLF at most: the RFCs' limits for MAIL and RCPT with every
/// parameter at its longest (RFC 5321 §4.5.3.1.4, RFC 3461 §4 and §5.4) stay below 2 KB.
pub const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// Octets of an AUTH command or response line with its CRLF at most (RFC 4954 §4).
pub const AUTH_LINE_BYTES_MAX: usize = 12_288;
/// Octets of an EHLO or HELO argument at most: a domain (RFC 5321 §4.5.3.1.2) or a literal.
const CLIENT_NAME_BYTES_MAX: usize = 255;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `EHLO name`; the name is printable ASCII without blanks or header syntax, not verified.
    Ehlo(String),
    /// `HELO name`, likewise.
    Helo(String),
    /// `MAIL FROM:<...>`
    Mail(Box<Mail>),
    /// `RCPT TO:<...>`
    Rcpt(Box<Rcpt>),
    /// `DATA`
    Data,
    /// `BDAT size [LAST]` (RFC 3030 §2); `size` octets follow the line at once.
    Bdat {
        /// Octets that follow.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `VRFY string`
    Vrfy,
    /// `EXPN string`
    Expn,
    /// `HELP`
    Help,
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954 §4).
    Auth {
        /// In upper case.
        mechanism: String,
        /// As given, still in base64.
        initial: Option<String>,
    },
}

/// `MAIL FROM` with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its domain is fully qualified or an address literal.
    pub path: ReversePath,
    /// `SIZE=` (RFC 1870)
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152)
    pub body: Option<BodyType>,
    /// `SMTPUTF8` (RFC 6531)
    pub smtputf8: bool,
    /// `RET=` (RFC 3461)
    pub ret: Option<Ret>,
    /// `ENVID=`, as given, in xtext
    pub envid: Option<String>,
    /// `AUTH=` was given (RFC 4954 §5); its value is not trusted and not kept.
    pub auth: bool,
    /// `REQUIRETLS` (RFC 8689)
    pub require_tls: bool,
}

/// `RCPT TO` with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// Whom.
    pub to: To,
    /// Something in the command is not ASCII: SMTPUTF8 must have been asked for (RFC 6531 §3.4).
    pub utf8: bool,
    /// `NOTIFY=` (RFC 3461)
    pub notify: Option<Notify>,
    /// `ORCPT=`, as given: `addr-type;xtext`
    pub orcpt: Option<String>,
}

/// A forward-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Its domain is fully qualified or an address literal.
    Mailbox(Mailbox),
    /// `<Postmaster>` without a domain: ours (RFC 5321 §4.1.1.3). The local part as given.
    Postmaster(String),
}

/// Reads one command line, given without its CRLF.
///
/// # Errors
/// See [`CommandError`].
pub fn parse(line: &[u8]) -> Result<Command, CommandError> {
    if line.iter().any(|b| b.is_ascii_control()) {
        return Err(CommandError::BadOctet);
    }
    let line = str::from_utf8(line).map_err(|_| CommandError::NotAscii)?;
    // RFC 5321 §4.1.1: trailing white space is tolerated.
    let line = line.trim_end_matches(' ');
    let (verb, rest) = match line.split_once(' ') {
        Some((verb, rest)) => (verb, rest),
        None => (line, ""),
    };
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    if is("MAIL") {
        return mail(rest);
    }
    if is("RCPT") {
        return rcpt(rest);
    }
    if !line.is_ascii() && !asks_in_utf8(verb, rest) {
        return Err(CommandError::NotAscii);
    }
    let bare = |command: Command, usage: &'static str| {
        if rest.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) }
    };
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => client_name(rest).map(Command::Ehlo).ok_or(CommandError::Syntax("EHLO domain")),
        "HELO" => client_name(rest).map(Command::Helo).ok_or(CommandError::Syntax("HELO domain")),
        "DATA" => bare(Command::Data, "DATA"),
        "BDAT" => bdat(rest).ok_or(CommandError::Chunk),
        "RSET" => bare(Command::Rset, "RSET"),
        "QUIT" => bare(Command::Quit, "QUIT"),
        "STARTTLS" => bare(Command::StartTls, "STARTTLS"),
        // RFC 5321 §4.1.1.9: a parameter string is ignored.
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if rest.is_empty() => Err(CommandError::Syntax("VRFY string")),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" if rest.is_empty() => Err(CommandError::Syntax("EXPN string")),
        "EXPN" => Ok(Command::Expn),
        "AUTH" => auth(rest).ok_or(CommandError::Syntax("AUTH mechanism [initial-response]")),
        // RFC 6409 §7: never on a submission service; RFC 5321 §F: obsolete.
        "TURN" | "ATRN" | "ETRN" | "SEND" | "SOML" | "SAML" => Err(CommandError::NotImplemented),
        _ => Err(CommandError::Unrecognised),
    }
}

/// RFC 6531 §3.7.4.2: VRFY and EXPN with the parameter may name what is not ASCII.
fn asks_in_utf8(verb: &str, rest: &str) -> bool {
    let asks = verb.eq_ignore_ascii_case("VRFY") || verb.eq_ignore_ascii_case("EXPN");
    asks && rest.rsplit_once(' ').is_some_and(|(_, last)| last.eq_ignore_ascii_case("SMTPUTF8"))
}

/// An EHLO argument. Many clients give no valid domain; RFC 5321 §4.1.4 forbids to refuse mail for
/// it, so any token that is safe in a header will do.
fn client_name(text: &str) -> Option<String> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    let good = !text.is_empty() && text.len() <= CLIENT_NAME_BYTES_MAX && text.bytes().all(safe);
    good.then(|| text.to_owned())
}

fn bdat(rest: &str) -> Option<Command> {
    let (size, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((size, word)) if word.eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return None,
    };
    let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| size.parse().ok()).flatten().map(|size| Command::Bdat { size, last })
}

fn auth(rest: &str) -> Option<Command> {
    let (mechanism, initial) = match rest.split_once(' ') {
        None => (rest, None),
        Some((mechanism, initial)) => (mechanism, Some(initial)),
    };
    // RFC 4422 §3.1: 1 to 20 letters, digits, hyphens and underscores.
    let named = (1..=20).contains(&mechanism.len())
        && mechanism.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let one_word = initial.is_none_or(|initial| !initial.is_empty() && !initial.contains(' '));
    (named && one_word).then(|| Command::Auth {
        mechanism: mechanism.to_ascii_uppercase(),
        initial: initial.map(Into::into),
    })
}

fn mail(rest: &str) -> Result<Command, CommandError> {
    let syntax = CommandError::Syntax("MAIL FROM:<address> [parameters]");
    let (path, parameters) = path_and_rest(rest, "FROM:").ok_or(syntax)?;
    let inner = unwrap_path(path).map_err(CommandError::Sender)?;
    let reverse = if inner.is_empty() {
        ReversePath::Null
    } else {
        let unqualified = CommandError::SenderUnqualified;
        ReversePath::Mailbox(mailbox(inner, CommandError::Sender, unqualified)?)
    };
    let mut mail = Mail {
        path: reverse,
        size: None,
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        auth: false,
        require_tls: false,
    };
    parameters::read_mail(parameters, &mut mail)?;
    // RFC 6531 §3.4: what is not ASCII needs the parameter.
    if !rest.is_ascii() && !mail.smtputf8 {
        return Err(CommandError::NeedsSmtputf8);
    }
    Ok(Command::Mail(Box::new(mail)))
}

fn rcpt(rest: &str) -> Result<Command, CommandError> {
    let syntax = CommandError::Syntax("RCPT TO:<address> [parameters]");
    let (path, parameters) = path_and_rest(rest, "TO:").ok_or(syntax)?;
    let inner = unwrap_path(path).map_err(CommandError::Recipient)?;
    // RFC 5321 §2.3.5, §4.1.1.3: Postmaster, in any case, is the one name valid without a domain.
    let to = if inner.eq_ignore_ascii_case("postmaster") {
        To::Postmaster(inner.to_owned())
    } else {
        To::Mailbox(mailbox(inner, CommandError::Recipient, CommandError::RecipientUnqualified)?)
    };
    let mut rcpt = Rcpt { to, utf8: !rest.is_ascii(), notify: None, orcpt: None };
    parameters::read_rcpt(parameters, &mut rcpt)?;
    Ok(Command::Rcpt(Box::new(rcpt)))
}

/// A mailbox whose domain can be delivered to from anywhere.
fn mailbox(
    text: &str,
    bad: fn(AddressError) -> CommandError,
    unqualified: CommandError,
) -> Result<Mailbox, CommandError> {
    match Mailbox::parse(text) {
        Ok(mailbox) => match mailbox.domain() {
            Destination::Domain(domain) if !domain.is_fully_qualified() => Err(unqualified),
            _ => Ok(mailbox),
        },
        // A sound local part with nothing after it.
        Err(AddressError::Syntax) if !text.contains('@') && is_local_part(text) => Err(unqualified),
        Err(error) => Err(bad(error)),
    }
}

fn is_local_part(text: &str) -> bool {
    Mailbox::parse(&format!("{text}@host.invalid")).is_ok()
}

/// `FROM:<path> parameters`: the path with its brackets, and the parameters. RFC 5321 §3.3 allows no
/// blanks around the colon.
fn path_and_rest<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let prefix = rest.get(..keyword.len())?;
    if !prefix.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = &rest[keyword.len()..];
    let end = path_end(rest)?;
    let (path, parameters) = rest.split_at(end);
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters))
}

/// Where a path ends: at the first `>` outside a quoted string.
fn path_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut octets = text.bytes().enumerate();
    if octets.next()?.1 != b'<' {
        return None;
    }
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                octets.next();
            }
            b'>' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
