//! The commands. One file each under `cli/`.

pub mod check;
mod logging;
mod serve;

use crate::config::Mode;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Serves the files of container images and OCI artifacts over HTTP.
#[derive(Parser)]
#[command(name = "blobserve", version, about)]
struct Arguments {
    #[command(flatten)]
    logging: logging::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve images over HTTP.
    Serve {
        /// Configuration file, YAML or JSON.
        #[arg(short, long, env = "BLOBSERVE_CONFIG")]
        config: PathBuf,
        /// Address to listen on, instead of the configuration's: `host:port` or `:port`.
        #[arg(short, long, env = "BLOBSERVE_ADDRESS")]
        address: Option<String>,
    },
    /// Serve images as existing installations start it: their configuration file, their defaults.
    Run {
        /// Configuration file, JSON or YAML.
        config: PathBuf,
        /// Address to listen on, instead of the configuration's: `host:port` or `:port`.
        #[arg(short, long, env = "BLOBSERVE_ADDRESS")]
        address: Option<String>,
    },
    /// Say what is wrong with a configuration file, without starting.
    Check {
        /// Configuration file, YAML or JSON.
        #[arg(short, long, env = "BLOBSERVE_CONFIG")]
        config: PathBuf,
        /// The command that the file is for.
        #[arg(long, value_enum, default_value_t = CheckMode::Serve)]
        mode: CheckMode,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum CheckMode {
    Serve,
    Run,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Serve { config, address } => {
            arguments.logging.start(Mode::Serve);
            serve::serve(&config, Mode::Serve, address.as_deref())
        }
        Command::Run { config, address } => {
            arguments.logging.start(Mode::Run);
            serve::serve(&config, Mode::Run, address.as_deref())
        }
        Command::Check {
            config,
            mode: CheckMode::Serve,
        } => check::check(&config, Mode::Serve),
        Command::Check {
            config,
            mode: CheckMode::Run,
        } => check::check(&config, Mode::Run),
    }
}
