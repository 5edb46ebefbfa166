//! AUTH (RFC 4954): when it may be said, the exchange, and what a check's verdict means.

use std::sync::Arc;

use samotop_core::common::S1Fut;
use samotop_core::smtp::{Action, DriverControl, SmtpContext};

use super::commands::{out_of_order, reply};
use super::lines::AuthLine;
use super::{AUTH_MODE, Client, Say, dialogue};
use crate::mail::Reply;
use crate::submission::auth::Verdict;
use crate::submission::sasl::{self, Credentials, Step};
use crate::submission::serve::peer_key;
use crate::submission::{ListenerAuth, ListenerTls};

/// See the module.
#[derive(Debug)]
pub(super) struct Login(pub(super) Arc<Client>);

impl Action<AuthLine> for Login {
    fn apply<'a, 's, 'f>(&'a self, line: AuthLine, state: &'s mut SmtpContext) -> S1Fut<'f, ()>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(self.go_on(line, state))
    }
}

impl Login {
    /// `AUTH mechanism [initial-response]`
    pub(super) async fn begin(&self, mechanism: &str, initial: Option<&str>, state: &mut SmtpContext) {
        if let Err(refusal) = self.may_begin(state) {
            return self.0.reproach(state, &refusal);
        }
        self.step(sasl::start(mechanism, initial), state).await;
    }

    fn may_begin(&self, state: &mut SmtpContext) -> Result<(), Reply> {
        let greeted = state.session.peer_name.is_some();
        let now = dialogue(state);
        if !greeted || !now.esmtp {
            return Err(out_of_order("say EHLO first"));
        }
        if now.login.is_some() {
            return Err(out_of_order("you are authenticated already"));
        }
        // RFC 4954 §4: not in a transaction.
        if now.draft.is_some() || now.transfer.is_some() {
            return Err(out_of_order("not in a transaction"));
        }
        if self.0.offers_auth() {
            return Ok(());
        }
        let with_tls = self.0.listener.auth != ListenerAuth::None
            && self.0.listener.tls == ListenerTls::StartTls
            && self.0.tls.is_some();
        Err(if with_tls {
            reply(538, 7, 11, "AUTH needs encryption, say STARTTLS first")
        } else {
            reply(502, 5, 1, "AUTH is not offered")
        })
    }

    async fn go_on(&self, line: AuthLine, state: &mut SmtpContext) {
        if line.more {
            return self.0.cut_off(state);
        }
        let exchange = dialogue(state).exchange.take();
        match (line.line, exchange) {
            (Ok(line), Some(exchange)) => self.step(exchange.respond(&line), state).await,
            (Err(error), _) => self.fail(&error.reply(), state),
            (Ok(_), None) => self.fail(&out_of_order("no exchange is open"), state),
        }
    }

    async fn step(&self, step: Step, state: &mut SmtpContext) {
        match step {
            Step::Challenge(challenge, exchange) => {
                dialogue(state).exchange = Some(exchange);
                state.session.mode = Some(AUTH_MODE);
                state.session.say(DriverControl::Response(format!("334 {challenge}\r\n").into_bytes()));
            }
            Step::Failed(error) => self.fail(&error.reply(), state),
            Step::Credentials(credentials) => self.check(credentials, state).await,
        }
    }

    fn fail(&self, reply: &Reply, state: &mut SmtpContext) {
        state.session.mode = None;
        self.0.reproach(state, reply);
    }

    async fn check(&self, credentials: Credentials, state: &mut SmtpContext) {
        let name = credentials.name.clone();
        let (listener, client) = (&self.0.listener.name, self.0.peer.ip());
        let authenticator = &self.0.shared.authenticator;
        let verdict = authenticator.check(&self.0.options.users, credentials, peer_key(client)).await;
        match verdict {
            Verdict::Accepted => {
                self.0.shared.metrics.login(listener, true);
                tracing::info!(listener, %client, user = name, "authenticated");
                state.session.mode = None;
                dialogue(state).login = Some(name);
                state.session.say_line(235, "2.7.0", "Authentication successful");
            }
            Verdict::Refused => {
                self.0.shared.metrics.login(listener, false);
                tracing::warn!(listener, %client, user = name, "authentication failed");
                self.fail(&reply(535, 7, 8, "user name or password wrong"), state);
            }
            Verdict::PutOff(wait) => {
                let text = format!("too many failures, try again in {} s", wait.as_secs() + 1);
                self.fail(&reply(454, 7, 0, &text), state);
            }
            Verdict::Busy => self.fail(&reply(454, 7, 0, "cannot authenticate now, try again later"), state),
        }
    }
}
