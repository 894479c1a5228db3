//! The `greenroom` binary: reads the command line, tells what went wrong.

mod cli;
mod launch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Serves models and actors: backends, replicas, batching and traffic from one configuration file.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves what a configuration file declares, until SIGTERM, Ctrl-C or `greenroom shutdown`.
    Run {
        /// The configuration file.
        #[arg(default_value = "greenroom.yaml")]
        file: PathBuf,
    },
    #[command(flatten)]
    Steer(cli::Verb),
}

/// Exit code 0: ended in order; 1: refused or failed; 2, by clap: the command line is wrong.
fn main() -> ExitCode {
    let file = match Cli::parse().command {
        Command::Run { file } => file,
        Command::Steer(verb) => return cli::run(verb),
    };
    match actix_web::rt::System::new().block_on(launch::run(&file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenroom: {error}");
            ExitCode::FAILURE
        }
    }
}
