//! One command line as a client sends it, without its CRLF.

use stsrelay::mail::ReversePath;
use stsrelay::smtp::command::{self, Command, To};

use super::address::check_mailbox;

pub fn run(data: &[u8]) {
    let answer = command::parse(data);
    let trailing = command::parse(&[data, b"  "].concat());
    match answer {
        Err(error) => {
            // The reply is one line, and says why in the class it refuses with.
            let reply = error.reply();
            assert!((500..=555).contains(&reply.code) && !reply.to_string().contains(char::is_control));
            assert!(reply.enhanced.is_some_and(|status| u16::from(status.class) == reply.code / 100));
        }
        Ok(command) => {
            assert_eq!(trailing.as_ref(), Ok(&command), "blanks at the end change nothing");
            assert!(!data.iter().any(u8::is_ascii_control));
            check(&command);
        }
    }
}

fn check(command: &Command) {
    match command {
        Command::Ehlo(name) | Command::Helo(name) => {
            assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b"<>()\",;@\\".contains(&b)), "{name:?}");
        }
        Command::Mail(mail) => {
            if let ReversePath::Mailbox(mailbox) = &mail.path {
                check_mailbox(mailbox);
                assert!(mail.smtputf8 || !mailbox.needs_smtputf8());
            }
            if let Some(envid) = &mail.envid {
                assert!(envid.len() <= 100 && is_word(envid), "{envid:?}");
            }
        }
        Command::Rcpt(rcpt) => {
            match &rcpt.to {
                To::Mailbox(mailbox) => {
                    check_mailbox(mailbox);
                    assert!(rcpt.utf8 || !mailbox.needs_smtputf8());
                }
                To::Postmaster(local) => assert!(local.eq_ignore_ascii_case("postmaster")),
            }
            if let Some(orcpt) = &rcpt.orcpt {
                assert!(orcpt.len() <= 500 && orcpt.contains(';') && (rcpt.utf8 || is_word(orcpt)));
            }
        }
        Command::Auth { mechanism, initial } => {
            assert!(is_word(mechanism) && *mechanism == mechanism.to_ascii_uppercase());
            assert!(initial.as_ref().is_none_or(|initial| is_word(initial)));
        }
        _ => {}
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}
