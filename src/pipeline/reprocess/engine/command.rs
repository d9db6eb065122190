//! Running the command that runs a script on a computing engine, and listening to it.
//!
//! The command is a process group of its own, so that the engine ends with it when it is told to. What it prints on standard error goes
//! where this process's errors go.
//!
//! *Failure*: how it ended and which results came are told apart, so that the files of results that are of no use can be deleted.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::part::PartResult;
use crate::error::{Error, Result};
use crate::retry::with_deadline;

/// In the command, the place of the script's path.
pub(super) const SCRIPT: &str = "{script}";

/// How long the command has to end when it was told to.
const GRACE: Duration = Duration::from_secs(20);

/// What a command said, and whether it ended well.
pub(super) struct Answer {
    pub results: Vec<PartResult>,
    pub ended: Result<()>,
}

/// Runs the command to its end, or until it was told to stop.
pub(super) async fn run(command: &str, script: &Path, shutdown: &CancellationToken) -> Result<Answer> {
    let text = command.replace(SCRIPT, &quoted(script));
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(&text).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let failed = |error| Error::failed(format!("the engine's command cannot be started: {text}")).caused_by(error);
    let mut child = shell.spawn().map_err(failed)?;
    let group = i32::try_from(child.id()).map_err(|_| Error::failed("the engine's command has no process group"))?;
    let output = child.stdout.take().ok_or_else(|| Error::failed("the engine's command has no output"))?;
    let mut listening = tokio::task::spawn_blocking(move || listen(child, output));
    let heard = tokio::select! {
        heard = &mut listening => heard,
        () = shutdown.cancelled() => {
            end(group, libc::SIGTERM);
            match with_deadline("the engine's command", GRACE, &mut listening).await {
                Ok(heard) => heard,
                Err(_) => {
                    end(group, libc::SIGKILL);
                    listening.await
                }
            }
        }
    };
    heard.map_err(|error| Error::failed("a thread panicked").caused_by(error))
}

/// Reads to the end, whatever is wrong with a line: an engine that cannot print on dies of it, and results behind it would be lost.
fn listen(mut child: Child, output: ChildStdout) -> Answer {
    let (mut results, mut ended) = (Vec::new(), Ok(()));
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        let text = String::from_utf8_lossy(&line);
        let found = results.len();
        for result in PartResult::in_line(&text) {
            match result {
                Ok(result) => results.push(result),
                Err(error) => ended = Err(error),
            }
        }
        if results.len() == found {
            debug!(line = text.trim_end(), "the engine says");
        }
        line.clear();
    }
    match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            ended = Err(Error::failed(format!("the engine's command ended with {status}"))
                .hint("it has said why above; nothing was committed, and the same command begins there again"));
        }
        Err(error) => ended = Err(Error::failed("how the engine's command ended is not known").caused_by(error)),
    }
    Answer { results, ended }
}

fn end(group: i32, signal: i32) {
    // SAFETY: a signal to a process group that this process has made; its leader is not waited for yet, or it is gone with all others.
    unsafe { libc::kill(-group, signal) };
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn answer(command: &str) -> Answer {
        run(command, Path::new("/tmp/it's"), &CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_gets_the_script_and_its_end_is_told() {
        assert!(answer("test {script} = \"/tmp/it's\"").await.ended.is_ok());
        let ended = answer("echo lakesmith-part:x; exit 3").await.ended.unwrap_err();
        assert!(ended.to_string().contains("exit status: 3"), "{ended}");
        let ended = answer("echo lakesmith-part:x").await.ended.unwrap_err();
        assert!(ended.to_string().contains("a result that cannot be read"), "{ended}");
        assert!(answer("echo what else an engine says").await.results.is_empty());
    }

    #[tokio::test]
    async fn a_command_ends_with_all_that_it_started_when_it_is_told_to() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let began = Instant::now();
        let answer = run("sleep 300 | cat; : {script}", Path::new("x"), &shutdown).await.unwrap();
        assert!(answer.ended.is_err() && began.elapsed() < GRACE);
    }
}
