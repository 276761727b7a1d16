//! The `blobserve` binary: a thin user of the library, see [`blobserve::cli`].

fn main() -> std::process::ExitCode {
    blobserve::cli::main()
}
