//! The commands. One file each under `cli/`.

pub mod check;
mod images;
mod logging;
mod serve;

use crate::config::Mode;
use crate::images::Command as Catalogue;
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
    /// List the images that are known.
    Images {
        #[command(flatten)]
        blobspace: BlobspaceOptions,
    },
    /// Look at one image, remove it, or keep it from eviction.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
}

#[derive(Subcommand)]
enum ImageCommand {
    /// All that is known of an image.
    Show(ImageArguments),
    /// Remove a reference; the image goes with its last one.
    Rm(ImageArguments),
    /// Keep an image from eviction.
    Pin(ImageArguments),
    /// Let an image be evicted again.
    Unpin(ImageArguments),
}

#[derive(clap::Args)]
struct ImageArguments {
    /// A reference (`registry/repository:tag`, `…@sha256:…`), or an image's ID or its beginning.
    #[arg(value_name = "REF-OR-ID")]
    image: String,
    #[command(flatten)]
    blobspace: BlobspaceOptions,
}

#[derive(clap::Args)]
struct BlobspaceOptions {
    /// Configuration file of the server, YAML or JSON: it says where the blobspace is.
    #[arg(short, long, env = "BLOBSERVE_CONFIG")]
    config: PathBuf,
    /// The command that the file is for.
    #[arg(long, value_enum, default_value_t = CheckMode::Serve)]
    mode: CheckMode,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl BlobspaceOptions {
    fn execute(&self, command: &Catalogue) -> ExitCode {
        images::images(&self.config, self.mode.into(), command, self.json)
    }
}

impl From<CheckMode> for Mode {
    fn from(mode: CheckMode) -> Mode {
        match mode {
            CheckMode::Serve => Mode::Serve,
            CheckMode::Run => Mode::Run,
        }
    }
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
        Command::Check { config, mode } => check::check(&config, mode.into()),
        Command::Images { blobspace } => blobspace.execute(&Catalogue::List),
        Command::Image { command } => {
            let (make, arguments): (fn(String) -> Catalogue, _) = match command {
                ImageCommand::Show(arguments) => (Catalogue::Show, arguments),
                ImageCommand::Rm(arguments) => (Catalogue::Rm, arguments),
                ImageCommand::Pin(arguments) => (Catalogue::Pin, arguments),
                ImageCommand::Unpin(arguments) => (Catalogue::Unpin, arguments),
            };
            arguments.blobspace.execute(&make(arguments.image))
        }
    }
}
