//! The `triton` program: agent and command in one. All it does is in [`triton::cli`].

fn main() -> std::process::ExitCode {
    triton::cli::main()
}
