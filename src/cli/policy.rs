//! `stsrelay policy ...`: the MTA-STS policies the daemon holds.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::explain::local_text;
use super::output::{Output, Table, instant, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, changes, output, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::policies::{ForgottenView, PolicyView, RefreshView};
use crate::admin::protocol::{Answer, Request};
use crate::delivery::explain::facts::LocalFacts;
use crate::mail::Domain;
use crate::net::{Clock as _, SystemClock};
use crate::sts::{CachedPolicy, Mode};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what is known of one domain
    Show(One),
    /// List all policies held
    List(JsonArg),
    /// Ask DNS and the policy host anew, now
    Refresh(One),
    /// Drop what is known; the next message asks anew
    Forget(One),
    /// List destinations that protect their mail less than they did
    ///
    /// Policies that were weakened, withdrawn, not fetched again or ran out, TLSA records and DNSSEC
    /// signatures that went, oldest first; the last 10000.
    Changes(changes::Arguments),
}

/// One domain.
#[derive(Debug, Clone, Args)]
pub(super) struct One {
    /// The policy domain: the part of an address after @
    domain: Domain,
    #[command(flatten)]
    json: JsonArg,
}

/// For people.
struct Words<'a>(&'a PolicyView);

impl Words<'_> {
    fn mode_name(&self) -> &'static str {
        match self.0.mode {
            Some(Mode::Enforce) => "enforce",
            Some(Mode::Testing) => "testing",
            Some(Mode::None) => "none",
            None => "-",
        }
    }

    fn lines(&self, now: Timestamp) -> Vec<String> {
        let view = self.0;
        let mut lines = vec![view.domain.to_string()];
        if let (Some(id), Some(max_age), Some(fetched), Some(expires), Some(refresh)) =
            (&view.id, view.max_age, view.fetched_at, view.expires_at, view.refresh_at)
        {
            lines.push(format!("  mode      {}", self.mode_name()));
            lines.push(format!("  id        {id}"));
            lines.extend(wrap("  mx        ", &view.mx.join(" ")));
            lines.push(format!("  max_age   {max_age} seconds"));
            lines.push(format!("  fetched   {} ({})", instant(fetched), relative(fetched, now)));
            let over = if view.expired { ", expired: it does not apply" } else { "" };
            lines.push(format!("  expires   {} ({}){over}", instant(expires), relative(expires, now)));
            lines.push(format!("  refetch   {} ({})", instant(refresh), relative(refresh, now)));
        } else {
            lines.push("  no policy is held".to_owned());
        }
        if let Some(trouble) = &view.trouble {
            let text = format!(
                "{} ({}), {} in a row: {}",
                instant(trouble.at),
                relative(trouble.at, now),
                trouble.count,
                trouble.text
            );
            lines.extend(wrap("  trouble   ", &text));
        }
        if let Some(local) = &view.local {
            lines.extend(wrap("  rule      ", &local_text(local)));
        }
        lines
    }
}

pub(super) fn run(verb: Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let mut daemon = args.connect()?;
    match verb {
        Verb::Show(one) => {
            let (entries, local) = match daemon.ask(Request::PolicyShow { domain: one.domain })? {
                Answer::Policies { entries, local, .. } => (entries, local),
                other => return Err(unexpected(other)),
            };
            print(&entries, local.as_ref(), one.json.json)
        }
        Verb::List(json) => list(&mut daemon, json.json),
        Verb::Changes(arguments) => changes::run(arguments, &mut daemon),
        Verb::Refresh(one) => refresh(&mut daemon, one),
        Verb::Forget(one) => match daemon.ask(Request::PolicyForget { domain: one.domain.clone() })? {
            Answer::Changed { .. } => {
                let mut out = Output::new();
                if one.json.json {
                    out.json(&ForgottenView { domain: one.domain, forgotten: true })?;
                } else {
                    out.line(&format!("the policy of {} is forgotten", one.domain))?;
                }
                out.finish()?;
                Ok(Exit::Fine)
            }
            other => Err(unexpected(other)),
        },
    }
}

fn print(entries: &[CachedPolicy], local: Option<&LocalFacts>, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    for entry in entries {
        let view = PolicyView { local: local.cloned(), ..PolicyView::new(entry, now) };
        if as_json {
            out.json(&view)?;
        } else {
            Words(&view).lines(now).iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn list(daemon: &mut Client, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut table = Table::new(&["DOMAIN", "MODE", "ID", "FETCHED", "EXPIRES", "TROUBLE"], 0);
    let mut last = None;
    loop {
        let (entries, more) = match daemon.ask(Request::PolicyList { after: last.take() })? {
            Answer::Policies { entries, more, .. } => (entries, more),
            other => return Err(unexpected(other)),
        };
        for entry in &entries {
            let view = PolicyView::new(entry, now);
            if as_json {
                out.json(&view)?;
            } else {
                table.row(
                    vec![
                        view.domain.to_string(),
                        Words(&view).mode_name().to_owned(),
                        view.id.unwrap_or_else(|| "-".to_owned()),
                        view.fetched_at.map_or_else(|| "-".to_owned(), |at| relative(at, now)),
                        view.expires_at.map_or_else(|| "-".to_owned(), |at| relative(at, now)),
                        view.trouble.as_ref().map_or_else(|| "-".to_owned(), |t| format!("{}x", t.count)),
                    ],
                    view.trouble.map(|trouble| trouble.text),
                );
            }
        }
        last = entries.last().map(|entry| entry.domain.clone());
        if !more || last.is_none() {
            break;
        }
    }
    if !as_json {
        if table.is_empty() {
            out.line("no policies are held")?;
        } else {
            table.lines().iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn refresh(daemon: &mut Client, one: One) -> Result<Exit, Failure> {
    output::progress(&format!("asking for the policy of {} ...", one.domain));
    let domain = one.domain.clone();
    let (record, fetch, entry) = match daemon.ask(Request::PolicyRefresh { domain: one.domain })? {
        Answer::Refreshed { record, fetch, entry } => (record, fetch, entry),
        other => return Err(unexpected(other)),
    };
    let now = SystemClock.now();
    let failed = matches!(fetch, Some(Err(_)));
    let mut out = Output::new();
    if one.json.json {
        out.json(&RefreshView::new(domain, record, fetch, entry.as_deref(), now))?;
    } else {
        let record = record.map_or_else(|trouble| format!("none: {trouble}"), |id| format!("id {id}"));
        wrap(&format!("record _mta-sts.{domain}: "), &record).iter().try_for_each(|line| out.line(line))?;
        let fetched = match fetch {
            Some(Ok(mode)) => format!("a policy of mode {mode}"),
            Some(Err(trouble)) => format!("failed: {trouble}"),
            None => "not called for".to_owned(),
        };
        wrap("fetch: ", &fetched).iter().try_for_each(|line| out.line(line))?;
        if let Some(entry) = &entry {
            Words(&PolicyView::new(entry, now)).lines(now).iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(if failed { Exit::Negative } else { Exit::Fine })
}
