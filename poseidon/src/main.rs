//! The `poseidon` command.

fn main() -> std::process::ExitCode {
    poseidon::cli::main()
}
