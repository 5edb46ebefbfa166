//! `stsrelay generate`: manual pages and shell completions, made of the command line's definition and of the
//! configuration reference; for those who make packages, and therefore not in `--help`.
//!
//! Never touches anything but the folder it is given.

mod reference;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, line_break, roman};

use super::{Cli, Exit, Failure, output::Output};

/// Commands of an administrator (man-pages(7)).
const SECTION: &str = "8";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write a manual page for each verb, and stsrelay.toml(5)
    Man {
        /// The folder for them; made if it is missing
        folder: PathBuf,
    },
    /// Write completions for bash, zsh and fish
    Completions {
        /// The folder for them; made if it is missing
        folder: PathBuf,
    },
}

pub(super) fn run(verb: &Verb) -> Result<Exit, Failure> {
    let (folder, written) = match verb {
        Verb::Man { folder } => (folder, manual(folder)),
        Verb::Completions { folder } => (folder, completions(folder)),
    };
    let written = written.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write to {}: {error}", folder.display()))
    })?;
    let mut out = Output::new();
    for path in written {
        out.line(&path.display().to_string())?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

/// The whole command line, each verb knowing its full name and the options it has of those above it.
fn command() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every verb that `--help` shows, the program itself first.
fn shown(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    std::iter::once(command).chain(below.flat_map(shown)).collect()
}

/// `stsrelay-queue-list`, once [`command`] has built it.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn manual(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let command = command();
    let mut written = Vec::new();
    for verb in shown(&command) {
        let path = folder.join(format!("{}.{SECTION}", name(verb)));
        fs::write(&path, page(verb)?)?;
        written.push(path);
    }
    let path = folder.join("stsrelay.toml.5");
    fs::write(&path, reference::page())?;
    written.push(path);
    Ok(written)
}

fn page(verb: &Command) -> io::Result<Vec<u8>> {
    let source = concat!("stsrelay ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(verb.clone()).section(SECTION).source(source).manual("stsrelay");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut more = Roff::new();
    if verb.get_name() == "stsrelay" {
        more.control("SH", ["EXIT STATUS"]);
        for (code, meaning) in [
            ("0", "done"),
            ("1", "a negative answer: a failing check, nothing found under the id or name asked for"),
            ("2", "the daemon cannot be reached, or the operation failed"),
            ("64", "wrong arguments"),
            ("78", "wrong configuration"),
        ] {
            more.control("TP", []).text([bold(code)]).text([roman(meaning)]);
        }
        more.control("SH", ["FILES"]);
        for (file, meaning) in [
            ("/etc/stsrelay/stsrelay.toml", "the configuration"),
            ("/etc/stsrelay/stsrelay.d/*.toml", "more of it, read after that file in the order of names"),
            ("/var/lib/stsrelay", "queue, policies, report tallies and evidence"),
            ("/run/stsrelay/admin.sock", "where these commands reach the daemon"),
        ] {
            more.control("TP", []).text([bold(file)]).text([roman(meaning)]);
        }
        more.control("SH", ["SIGNALS"]);
        more.text([bold("SIGHUP"), roman(": configuration, certificates and users are read again.")]);
        more.text([line_break()]);
        more.text([bold("SIGTERM"), roman(": no new work; what is under way may end within 30 seconds.")]);
    }
    more.control("SH", ["SEE ALSO"]);
    let mut also: Vec<String> = match verb.get_name() {
        "stsrelay" => {
            verb.get_subcommands().filter(|verb| !verb.is_hide_set()).map(|v| name(v).into()).collect()
        }
        _ => vec!["stsrelay".to_owned()],
    };
    also.sort();
    let mut line = Vec::new();
    for name in also {
        line.extend([bold(name), roman(format!("({SECTION}), "))]);
    }
    line.extend([bold("stsrelay.toml"), roman("(5)")]);
    more.text(line);
    page.extend_from_slice(more.render().as_bytes());
    Ok(page)
}

fn completions(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let mut command = Cli::command();
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| clap_complete::generate_to(shell, &mut command, "stsrelay", folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_names_its_options() {
        let folder = tempfile::tempdir().unwrap();
        let written = manual(folder.path()).unwrap();
        let command = command();
        let verbs = shown(&command);
        assert!(verbs.len() > 30 && written.len() == verbs.len() + 1, "{written:?}");
        for verb in verbs {
            let file = folder.path().join(format!("{}.8", name(verb)));
            let page = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no page: {}", file.display()));
            assert!(page.contains(".SH NAME\n") && page.contains(".SH \"SEE ALSO\"\n"), "{page}");
            for option in verb.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let long = option.get_long().unwrap_or_default().replace('-', "\\-");
                assert!(page.contains(&long), "{} says nothing of {option}", file.display());
            }
        }
        assert!(folder.path().join("stsrelay-queue-list.8").exists());
        assert!(!folder.path().join("stsrelay-generate.8").exists(), "it is hidden");
    }

    #[test]
    fn completions_know_verbs_and_options() {
        let folder = tempfile::tempdir().unwrap();
        let written = completions(folder.path()).unwrap();
        assert_eq!(written.len(), 3);
        for path in written {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["queue", "recipient-domain", "explain"] {
                assert!(text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}
