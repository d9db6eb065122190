//! What is wrong with a configuration, in words that end with the way out; and which known name a wrong one is nearest to.

use std::fmt;

use super::tree::{Origin, Path, display_path};
use crate::error::Error;

/// One thing that is wrong, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub path: Path,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "default: " would say nothing: the setting is missing, and the message says so.
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", display_path(&self.path))?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// All problems as one error of kind configuration, in the order of the file's lines.
pub fn error_of(problems: &[Problem]) -> Error {
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_key(|problem| match &problem.origin {
        Origin::File { line, .. } => *line,
        _ => usize::MAX,
    });
    match ordered.as_slice() {
        [one] => Error::config(one.to_string()),
        many => {
            let lines: Vec<_> = many.iter().map(|problem| format!("  {problem}")).collect();
            Error::config(format!("the configuration has {} problems\n{}", many.len(), lines.join("\n")))
        }
    }
}

/// The known name that a wrong one most likely means; none when nothing is near.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |name: &str| name.to_lowercase().replace('-', "_");
    let wrong = normal(wrong);
    // One slip for every three letters, and one more for short names: `brokes` finds brokers, `x` finds nothing.
    let slips_max = 1 + wrong.chars().count() / 3;
    known
        .into_iter()
        .map(|name| {
            let candidate = normal(name);
            let part = wrong.len() >= 4 && (candidate.contains(&wrong) || wrong.contains(&candidate));
            let slips = strsim::damerau_levenshtein(&wrong, &candidate);
            (if part { slips.min(slips_max) } else { slips }, name)
        })
        .filter(|(slips, name)| *slips <= slips_max && *slips < name.chars().count().max(2))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["brokers", "group_id", "options", "commit_interval"];
        assert_eq!(nearest("brokes", known), Some("brokers"));
        assert_eq!(nearest("groupid", known), Some("group_id"));
        assert_eq!(nearest("group-id", known), Some("group_id"));
        assert_eq!(nearest("interval", known), Some("commit_interval"));
        assert_eq!(nearest("commit_interval_ms", known), Some("commit_interval"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("a", known), None);
    }

    #[test]
    fn several_problems_are_one_error_with_a_line_each() {
        let problem = |line| Problem {
            origin: Origin::File { file: "p.toml".into(), line },
            path: vec!["source".into(), "kind".into()],
            message: "expected one of kafka, file, generator".into(),
            hint: None,
        };
        let error = error_of(&[problem(3), problem(4)]);
        let text = error.to_string();
        assert!(text.starts_with("the configuration has 2 problems\n  p.toml:3: source.kind: expected"), "{text}");
        assert_eq!(error.kind(), crate::error::Kind::Config);
    }
}
