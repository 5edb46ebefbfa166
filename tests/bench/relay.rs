//! How fast mail is taken and relayed, beside a floor and other mail servers, in one run:
//! `cargo bench --bench relay`; with Postfix: `integration/bench`.
//!
//! 200 recipient domains on 50 MX hosts, every one under an MTA-STS policy in enforce mode; the real
//! daemon with its durable queue, tallies, log and verified TLS. Rounds over the same load, interleaved,
//! as often as `REPEAT` says, then medians:
//!
//! - *floor-accept*, *floor*: a bare program that reads SMTP, appends, group-fdatasyncs and answers;
//!   *floor* also pushes each message over an open, verified connection;
//! - *relay*: the daemon with every host up, from the first submission to the last arrival;
//! - *accept*: the daemon with every host down; then they come up and the operator has the queue
//!   tried: *drain*;
//! - *stall*: one of 50 hosts says nothing any more; the rate of the others;
//! - *postfix*: what the program `PEER` starts (see `rounds::peer`).
//!
//! The hosts offer CHUNKING beside the rest, as Postfix's own server does; the daemon uses it, the floor and
//! the peer say DATA.
//!
//! Every round warms up first, so that figures are of steady state. `MESSAGES`, `CLIENTS`, `SIZE` in
//! the environment change the load, `ROUNDS` names the rounds wanted, `LOG` is the daemon's log level,
//! `STANDARD_PORTS=1` puts DNS, HTTPS and SMTP on their well-known ports. Load, MX hosts and DNS share
//! the machine with the daemon, so rates are lower bounds; CPU and memory are of the program alone, its
//! children included.

mod floor;
mod lines;
mod load;
mod place;
mod rounds;
mod sink;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod usage;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use rounds::Scale;
use table::Row;

/// Messages before anything is counted: several to every domain.
const WARM: u64 = 2000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let [word, file, roots, port] = arguments.as_slice()
        && word == "--floor"
    {
        let port = port.parse().expect("a port for the floor");
        runtime.block_on(floor::serve(file.into(), roots.as_ref(), port)).expect("the floor runs");
        return;
    }
    // `cargo test` runs benches once to see that they work: a small load then.
    let quick = !arguments.iter().any(|argument| argument == "--bench");
    let scale = Scale {
        messages: setting("MESSAGES", if quick { 200 } else { 20_000 }),
        warm: if quick { 20 } else { WARM },
        clients: setting("CLIENTS", if quick { 10 } else { 100 }) as usize,
        size: setting("SIZE", 10_000) as usize,
        standard_ports: setting("STANDARD_PORTS", 0) == 1,
    };
    let wanted = std::env::var("ROUNDS").unwrap_or_else(|_| "floor,relay,outage,stall,peer".to_owned());
    let peer = std::env::var("PEER").ok().map(PathBuf::from);
    println!(
        "{} messages of {} octets after {} to warm up, {} clients, {} domains on {} MX hosts, all enforce\n",
        scale.messages,
        scale.size,
        scale.warm,
        scale.clients,
        place::DOMAINS,
        place::HOSTS
    );
    table::head();
    let mut rows: Vec<Row> = Vec::new();
    runtime.block_on(async {
        for _ in 0..setting("REPEAT", 1) {
            for round in wanted.split(',') {
                let measured = match (round, &peer) {
                    ("floor", _) => rounds::floor(&scale).await,
                    ("relay", _) => rounds::relay(&scale).await,
                    ("outage", _) => rounds::outage(&scale).await,
                    ("stall", _) => rounds::stall(&scale).await,
                    ("peer", Some(program)) => rounds::peer(&scale, program, "postfix").await,
                    _ => continue,
                };
                measured.iter().for_each(Row::print);
                // The sockets of that world close when its tasks have ended.
                tokio::time::sleep(Duration::from_millis(200)).await;
                rows.extend(measured);
            }
        }
    });
    table::summary(&rows);
}
