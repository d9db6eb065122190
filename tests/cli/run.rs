//! Runs the program in a directory of its own, with an environment of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::servers::program;

/// The program, and where it runs.
pub struct Lakesmith {
    directory: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl Ended {
    /// What was printed by a run that must have gone well.
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.errors, self.output);
        self.output
    }
}

impl Lakesmith {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a readable file")
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a writable file");
    }

    pub fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program());
        // What the machine has configured (KAFKA_BROKER, HADOOP_CONF_DIR) is no part of a test.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path());
        command.args(arguments).envs(environment.iter().copied()).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let output = self.command(arguments, environment).output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ended { code: output.status.code().unwrap_or(-1), output: text(output.stdout), errors: text(output.stderr) }
    }

    /// Reads so many lines of the output and goes away, as `head` does.
    pub fn run_cut_short(&self, arguments: &[&str], lines: usize) -> Ended {
        let mut child =
            self.command(arguments, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut reader = BufReader::new(child.stdout.take().expect("its output"));
        let mut output = String::new();
        for _ in 0..lines {
            reader.read_line(&mut output).expect("a line");
        }
        drop(reader);
        let mut errors = String::new();
        child.stderr.take().expect("its errors").read_to_string(&mut errors).expect("text");
        Ended { code: child.wait().expect("its end").code().unwrap_or(-1), output, errors }
    }
}
