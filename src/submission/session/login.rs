//! AUTH (RFC 4954): when it may be said, the exchange, and what a check's verdict means.

use std::sync::Arc;

use samotop_core::common::S1Fut;
use samotop_core::smtp::{Action, DriverControl, SmtpContext};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::commands::{out_of_order, reply};
use super::lines::AuthLine;
use super::{AUTH_MODE, Client, Say, dialogue};
use crate::mail::Reply;
use crate::submission::auth::Verdict;
use crate::submission::sasl::{self, Credentials, Exchange, Mechanism, SaslError, Step};
use crate::submission::scram::{ClientFirst, ScramError, Waiting, fresh_nonce};
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
    pub(super) async fn begin(&self, name: &str, initial: Option<&str>, state: &mut SmtpContext) {
        if let Err(refusal) = self.may_begin(state) {
            return self.0.reproach(state, &refusal);
        }
        let book = self.0.options.users.book();
        let terms = self.0.terms(&book);
        let step = match sasl::choose(&terms, name) {
            Ok(mechanism) => {
                dialogue(state).mechanism = Some(mechanism);
                sasl::start(&terms, mechanism, initial)
            }
            Err(error) => Step::Failed(error),
        };
        self.step(step, state).await;
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
            // Whoever lacks it has nothing to gain here but guesses.
            return if self.0.lacks_certificate() {
                Err(reply(535, 7, 8, "a client certificate that is listed is needed first"))
            } else {
                Ok(())
            };
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
            Step::Challenge(challenge, exchange) => self.ask(&challenge, exchange, state),
            Step::Failed(error) => self.fail(&error.reply(), state),
            Step::Credentials(credentials) => self.check(credentials, state).await,
            Step::ScramFirst(first) => self.look_up(first, state).await,
            Step::ScramFinal(waiting, message) => self.verify(&waiting, &message, state).await,
            Step::Proven(user) => self.accept(user, state),
        }
    }

    fn ask(&self, challenge: &str, exchange: Exchange, state: &mut SmtpContext) {
        dialogue(state).exchange = Some(exchange);
        state.session.mode = Some(AUTH_MODE);
        state.session.say(DriverControl::Response(format!("334 {challenge}\r\n").into_bytes()));
    }

    fn fail(&self, reply: &Reply, state: &mut SmtpContext) {
        state.session.mode = None;
        self.0.reproach(state, reply);
    }

    async fn check(&self, credentials: Credentials, state: &mut SmtpContext) {
        let name = credentials.name.clone();
        let (shared, options) = (&self.0.shared, &self.0.options);
        let from = self.0.network();
        let verdict = shared.authenticator.check(&options.lockout, &options.users, credentials, from).await;
        match verdict {
            Verdict::Accepted(user) => self.accept(user, state),
            Verdict::Refused => self.refuse(&name, state),
            Verdict::PutOff(wait) => self.put_off(wait, state),
            Verdict::Busy => {
                self.count("busy", state);
                self.fail(&reply(454, 7, 0, "cannot authenticate now, try again later"), state);
            }
        }
    }

    /// SCRAM's first message is here: goes on with the user's salt, or with that of nobody.
    async fn look_up(&self, first: ClientFirst, state: &mut SmtpContext) {
        let (shared, options) = (&self.0.shared, &self.0.options);
        let from = self.0.network();
        if let Err(wait) = shared.authenticator.admit(&options.lockout, &first.name, from).await {
            return self.put_off(wait, state);
        }
        let Some((verifier, user)) = options.users.book().scram(&first.name) else {
            // The users file has changed meanwhile.
            return self.fail(&SaslError::Mechanism.reply(), state);
        };
        let (message, waiting) = first.challenge(&fresh_nonce(), verifier, user);
        self.ask(&STANDARD.encode(message), Exchange::ScramFinal(Box::new(waiting)), state);
    }

    /// SCRAM's last message is here.
    async fn verify(&self, waiting: &Waiting, message: &[u8], state: &mut SmtpContext) {
        let (shared, options) = (&self.0.shared, &self.0.options);
        let from = self.0.network();
        match waiting.finish(message) {
            Ok((user, end)) => {
                shared.authenticator.accepted(&options.lockout, &waiting.name, from);
                // RFC 4954 §4: what the mechanism says with its success is one more challenge.
                self.ask(&STANDARD.encode(end), Exchange::ScramEnd(user), state);
            }
            Err(error) => {
                shared.authenticator.refused(&options.lockout, &waiting.name, from).await;
                match error {
                    ScramError::Proof => self.refuse(&waiting.name, state),
                    ScramError::Binding => {
                        let (listener, client) = (&self.0.listener.name, self.0.peer.ip());
                        tracing::warn!(
                            listener,
                            %client,
                            user = waiting.name,
                            "the client's TLS session is not ours: somebody is between"
                        );
                        self.count("refused", state);
                        self.fail(&reply(535, 7, 8, "your TLS session is not ours"), state);
                    }
                    error => self.fail(&SaslError::from(error).reply(), state),
                }
            }
        }
    }

    fn accept(&self, user: String, state: &mut SmtpContext) {
        let (listener, client) = (&self.0.listener.name, self.0.peer.ip());
        let Some(connection) = self.0.connect_as(&user) else {
            self.count("busy", state);
            return self.fail(&self.0.crowded(&user, 454), state);
        };
        dialogue(state).connection = Some(connection);
        let mechanism = self.count("granted", state);
        tracing::info!(listener, %client, user, mechanism, "authenticated");
        state.session.mode = None;
        dialogue(state).login = Some(user);
        state.session.say_line(235, "2.7.0", "Authentication successful");
    }

    fn refuse(&self, name: &str, state: &mut SmtpContext) {
        let (listener, client) = (&self.0.listener.name, self.0.peer.ip());
        let mechanism = self.count("refused", state);
        tracing::warn!(listener, %client, user = name, mechanism, "authentication failed");
        self.fail(&reply(535, 7, 8, "user name or password wrong"), state);
    }

    fn put_off(&self, wait: std::time::Duration, state: &mut SmtpContext) {
        self.count("put_off", state);
        let text = format!("too many failures, try again in {} s", wait.as_secs() + 1);
        self.fail(&reply(454, 7, 0, &text), state);
    }

    /// Counts how an exchange ended; gives its mechanism.
    fn count(&self, result: &'static str, state: &mut SmtpContext) -> &'static str {
        let mechanism = dialogue(state).mechanism.map_or("none", Mechanism::name);
        self.0.shared.metrics.login(&self.0.listener.name, mechanism, result);
        mechanism
    }
}
