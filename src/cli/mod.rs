//! The command line: one file per verb. Verbs talk to the daemon over its admin socket or work
//! offline; they return what happened, and `main` prints errors and exits.

mod changes;
mod check;
mod config;
mod evidence;
mod explain;
mod generate;
mod logging;
mod output;
mod policy;
mod publish;
mod queue;
mod report;
mod serve;
mod since;
mod status;
mod suppression;
mod user;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin::client::{Client, ClientError};
use crate::admin::protocol::Answer;
use crate::config::{ConfigError, Loaded, Sources};

/// Exit codes; scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Fine = 0,
    /// A negative answer: a failing check, nothing found under the id or name asked for.
    Negative = 1,
    /// The daemon cannot be reached, or the operation failed.
    Failed = 2,
    /// Wrong arguments (EX_USAGE).
    Usage = 64,
    /// Wrong configuration (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb ended early.
#[derive(Debug)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    message: Message,
}

#[derive(Debug)]
enum Message {
    Lines(Vec<String>),
    Usage(clap::Error),
}

impl Failure {
    fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, message: Message::Lines(vec![line.into()]) }
    }

    fn config(errors: Vec<ConfigError>) -> Self {
        let lines = errors.iter().map(ToString::to_string).collect();
        Self { exit: Exit::Config, message: Message::Lines(lines) }
    }

    /// Prints it on standard error, one line per error (help goes to standard output).
    pub fn print(&self) {
        match &self.message {
            // clap decides between the two streams; a closed one is not worth a panic.
            Message::Usage(error) => drop(error.print()),
            Message::Lines(lines) => output::errors(lines),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(vec![error])
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot write the output: {error}"))
    }
}

/// Outbound mail relay that enforces MTA-STS, keeps every accepted message and sends TLS-RPT reports.
#[derive(Debug, Parser)]
#[command(name = "stsrelay", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Where the configuration is, for every verb.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// Configuration file [default: /etc/stsrelay/stsrelay.toml]
    ///
    /// Files `NAME.d/*.toml` beside `NAME.toml` are read after it, then environment variables
    /// STSRELAY_SECTION__KEY.
    #[arg(long = "config", value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// Set one key, above all files: --set log.level=debug
    #[arg(long, value_name = "SECTION.KEY=VALUE", global = true)]
    set: Vec<String>,
}

impl ConfigArgs {
    fn sources(&self) -> Sources {
        Sources::of_process(self.file.clone(), self.set.clone())
    }

    fn load(&self) -> Result<Loaded, Failure> {
        Ok(self.sources().load()?)
    }

    /// A connection to the daemon this configuration is of.
    fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.load()?.config.admin.socket)?)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Serve,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::Verb),
    /// Look at the queue and change it
    #[command(subcommand)]
    Queue(queue::Verb),
    /// Look at cached MTA-STS policies, fetch them anew, forget them
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Show how the daemon is: release, readiness, storage, DNSSEC, listeners
    ///
    /// Exit status 1 while it takes no mail.
    Status(JsonArg),
    /// Explain what would become of mail to an address now, and why
    ///
    /// The daemon tells what it would do: MX records and their DNSSEC status, MTA-STS record and policy
    /// (fetched if it is not in the cache), local rules, and the verdict on each host with the rule
    /// behind it.
    Explain(explain::Arguments),
    /// Show how a message travelled: policy, TLSA records, certificates, TLS, verdict and reply
    ///
    /// By Message-ID or queue id, or all attempts to a domain or within a time, oldest first. Kept as long
    /// as `evidence.keep` says. Exit status 1 when nothing is known.
    #[command(
        override_usage = "stsrelay evidence [OPTIONS] <MESSAGE-ID|QUEUE-ID|--recipient-domain ...|--since ...>"
    )]
    Evidence(evidence::Arguments),
    /// Check what a domain publishes for MTA-STS and TLS-RPT, as its owner would
    ///
    /// Needs no daemon: asks DNS and the policy host, and lists findings, the worst first. Exit status 1
    /// when one is HIGH, 2 when DNS does not answer.
    Check(check::Arguments),
    /// Print what a domain's owner has to publish: TXT records, policy file, web server snippets
    ///
    /// Nothing is changed anywhere. Warns when the hosts given and the MX records in DNS differ.
    Publish(publish::Arguments),
    /// Look at outgoing TLS reports, send them now
    #[command(subcommand)]
    Report(report::Verb),
    /// Look at recipients mail to whom is suppressed since they bounced, and change the list
    #[command(subcommand)]
    Suppression(suppression::Verb),
    /// Make lines for the users file
    #[command(subcommand)]
    User(user::Verb),
    /// Write manual pages or shell completions, for packages
    #[command(subcommand, hide = true)]
    Generate(generate::Verb),
}

/// `--json`, for every listing.
#[derive(Debug, Clone, Copy, Args)]
struct JsonArg {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs one command.
///
/// # Errors
/// [`Failure`] carries the exit code and what to print.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<Exit, Failure> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| Failure {
        exit: if error.use_stderr() { Exit::Usage } else { Exit::Fine },
        message: Message::Usage(error),
    })?;
    match cli.verb {
        Verb::Serve => serve::run(&cli.config),
        Verb::Config(verb) => config::run(&verb, &cli.config),
        Verb::Queue(verb) => queue::run(verb, &cli.config),
        Verb::Policy(verb) => policy::run(verb, &cli.config),
        Verb::Status(json) => status::run(json, &cli.config),
        Verb::Explain(arguments) => explain::run(arguments, &cli.config),
        Verb::Evidence(arguments) => evidence::run(&arguments, &cli.config),
        Verb::Check(arguments) => check::run(&arguments, &cli.config),
        Verb::Publish(arguments) => publish::run(arguments, &cli.config),
        Verb::Report(verb) => report::run(verb, &cli.config),
        Verb::Suppression(verb) => suppression::run(verb, &cli.config),
        Verb::User(verb) => user::run(&verb),
        Verb::Generate(verb) => generate::run(&verb),
    }
}

/// What every verb does with an answer it did not ask for.
fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Nothing { text } => Failure::new(Exit::Negative, text),
        Answer::Failed { text } => Failure::new(Exit::Failed, text),
        _ => Failure::new(Exit::Failed, "the daemon answered something else than was asked"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
