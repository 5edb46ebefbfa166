//! What each command does: the rules of a session, one method per command.
//!
//! Order, authority and limits are decided here, and nowhere else. A refusal is logged once, with its
//! reason, and leaves the session where it was, except that a refused MAIL leaves no transaction.

use std::sync::Arc;

use samotop_core::common::S1Fut;
use samotop_core::mail::{MailGuard, StartMailFailure, StartMailResult};
use samotop_core::smtp::{Action, DriverControl, SmtpContext};

use super::content::Content;
use super::lines::Line;
use super::login::Login;
use super::{Client, Dialogue, Draft, Say, dialogue, reset};
use crate::mail::{Destination, EnhancedStatus, Envelope, Mailbox, Recipient, Reply, TlsRequest};
use crate::smtp::command::{Command, CommandError, Mail, Rcpt, To};
use crate::store::Health;
use crate::submission::ListenerTls;
use crate::submission::intake::queue_reply;

/// Recipients of one transaction that are refused, as a multiple of those that may be accepted; then the
/// session ends. A client that goes on after so many 452 does not listen.
const REFUSED_PARTS: usize = 10;
/// Refusals of one session that are logged; a list of a hundred thousand bad addresses is one fact.
const REFUSALS_LOGGED_MAX: u32 = 20;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Commands(pub(super) Arc<Client>);

impl Action<Line> for Commands {
    fn apply<'a, 's, 'f>(&'a self, line: Line, state: &'s mut SmtpContext) -> S1Fut<'f, ()>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(self.obey(line, state))
    }
}

/// A reply of ours.
pub(super) fn reply(code: u16, subject: u16, detail: u16, text: &str) -> Reply {
    let class = (code / 100) as u8;
    Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
}

/// RFC 5321 §4.1.4: not now.
pub(super) fn out_of_order(text: &str) -> Reply {
    reply(503, 5, 1, text)
}

impl Client {
    /// Refuses a command: says so, and logs it.
    pub(super) fn refuse(&self, state: &mut SmtpContext, reply: &Reply) {
        let now = dialogue(state);
        now.refusals = now.refusals.saturating_add(1);
        let (listener, client, user) = (&self.listener.name, self.peer.ip(), self.user(now));
        match now.refusals {
            ..=REFUSALS_LOGGED_MAX if !self.shared.chatter.allows() => {}
            ..REFUSALS_LOGGED_MAX => tracing::info!(listener, %client, user, %reply, "command refused"),
            REFUSALS_LOGGED_MAX => {
                tracing::info!(listener, %client, user, %reply, "command refused; more of this session are not told");
            }
            _ => {}
        }
        self.shared.metrics.refused(listener, reply.code);
        state.session.say_our(reply);
    }

    /// Refuses a command that was none; the session ends when there are too many.
    pub(super) fn reproach(&self, state: &mut SmtpContext, reply: &Reply) {
        self.refuse(state, reply);
        self.count_error(state);
    }

    fn count_error(&self, state: &mut SmtpContext) {
        let dialogue = dialogue(state);
        dialogue.errors += 1;
        if dialogue.errors >= self.options.errors {
            state.session.say_last(421, "4.7.0", "too many errors, closing the connection");
        }
    }

    /// Notes a command that leads nowhere; without end they would keep us busy for nothing.
    fn count_junk(&self, state: &mut SmtpContext) {
        let dialogue = dialogue(state);
        dialogue.junk = dialogue.junk.saturating_add(1);
        if dialogue.junk > self.options.junk_commands {
            self.count_error(state);
        }
    }

    /// RFC 2920 §3.1: a client that does not wait where it must may be speaking for two.
    pub(super) fn cut_off(&self, state: &mut SmtpContext) {
        let (listener, client) = (&self.listener.name, self.peer.ip());
        if self.shared.chatter.allows() {
            tracing::warn!(listener, %client, "input before our reply, connection closed");
        }
        reset(state);
        state.session.say_last(554, "5.5.0", "input before our reply, closing the connection");
    }
}

impl Commands {
    async fn obey(&self, line: Line, state: &mut SmtpContext) {
        if line.more && must_wait(&line.command, dialogue(state)) {
            return self.0.cut_off(state);
        }
        if self.0.needs_tls() && !goes_before_tls(&line.command) {
            return self.0.reproach(state, &reply(530, 7, 0, "say STARTTLS first"));
        }
        if let Ok(command) = &line.command
            && is_junk(command)
        {
            self.0.count_junk(state);
        }
        match line.command {
            Ok(Command::Mail(mail)) => self.mail(*mail, state).await,
            Ok(Command::Rcpt(rcpt)) => self.rcpt(*rcpt, state),
            Ok(Command::Data) => Content(self.0.clone()).data(state).await,
            Ok(Command::Bdat { size, last }) => Content(self.0.clone()).bdat(size, last, state).await,
            Ok(Command::Ehlo(name)) => self.hello(name, true, state),
            Ok(Command::Helo(name)) => self.hello(name, false, state),
            Ok(Command::Rset) => {
                reset(state);
                state.session.say_line(250, "2.0.0", "Ok");
            }
            Ok(Command::Noop) => state.session.say_line(250, "2.0.0", "Ok"),
            Ok(Command::Quit) => {
                reset(state);
                state.session.say_last(221, "2.0.0", "Bye");
            }
            // RFC 5321 §3.5.3: a relay cannot tell.
            Ok(Command::Vrfy) => {
                state.session.say_line(252, "2.0.0", "Cannot verify, will try to deliver");
            }
            Ok(Command::Expn) => self.0.reproach(state, &reply(502, 5, 1, "EXPN is not offered")),
            Ok(Command::Help) => state.session.say_line(214, "2.0.0", "See RFC 5321 and RFC 6409"),
            Ok(Command::StartTls) => self.starttls(state),
            Ok(Command::Auth { mechanism, initial }) => {
                Login(self.0.clone()).begin(&mechanism, initial.as_deref(), state).await;
            }
            Err(error) => self.unreadable(&error, state),
        }
    }

    fn unreadable(&self, error: &CommandError, state: &mut SmtpContext) {
        if error.concerns_address() {
            if let Some(draft) = &mut dialogue(state).draft {
                draft.refused += 1;
            }
            return self.0.refuse(state, &error.reply());
        }
        self.0.reproach(state, &error.reply());
        if error.ends_session() {
            state.session.shutdown();
        }
    }

    fn hello(&self, name: String, esmtp: bool, state: &mut SmtpContext) {
        reset(state);
        state.session.peer_name = Some(name);
        dialogue(state).esmtp = esmtp;
        let hostname = &self.0.options.hostname;
        if !esmtp {
            state.session.say(DriverControl::Response(format!("250 {hostname}\r\n").into_bytes()));
            return;
        }
        let mut lines = format!("250-{hostname}\r\n");
        for keyword in ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"] {
            lines.push_str(&format!("250-{keyword}\r\n"));
        }
        if self.0.offers_starttls() {
            lines.push_str("250-STARTTLS\r\n");
        }
        if let Some(mechanisms) = self.0.auth_offer() {
            lines.push_str(&format!("250-AUTH {mechanisms}\r\n"));
        }
        // RFC 8689 §2: it means nothing outside TLS.
        if self.0.encrypted() {
            lines.push_str("250-REQUIRETLS\r\n");
        }
        // RFC 9422 §4: so that a client need not find out by 452.
        lines.push_str(&format!("250-LIMITS RCPTMAX={}\r\n", self.0.options.recipients));
        lines.push_str(&format!("250 SIZE {}\r\n", self.0.message_size(dialogue(state))));
        state.session.say(DriverControl::Response(lines.into_bytes()));
    }

    fn starttls(&self, state: &mut SmtpContext) {
        let refusal = if self.0.encrypted() {
            // RFC 3207 §4.2: not twice.
            out_of_order("TLS is active already")
        } else if self.0.listener.tls != ListenerTls::StartTls {
            reply(502, 5, 1, "STARTTLS is not offered")
        } else if self.0.tls.is_none() {
            reply(454, 7, 0, "TLS is not available now")
        } else {
            reset(state);
            // RFC 3207 §4.2: nothing the client said before counts after.
            state.session.peer_name = None;
            state.set(Dialogue::default());
            state.session.say_line(220, "2.0.0", "Ready to start TLS");
            return state.session.say(DriverControl::StartTls);
        };
        self.0.reproach(state, &refusal);
    }

    async fn mail(&self, mail: Mail, state: &mut SmtpContext) {
        if state.session.peer_name.is_none() {
            return self.0.reproach(state, &out_of_order("say EHLO first"));
        }
        let now = dialogue(state);
        if now.draft.is_some() || now.transfer.is_some() {
            return self.0.reproach(state, &out_of_order("a transaction is open; RSET ends it"));
        }
        let outcome = match self.may_mail(&mail, now) {
            Ok(()) => self.queue_takes_mail(mail.size.unwrap_or(0), state).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = outcome.and_then(|()| self.0.reserve(state));
        // Whatever a guard began is undone with the session's reset.
        if let Err(refusal) = outcome {
            reset(state);
            // Who may not submit at all has nothing to gain by asking again and again.
            let stranger = !self.0.entitled(dialogue(state));
            return if stranger { self.0.reproach(state, &refusal) } else { self.0.refuse(state, &refusal) };
        }
        let envelope = Envelope {
            reverse_path: mail.path,
            recipients: Vec::new(),
            body: mail.body.unwrap_or_default(),
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid,
            tls: if mail.require_tls { TlsRequest::Required } else { TlsRequest::None },
        };
        dialogue(state).draft = Some(Draft { envelope, refused: 0 });
        state.session.say_line(250, "2.1.0", "Ok");
    }

    async fn queue_takes_mail(&self, octets: u64, state: &mut SmtpContext) -> Result<(), Reply> {
        // RFC 1870 §6.1: room for the size declared; 452 where there is none now.
        if let Health::Low(why) = self.0.shared.inbox.health_for(octets) {
            tracing::debug!(why, "there is no room for a message");
            return Err(queue_reply(true));
        }
        let service = state.service();
        match service.start_mail(&mut state.session).await {
            StartMailResult::Accepted => Ok(()),
            StartMailResult::Failed(failure, why) => {
                // Told to the log once, by the daemon.
                tracing::debug!(why, "the queue takes no mail");
                Err(queue_reply(failure == StartMailFailure::StorageExhaustedTemporarily))
            }
        }
    }

    /// Who may send, and what of it we do.
    fn may_mail(&self, mail: &Mail, now: &Dialogue) -> Result<(), Reply> {
        let client = &self.0;
        client.may_submit(&mail.path, now)?;
        // RFC 8689 §2: only within TLS; a promise made in clear could be taken out on the way.
        if mail.require_tls && !client.encrypted() {
            return Err(if client.offers_starttls() {
                reply(530, 7, 10, "REQUIRETLS is for sessions inside TLS: say STARTTLS first")
            } else {
                reply(550, 7, 10, "REQUIRETLS is for sessions inside TLS, which are not offered here")
            });
        }
        let limit = client.message_size(now);
        if limit > 0 && mail.size.is_some_and(|size| size > limit) {
            // RFC 1870 §6.1
            return Err(reply(552, 3, 4, &format!("message larger than {limit} octets")));
        }
        Ok(())
    }

    fn rcpt(&self, rcpt: Rcpt, state: &mut SmtpContext) {
        let recipients_max = self.0.options.recipients;
        let hostname = &self.0.options.hostname;
        let Some(draft) = &mut dialogue(state).draft else {
            return self.0.reproach(state, &out_of_order("say MAIL first"));
        };
        let refusal = if draft.envelope.recipients.len() >= recipients_max {
            // RFC 5321 §4.5.3.1.10
            Err(reply(452, 5, 3, "too many recipients, send the rest in another transaction"))
        } else if rcpt.utf8 && !draft.envelope.smtputf8 {
            Err(CommandError::NeedsSmtputf8.reply())
        } else {
            match rcpt.to {
                To::Mailbox(mailbox) => Ok(mailbox),
                To::Postmaster(local) => Mailbox::new(&local, Destination::Domain(hostname.clone()))
                    .map_err(|error| CommandError::Recipient(error).reply()),
            }
        };
        // Never for mail from the null path: its sender could not be told of anything.
        let heeds = self.0.options.refuse_suppressed && !draft.envelope.reverse_path.is_null();
        let now = self.0.shared.clock.now();
        let refusal = refusal.and_then(|path| {
            match heeds.then(|| self.0.shared.inbox.suppressed(&path, now)).flatten() {
                Some(text) => Err(reply(550, 1, 1, &text)),
                None => Ok(path),
            }
        });
        let refusal = refusal.and_then(|path| self.0.reserve_recipient(dialogue(state)).map(|()| path));
        let Some(draft) = &mut dialogue(state).draft else { return };
        match refusal {
            Ok(path) => {
                if let Some(domain) = path.domain().domain() {
                    (self.0.shared.prefetch)(domain);
                }
                let recipient = Recipient { path, notify: rcpt.notify, orcpt: rcpt.orcpt };
                draft.envelope.recipients.push(recipient);
                state.session.say_line(250, "2.1.5", "Ok");
            }
            Err(refusal) => {
                draft.refused += 1;
                let deaf = draft.refused > recipients_max.saturating_mul(REFUSED_PARTS);
                self.0.refuse(state, &refusal);
                if deaf {
                    state.session.say_last(421, "4.5.3", "too many recipients, closing the connection");
                }
            }
        }
    }
}

/// RFC 3207 §4: what is heard where TLS must come first; of the others only that. AUTH has a reply of its
/// own, BDAT is followed by octets that must be read, and what is no command is told so.
fn goes_before_tls(command: &Result<Command, CommandError>) -> bool {
    matches!(
        command,
        Ok(Command::Ehlo(_)
            | Command::Noop
            | Command::StartTls
            | Command::Quit
            | Command::Auth { .. }
            | Command::Bdat { .. })
            | Err(_)
    )
}

/// Commands that change nothing that matters, however often they are said.
fn is_junk(command: &Command) -> bool {
    matches!(
        command,
        Command::Noop | Command::Rset | Command::Vrfy | Command::Help | Command::Ehlo(_) | Command::Helo(_)
    )
}

/// Whether the client had to wait for the reply to this command before it sent more.
fn must_wait(command: &Result<Command, CommandError>, dialogue: &Dialogue) -> bool {
    match command {
        // What follows is content.
        Ok(Command::Bdat { .. }) => false,
        // The rest is never looked at.
        Ok(Command::Quit) => false,
        // RFC 2920 §3.1: last in a group. Commands whose reply changes what may follow; the others
        // of that list are harmless.
        Ok(
            Command::Ehlo(_) | Command::Helo(_) | Command::Data | Command::StartTls | Command::Auth { .. },
        ) => true,
        // Without EHLO there is no PIPELINING.
        _ => !dialogue.esmtp,
    }
}
