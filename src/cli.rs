//! The commands. One file each under `cli/`.

/// Parses the command line and runs the command.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
