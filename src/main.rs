//! Parse, start tracing, run, and turn an error into an exit code: 0 done, 1 failed, 2 bad usage or configuration.

use std::process::ExitCode;

use clap::Parser;
use lakesmith::cli::{self, Cli, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli.start_tracing() {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("lakesmith").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&lakesmith::Error::from(error).context("the runtime could not be started")),
    };
    let outcome = runtime.block_on(cli.run());
    // What still runs in the background (an idle client, a reader of standard input) must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differences) => ExitCode::from(1),
        Err(error) => fail(&error),
    }
}

fn fail(error: &lakesmith::Error) -> ExitCode {
    // The reader of a pipe has seen enough (`lakesmith query … | head`): no failure.
    if cli::is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    cli::print_error(error);
    match error.kind() {
        lakesmith::Kind::Config => ExitCode::from(2),
        lakesmith::Kind::Transient | lakesmith::Kind::Stop | lakesmith::Kind::Failed => ExitCode::from(1),
    }
}
