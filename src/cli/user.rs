//! `stsrelay user hash`: lines for the users file. Works offline; the password comes from standard
//! input, never from an argument that other users could see in the process list.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use clap::Subcommand;

use super::{Exit, Failure, output::Output};
use crate::submission::{hash_password, scram_accepts, scram_password};

/// Octets of a password at most.
const PASSWORD_BYTES_MAX: usize = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Read a password from standard input and print `NAME:argon2id-hash`
    Hash {
        /// Print a second line, `NAME:{SCRAM-SHA-256}...`, so that SCRAM can be used too
        #[arg(long)]
        scram: bool,
        /// The name users log in with, for example app@example.org
        name: String,
    },
}

pub(super) fn run(verb: &Verb) -> Result<Exit, Failure> {
    let Verb::Hash { name, scram } = verb;
    // What a users file cannot hold: blanks, and a line that starts as a comment does.
    let blank = |c: char| c.is_control() || c.is_whitespace();
    if name.is_empty() || name.starts_with('#') || name.contains(blank) {
        return Err(Failure::new(Exit::Usage, format!("{name:?} cannot be a user's name")));
    }
    let password = read_password()?;
    let mut out = Output::new();
    out.line(&format!("{name}:{}", hash_password(&password)))?;
    if *scram {
        if !scram_accepts(&password) {
            return Err(Failure::new(
                Exit::Usage,
                "SCRAM cannot use this password: it has characters that RFC 4013 forbids",
            ));
        }
        out.line(&format!("{name}:{}", scram_password(&password)))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn read_password() -> Result<String, Failure> {
    let terminal = io::stdin().is_terminal();
    if terminal {
        let _ = write!(io::stderr(), "Password: ");
        echo(false);
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if terminal {
        echo(true);
        let _ = writeln!(io::stderr());
    }
    read.map_err(|error| Failure::new(Exit::Failed, format!("cannot read the password: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    match password.len() {
        0 => Err(Failure::new(Exit::Usage, "no password on standard input")),
        1..=PASSWORD_BYTES_MAX => Ok(password.to_owned()),
        _ => {
            Err(Failure::new(Exit::Usage, format!("the password is longer than {PASSWORD_BYTES_MAX} octets")))
        }
    }
}

/// Without `stty` the password is seen while it is typed; it works all the same.
fn echo(on: bool) {
    let mode = if on { "echo" } else { "-echo" };
    let _ = Command::new("stty").arg(mode).stdin(Stdio::inherit()).status();
}
