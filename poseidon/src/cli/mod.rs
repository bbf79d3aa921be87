//! The command: `poseidon serve`, and what talks to a running server.

mod acts;
mod bars;
mod batch;
mod batches;
pub mod client;
mod commands;
mod data;
mod doors;
mod each;
mod events;
mod follow;
mod history;
mod how;
mod jobs;
mod ls;
mod many;
mod metrics;
mod modules;
mod once;
mod pinned;
mod place;
mod printer;
mod progress;
mod pull;
mod push;
mod run;
mod schedule;
mod scripts;
mod serve;
mod set;
mod status;
mod tables;
mod trust;
mod update;
mod upload;

pub(crate) use commands::describe;
pub(crate) use jobs::outcome;
pub(crate) use tables::clean;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use client::Client;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The central instance for Triton agents.
#[derive(Parser)]
#[command(name = "poseidon", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

/// How the commands find the server.
#[derive(Args, Clone)]
// Backticks would show in the help.
#[allow(clippy::doc_markdown)]
struct Reach {
    /// Address of the server; without it, the one that runs on the data folder
    #[arg(long, global = true, env = "POSEIDON_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the token; else POSEIDON_TOKEN holds the token, else it is in the data folder
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates of an own authority, PEM; without it, and without --url, the server has the certificate that the data folder tells
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The data folder
    #[arg(
        long,
        global = true,
        env = "POSEIDON_DATA",
        value_name = "DIR",
        default_value = "./poseidon-data"
    )]
    data: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Serve),
    /// Show Poseidon at work: a server, a real agent, a command, the page
    Demo(crate::demo::Demo),
    /// Become the demo's agent, which ends with the demo
    #[command(hide = true)]
    DemoAgent(crate::demo::Become),
    /// List the identifiers that tried to connect and wait for approval
    Pending {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a pending identifier in
    Approve {
        /// Its ID as `pending` shows it, any beginning of at least 4 digits
        id: String,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// Given to its agents; can be repeated
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = commands::pair)]
        attributes: Vec<(String, String)>,
        /// The key to pin, by its id, where several devices have come with this identifier
        #[arg(long, value_name = "KEYID")]
        key: Option<String>,
        /// Let it in with any key
        #[arg(long, conflicts_with = "key")]
        no_pin: bool,
    },
    /// Keep an identifier out, and out of the pending list
    Refuse {
        /// Its ID, any beginning of at least 4 digits
        id: String,
    },
    /// Register an identifier before its first connection
    Register(commands::Register),
    /// Change name, attributes or heartbeat of a registered identifier
    Set(set::Set),
    /// List registered and refused identifiers
    Identifiers {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget an agent that is down, or an identifier with all its agents
    Forget {
        /// An agent's name, NAME or NAME/INSTANCE
        #[arg(required_unless_present = "identifier")]
        name: Option<String>,
        /// An identifier's ID: its agents are disconnected
        #[arg(long, value_name = "ID", conflicts_with = "name")]
        identifier: Option<String>,
    },
    /// List the agents
    Agents {
        /// Only those that a selector means, as for `run`; can be repeated
        #[arg(long, value_name = "SELECTOR")]
        on: Vec<String>,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one agent with its health
    Show {
        /// NAME or NAME/INSTANCE
        name: String,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask one agent for its own state: link, trust, journal, jobs, plugins, events, policy
    Status(status::Status),
    /// Run a command on agents and stream its output
    #[command(after_help = run::EXIT_CODES)]
    Run(run::Run),
    /// Fetch a file or a folder of a device, with its permissions (never setuid, setgid or sticky) and modification time
    Pull(pull::Pull),
    /// Put a file or a folder onto devices
    Push(push::Push),
    /// List a folder of a device
    Ls(ls::Ls),
    /// Run a script of the devices' own repository: NAME… -- SCRIPT [ARG…]
    Script(acts::Script),
    /// Have agents read their configuration anew
    Reload(acts::Act),
    /// Have agents start anew
    Restart(acts::Act),
    /// Have agents end
    Exit(acts::Act),
    /// Reboot devices
    Reboot(acts::GraveAct),
    /// Shut devices down
    Shutdown(acts::GraveAct),
    /// Give agents a new program, which proves itself or goes
    Update(update::Update),
    /// Make a key that signs new programs, or show its public part
    SigningKey(update::SigningKey),
    /// Write a command into the pipe of a monitoring engine
    Engine(acts::Engine),
    /// List what was asked of several devices at once, newest first
    Batches(batches::Batches),
    /// Show a batch and its devices, cancel it, or ask those again that failed or were down
    Batch(batches::Show),
    /// Cancel a job
    Cancel {
        /// The job's ID
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        job: String,
        /// Seconds between SIGTERM and SIGKILL
        #[arg(long, value_name = "SECONDS")]
        grace: Option<f64>,
    },
    /// List jobs, newest first
    Jobs(jobs::Jobs),
    /// Show one job
    Job {
        /// The job's ID
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        job: String,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a job's output
    Output(run::Output),
    /// Print what devices have recorded: jobs, their ends, stored values, oldest first
    History(history::History),
    /// Print the CEF events of devices, oldest first; how they go to the SIEM
    Events(events::Events),
    /// Show what a device's heartbeats said over time
    Metrics(metrics::Metrics),
    /// Scripts of a device: put, list, show, compare, revert
    Scripts(scripts::Scripts),
    /// Data given to a device: files, values, secrets
    Data(data::Data),
    /// Keys: Poseidon's own, and those by which devices are known
    Trust(trust::Trust),
    /// What devices run by their own clocks: set, list, take away
    Schedule(schedule::Schedule),
    /// Tokens for people and programs: what each may, and on which devices
    Tokens(doors::Tokens),
    /// What was done, by whom, from where, newest first
    Audit(doors::Audit),
    /// The key that secrets are encrypted with
    Secrets(doors::Secrets),
    /// The plugins of a device: show them, end one, start one
    Modules(modules::Modules),
    /// Ask plugins of devices for something: --type TYPE --payload JSON
    Ask(acts::Ask),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return tell(&told),
    };
    let level = match &cli.command {
        Command::Serve(_) => log::LevelFilter::Info,
        _ => log::LevelFilter::Warn,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_env("POSEIDON_LOG")
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("cannot start: {e}")),
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|e| fail(&e));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    code
}

/// What the command line comes to where it names no command to run: help, the version, or what is wrong with it.
fn tell(told: &clap::Error) -> ExitCode {
    let printed = told.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe && !told.use_stderr() => {
            fail(&format!("cannot write to standard output: {e}"))
        }
        _ => u8::try_from(told.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn fail(reason: &str) -> ExitCode {
    progress::clear();
    eprintln!("poseidon: {reason}");
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> Result<ExitCode, String> {
    let Cli { reach, command } = cli;
    let client = || Client::find(&reach);
    match command {
        Command::Serve(serve) => serve.run(reach.data).await,
        Command::Demo(demo) => demo.run().await,
        Command::DemoAgent(agent) => agent.run(),
        Command::Pending { json } => commands::pending(&client()?, json).await,
        Command::Approve {
            id,
            name,
            attributes,
            key,
            no_pin,
        } => commands::approve(&client()?, &id, name, attributes, key, no_pin).await,
        Command::Refuse { id } => commands::refuse(&client()?, &id).await,
        Command::Register(register) => register.run(&client()?).await,
        Command::Set(set) => set.run(&client()?).await,
        Command::Identifiers { json } => commands::identifiers(&client()?, json).await,
        Command::Forget { name, identifier } => {
            commands::forget(&client()?, name, identifier).await
        }
        Command::Agents { on, json } => commands::agents(&client()?, &on, json).await,
        Command::Show { name, json } => commands::show(&client()?, &name, json).await,
        Command::Run(run) => run.run(&client()?).await,
        Command::Pull(pull) => pull.run(&client()?).await,
        Command::Push(push) => push.run(&client()?).await,
        Command::Ls(ls) => ls.run(&client()?).await,
        Command::Script(script) => script.run(&client()?).await,
        Command::Reload(act) => act.run(&client()?, "agent.reload").await,
        Command::Restart(act) => act.run(&client()?, "agent.restart").await,
        Command::Exit(act) => act.run(&client()?, "agent.exit").await,
        Command::Reboot(act) => act.run(&client()?, "system.reboot", "reboot").await,
        Command::Shutdown(act) => act.run(&client()?, "system.shutdown", "shut down").await,
        Command::Update(update) => update.run(&client()?).await,
        Command::SigningKey(key) => key.run(),
        Command::Engine(engine) => engine.run(&client()?).await,
        Command::Batches(batches) => batches.run(&client()?).await,
        Command::Batch(show) => show.run(&client()?).await,
        Command::Cancel { job, grace } => jobs::cancel(&client()?, &job, grace).await,
        Command::Jobs(jobs) => jobs.run(&client()?).await,
        Command::Job { job, json } => jobs::job(&client()?, &job, json).await,
        Command::Output(output) => output.run(&client()?).await,
        Command::History(history) => history.run(&client()?).await,
        Command::Events(events) => events.run(&client()?).await,
        Command::Metrics(metrics) => metrics.run(&client()?).await,
        Command::Scripts(scripts) => scripts.run(&client()?).await,
        Command::Data(data) => data.run(&client()?).await,
        Command::Trust(trust) => trust.run(&client()?).await,
        Command::Schedule(schedule) => schedule.run(&client()?).await,
        Command::Tokens(tokens) => tokens.run(&client()?).await,
        Command::Audit(audit) => audit.run(&client()?).await,
        Command::Secrets(secrets) => secrets.run(&reach.data),
        Command::Modules(modules) => modules.run(&client()?).await,
        Command::Status(status) => status.run(&client()?).await,
        Command::Ask(ask) => ask.run(&client()?).await,
    }
}

/// A length of time such as `90s`.
fn length(text: &str) -> Result<Duration, String> {
    triton::dates::length(text).ok_or_else(|| {
        "a number and s, m, h or d is expected, such as 90s, 15m, 12h, 3d".to_owned()
    })
}

/// A point in time, as a Unix time.
fn since(text: &str) -> Result<f64, String> {
    triton::dates::parse(text, crate::time::now()).ok_or_else(|| {
        "a Unix time, a date (2025-06-01), a date and time (2025-06-01T12:30:00Z) or an age (90s, 15m, 2h, 3d) is expected"
            .to_owned()
    })
}
