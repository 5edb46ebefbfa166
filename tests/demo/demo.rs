//! `cargo run --example demo`: what stsrelay does, seen in some seconds, without root and without network.
//!
//! A small Internet on loopback (name server, policy hosts, good and bad MX hosts), the real daemon in front
//! of it. Mail goes to each domain; a table shows what was delivered, what was not and why, asked of the
//! daemon (`stsrelay evidence`) and of the hosts, and what tomorrow's TLS reports will say. `--stay` leaves
//! it all running, to look around with the command line and the status page.
//!
//! Given a verb, this program is stsrelay itself: that is how it starts the daemon.

#[path = "../support/mod.rs"]
mod support;

mod internet;
mod scenes;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use internet::Internet;
use scenes::{Became, SCENES};

const HELP: &str = "\
A small Internet on loopback with stsrelay in front: sends mail, shows what became of it and why.

Usage: cargo run --example demo [-- --stay]

  --stay   leave everything running until Ctrl-C, to look around
  VERB     any verb of stsrelay, for example: queue list --config FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let stay = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["--stay"] => true,
        ["--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            return match stsrelay::cli::run(std::env::args_os()) {
                Ok(exit) => exit.into(),
                Err(failure) => {
                    failure.print();
                    failure.exit.into()
                }
            };
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the demo cannot begin: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(play(stay))
}

async fn play(stay: bool) -> ExitCode {
    let began = Instant::now();
    println!("Bringing up name server, policy hosts, {} MX hosts and the daemon ...", scenes::hosts());
    let mut internet = Internet::start().await;
    println!("Sending a message to each of {} domains ...", SCENES.len());
    let mut seen = internet.send_to_all().await;
    println!("An attacker takes over DNS, policy host and the line of enforce.test; one message more ...");
    seen.push(internet.attack().await);
    let bounces = internet.bounces(&seen).await;

    println!("\n{}", table::mail(&seen));
    println!("{}", table::bounces(&bounces));
    println!("{}", table::reports(&internet.reports().await));
    let wrong: Vec<&str> =
        seen.iter().filter(|seen| seen.became != seen.expected).map(|seen| seen.domain).collect();
    let refused = seen.iter().filter(|seen| seen.became == Became::Waits);
    let leaked = refused.filter(|seen| seen.host_saw_envelope).count();
    println!("Done in {:.1} s.", began.elapsed().as_secs_f64());
    if !wrong.is_empty() || leaked > 0 {
        eprintln!("Not as it should be: {wrong:?}; {leaked} hosts saw mail they must not see.");
        return ExitCode::FAILURE;
    }
    if stay {
        internet.stay().await;
    } else {
        println!("Look around yourself: cargo run --example demo -- --stay");
    }
    ExitCode::SUCCESS
}
