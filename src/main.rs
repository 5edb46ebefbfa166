//! The `stsrelay` binary: hands the arguments to the library, prints what went wrong, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    match stsrelay::cli::run(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}
