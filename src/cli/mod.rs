//! The command line: one file per command. Each parses and prints, and calls one function of the library.
//!
//! Exit codes: 0 done; 1 failed, `verify` found differences, `doctor` what stops a run, or `wait` waited in vain; 2 the command line, the pipeline file or the environment is wrong.

mod config;
mod demo;
mod doctor;
mod generate;
mod global;
mod init;
mod locks;
mod metastore;
mod offsets;
mod page;
mod produce;
mod progress;
mod query;
mod reprocess;
mod reprocess_part;
mod run;
mod schema;
mod tables;
mod topic;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Context, Error, Kind, Result};
use crate::{telemetry, window};

use global::{GlobalArguments, Speaks};
use page::{is_broken_pipe, print_error};

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// A check found something: nothing failed, and the exit code says so.
    Differences,
}

/// Streams a Kafka topic into bronze, silver and gold tables on HDFS and a Hive Metastore, exactly once.
#[derive(Debug, Parser)]
#[command(name = "lakesmith", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  lakesmith demo                  try it: made-up sales, all layers in ./lakehouse, no server needed
  lakesmith init                  write a pipeline file to start from
  lakesmith config check          say what is wrong with it
  lakesmith doctor                look at everything that a run depends on
  lakesmith run                   run the pipeline until it is stopped
  lakesmith query \"SHOW TABLES\"   look at what it wrote
  lakesmith verify                compare the layers with each other

Without --config, the pipeline file is ./pipeline.toml, or else ./lakehouse/pipeline.toml, which the
demo writes.")]
struct Cli {
    #[command(flatten)]
    global: GlobalArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Run(run::Arguments),
    Init(init::Arguments),
    Config(config::Arguments),
    Doctor(doctor::Arguments),
    Generate(generate::Arguments),
    Produce(produce::Arguments),
    Topic(topic::Arguments),
    Query(query::Arguments),
    Tables(tables::Arguments),
    Schema(schema::Arguments),
    Verify(verify::Arguments),
    Reprocess(reprocess::Arguments),
    #[command(hide = true)]
    ReprocessPart(reprocess_part::Arguments),
    Wait(wait::Arguments),
    Offsets(offsets::Arguments),
    Locks(locks::Arguments),
    Metastore(metastore::Arguments),
}

impl Cli {
    /// Starts logging, as loud as the command needs it unless somebody said otherwise.
    fn start_tracing(&self) -> Result<()> {
        let speaks = match self.command {
            Command::Run(_) | Command::Metastore(_) => Speaks::ByFile,
            _ => Speaks::OfTrouble,
        };
        telemetry::start_with(&self.global.log_settings(speaks), self.global.log.as_deref())
    }

    /// Runs the command.
    async fn run(self) -> Result<Outcome> {
        let global = &self.global;
        match self.command {
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Run(arguments) => run::run(global, arguments).await,
            Command::Init(arguments) => init::run(arguments),
            Command::Config(arguments) => config::run(global, arguments),
            Command::Doctor(arguments) => doctor::run(global, arguments).await,
            Command::Generate(arguments) => generate::run(arguments).await,
            Command::Produce(arguments) => produce::run(global, arguments).await,
            Command::Topic(arguments) => topic::run(global, arguments).await,
            Command::Query(arguments) => query::run(global, arguments).await,
            Command::Tables(arguments) => tables::run(global, arguments).await,
            Command::Schema(arguments) => schema::run(global, arguments).await,
            Command::Verify(arguments) => verify::run(global, arguments).await,
            Command::Reprocess(arguments) => reprocess::run(global, arguments).await,
            Command::ReprocessPart(arguments) => reprocess_part::run(arguments).await,
            Command::Wait(arguments) => wait::run(global, arguments).await,
            Command::Offsets(arguments) => offsets::run(global, arguments).await,
            Command::Locks(arguments) => locks::run(global, arguments).await,
            Command::Metastore(arguments) => metastore::run(arguments).await,
        }
    }
}

/// A thread's stack. Plans of queries are trees that are walked by recursion, and the states of an unoptimized build are large; what isn't
/// used of it is only addresses.
const STACK_BYTES: usize = 16 << 20;

/// The program: parses the command line, runs the command, prints what went wrong and says with which code to exit.
///
/// It is an ordinary function on purpose. The body of an `async fn` is compiled in the crate that polls it; with the runtime
/// here, the whole program is compiled once, in this library, and not a second time in the binary.
pub fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differences) => ExitCode::from(1),
        // The reader of a pipe has seen enough (`lakesmith query … | head`): no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            match error.kind() {
                Kind::Config => ExitCode::from(2),
                Kind::Transient | Kind::Stop | Kind::Failed => ExitCode::from(1),
            }
        }
    }
}

fn execute(cli: Cli) -> Result<Outcome> {
    bound_what_is_free();
    cli.start_tracing()?;
    window::plan_from_environment()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().thread_name("lakesmith").thread_stack_size(STACK_BYTES).build();
    let runtime = runtime.map_err(Error::from).context("the runtime could not be started")?;
    let outcome = runtime.block_on(cli.run());
    // What still runs in the background (an idle client, a reader of standard input) must not hold the process. Its threads go with it: a
    // shutdown that does not wait would detach them while they end, and glibc's pthread_detach may touch one that is gone, so that a process
    // which has done everything dies of a SIGSEGV once in thousands of runs.
    std::mem::forget(runtime);
    outcome
}

/// Bounds the memory that is free and kept. glibc gives threads up to eight arenas for each core, and what is free in one is of no use to the
/// others: columns that are made on one thread and encoded on another would take nearly twice the memory. And once a batch's column has
/// been freed, glibc would take the next ones out of arenas too, which then keep twice their size; given a limit, it does not. Lower ones
/// save more memory and cost more time of the kernel's. Who sets glibc's own variables knows better.
#[cfg(target_env = "gnu")]
fn bound_what_is_free() {
    const MAPPED_FROM: libc::c_int = 8 << 20;
    let own = ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
    if own.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // SAFETY: settings of the allocator, made before there is another thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, cores.clamp(2, 8) as libc::c_int);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

#[cfg(not(target_env = "gnu"))]
fn bound_what_is_free() {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_teaches_with_an_example() {
        fn check(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            let wide = help.lines().skip_while(|line| *line != "Examples:").find(|line| line.chars().count() > 100);
            assert_eq!(wide, None, "{path}: a line would be wrapped");
            let is_leaf = command.get_subcommands().next().is_none();
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            assert!(help.contains("Examples:"), "the help of {path} has no example:\n{help}");
            if is_leaf {
                assert!(help.contains(&format!("  {path}")), "the examples of {path} do not show it:\n{help}");
            }
            for argument in command.get_arguments().filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version")) {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_string()).collect();
            for name in names.iter().filter(|name| *name != "help") {
                check(command.find_subcommand_mut(name).unwrap(), &format!("{path} {name}"));
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command, "lakesmith");
    }
}
