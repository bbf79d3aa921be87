//! `status`: what an agent says of itself.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json};
use super::tables::clean;
use clap::Args;
use serde_json::Value;
use triton::cli::status::describe;

/// Asks an agent that is up for its own state, as `triton status` shows it there.
#[derive(Args)]
pub(super) struct Status {
    /// NAME or NAME/INSTANCE of the device
    name: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let path = format!("/agents/{}/status", segment(&self.name));
        let status: Value = client.get(&path).await?;
        if self.json {
            return print_json(&status);
        }
        let said = describe(&status);
        print(
            &said
                .lines()
                .map(|line| clean(line) + "\n")
                .collect::<String>(),
        )
    }
}
