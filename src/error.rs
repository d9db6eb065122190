//! The one error type that reaches a person, and what its kind means for the caller.
//!
//! Boundaries with callers that branch (metastore, storage, catalog) have error enums of their own; above them every failure is an
//! [`Error`]: what object, why, and a hint that names the setting to change or the command to run. Messages are lower case, without a
//! full stop. Sources are kept and printed as a chain.

use std::error::Error as StdError;
use std::fmt;

/// A result whose error is meant for a person.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line, the pipeline file or the environment is wrong: nothing was changed, exit code 2.
    Config,
    /// A server or the network failed in a way that may pass: the daemon tries again within its limits.
    Transient,
    /// What was found contradicts what was expected; only a person can decide. The daemon stops.
    Stop,
    /// Any other failure.
    Failed,
}

/// An error for a person: the object, the reason, and the way out.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The user's input is wrong; nothing was changed.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// Something remote failed and may work when tried again.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Kind::Transient, message)
    }

    /// The state found needs a person's decision.
    pub fn stop(message: impl Into<String>) -> Self {
        Self::new(Kind::Stop, message)
    }

    /// Any other failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Adds the way out: a setting to change or a command to run.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether an error of this type is among its causes.
    pub fn has_cause<E: StdError + 'static>(&self) -> bool {
        std::iter::successors(self.source(), |error| (**error).source()).any(|error| error.is::<E>())
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Wraps this error in a sentence about the object concerned; kind and hint stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let (kind, hint) = (self.kind, self.hint.clone());
        Self { kind, message: message.into(), hint, source: Some(Box::new(self)) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message followed by its causes, separated by colons. A cause that its wrapper already quotes is not repeated.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = self.source.as_ref().map(|source| &**source as &dyn StdError);
        while let Some(error) = next {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Says which object an error is about, keeping its kind and hint.
pub trait Context<T> {
    fn context(self, message: impl Into<String>) -> Result<T>;
    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(message))
    }

    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| error.into().context(message()))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::failed("columns could not be built").caused_by(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::failed("input or output failed").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_hint_and_the_chain_names_each_cause_once() {
        let error = Error::stop("offsets differ").hint("run `lakesmith offsets show`").context("table a.b is not usable");
        assert_eq!(error.kind(), Kind::Stop);
        assert_eq!(error.hint_text(), Some("run `lakesmith offsets show`"));
        assert_eq!(error.chain(), "table a.b is not usable: offsets differ");
    }
}
