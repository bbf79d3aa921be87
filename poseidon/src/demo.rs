//! `poseidon demo`.

use clap::Args;
use std::process::ExitCode;

/// Options of the demo.
#[derive(Args)]
pub struct Demo {
    /// End after the story
    #[arg(long)]
    exit: bool,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, String> {
        Err("not yet".to_owned())
    }
}
