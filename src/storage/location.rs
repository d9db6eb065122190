//! Locations: which file system a URI or path names, and the path in it.
//!
//! Paths are literal, as Hadoop's `Path` keeps them: nothing is percent-decoded, so that a partition directory `at=10%3A00` is itself.
//! The rule for a path without a scheme: it is on the warehouse's HDFS when `storage.warehouse` is on HDFS, otherwise it is local.

use std::path::{Component, Path, PathBuf};

use super::error::{Result, StorageError};

/// A location taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// Authority is `host:port` or a nameservice; the path is absolute.
    Hdfs {
        authority: String,
        path: String,
    },
    Local {
        path: PathBuf,
    },
    /// A simulation's.
    Memory {
        path: String,
    },
}

/// What a location without authority or scheme refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    /// The authority of `hdfs:///path`: that of fs.defaultFS, else that of the warehouse.
    pub hdfs_authority: Option<String>,
    /// The authority of a bare path: that of a warehouse on HDFS. None: bare paths are local.
    pub bare_authority: Option<String>,
    /// Whether there are files in memory.
    pub memory: bool,
}

impl Location {
    pub(super) fn parse(text: &str, defaults: &Defaults) -> Result<Self> {
        let invalid = |reason: &str| StorageError::InvalidLocation { location: text.to_owned(), reason: reason.to_owned() };
        let Some((scheme, rest)) = split_scheme(text) else {
            if !text.starts_with('/') {
                return Err(invalid("the path is not absolute"));
            }
            return Ok(match &defaults.bare_authority {
                Some(authority) => Self::Hdfs { authority: authority.clone(), path: clean(text, &invalid)? },
                None => Self::Local { path: PathBuf::from(clean(text, &invalid)?) },
            });
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let path = if path.is_empty() && !authority.is_empty() { "/" } else { path };
        if !path.starts_with('/') {
            return Err(invalid("the path is not absolute"));
        }
        let path = clean(path, &invalid)?;
        match scheme {
            "file" if authority.is_empty() || authority == "localhost" => Ok(Self::Local { path: PathBuf::from(path) }),
            "file" => Err(invalid("a file URI has no host: write file:///path")),
            "hdfs" if authority.is_empty() => match &defaults.hdfs_authority {
                Some(authority) => Ok(Self::Hdfs { authority: authority.clone(), path }),
                None => Err(invalid("it names no NameNode, and no fs.defaultFS is configured")),
            },
            "hdfs" => Ok(Self::Hdfs { authority: authority.to_owned(), path }),
            "memory" if defaults.memory => Ok(Self::Memory { path }),
            _ => Err(invalid(&format!("scheme {scheme} is not supported"))),
        }
    }

    /// The location as a URI that every engine reads alike.
    pub(super) fn uri(&self) -> String {
        match self {
            Self::Hdfs { authority, path } => format!("hdfs://{authority}{path}"),
            Self::Local { path } => format!("file://{}", path.display()),
            Self::Memory { path } => format!("memory://{path}"),
        }
    }

    /// Its absolute path without scheme and authority.
    pub(super) fn path(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Hdfs { path, .. } | Self::Memory { path } => path.as_str().into(),
            Self::Local { path } => path.to_string_lossy(),
        }
    }
}

/// `(scheme, rest)` of a URI; None for a path. A colon behind the first slash belongs to the path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

/// Drops empty segments and the slash at the end, as Hadoop does; `..` is refused, because it could leave the table's directory.
fn clean(path: &str, invalid: &impl Fn(&str) -> StorageError) -> Result<String> {
    let mut cleaned = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        if matches!(segment, "." | "..") {
            return Err(invalid("`.` and `..` are not allowed in it"));
        }
        cleaned.push('/');
        cleaned.push_str(segment);
    }
    if cleaned.is_empty() {
        cleaned.push('/');
    }
    Ok(cleaned)
}

/// A child's location, in the spelling of its directory's.
pub(super) fn join(directory: &str, child: &str) -> String {
    format!("{}/{child}", directory.trim_end_matches('/'))
}

/// Makes the warehouse setting absolute: the only place where a relative path is welcome.
pub(super) fn absolute_warehouse(text: &str) -> Result<String> {
    if text.starts_with('/') || split_scheme(text).is_some() {
        return Ok(text.to_owned());
    }
    let absolute = std::path::absolute(text).map_err(|source| StorageError::from_io("resolve", text, source))?;
    Ok(without_dots(&absolute).to_string_lossy().into_owned())
}

/// Resolves `.` and `..` by spelling alone: the directory need not exist yet.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location> {
        Location::parse(text, &Defaults { hdfs_authority: Some("lake".to_owned()), ..Defaults::default() })
    }

    fn hdfs(authority: &str, path: &str) -> Location {
        Location::Hdfs { authority: authority.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn every_spelling_finds_its_file_system() {
        for (text, expected) in [
            ("hdfs://nn:8020/a/b", hdfs("nn:8020", "/a/b")),
            ("hdfs://nn:8020", hdfs("nn:8020", "/")),
            ("hdfs:///a//b/", hdfs("lake", "/a/b")),
            ("hdfs:/a", hdfs("lake", "/a")),
            ("file:///a/b", Location::Local { path: "/a/b".into() }),
            ("file:/a/b", Location::Local { path: "/a/b".into() }),
            ("/a/at=10:00", Location::Local { path: "/a/at=10:00".into() }),
            ("hdfs://nn:8020/at=10%3A00", hdfs("nn:8020", "/at=10%3A00")),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn bare_paths_follow_a_warehouse_on_hdfs() {
        let defaults = Defaults { bare_authority: Some("nn:8020".to_owned()), ..Defaults::default() };
        assert_eq!(Location::parse("/datalake/t", &defaults).unwrap(), hdfs("nn:8020", "/datalake/t"));
        assert_eq!(Location::parse("file:/t", &defaults).unwrap().uri(), "file:///t");
    }

    #[test]
    fn what_cannot_be_reached_says_why() {
        for (text, reason) in [
            ("lake/t", "the path is not absolute"),
            ("s3://bucket/t", "scheme s3 is not supported"),
            ("file://host/t", "a file URI has no host: write file:///path"),
            ("/a/../b", "`.` and `..` are not allowed in it"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("{text} cannot be used: {reason}"));
        }
        let error = Location::parse("hdfs:///a", &Defaults::default()).unwrap_err();
        assert!(error.to_string().contains("fs.defaultFS"));
    }

    #[test]
    fn a_relative_warehouse_becomes_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute_warehouse("./lake/../house").unwrap(), here.join("house").to_string_lossy());
        assert_eq!(absolute_warehouse("hdfs:///w").unwrap(), "hdfs:///w");
    }
}
