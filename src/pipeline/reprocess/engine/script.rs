//! The files of a job that an engine gets: the script, and for Spark the job's description for the workers.
//!
//! They lie in a directory that only their owner reads, and which goes when the engine has ended. Spark copies the description to its machines,
//! where others may read it: there is no password in it.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::debug;
use uuid::Uuid;

use super::part::Part;
use crate::error::{Context, Error, Result};

/// The directory of a job's files.
pub(super) struct JobFiles {
    directory: PathBuf,
}

impl JobFiles {
    pub fn create(job: Uuid) -> Result<Self> {
        let files = Self { directory: std::env::temp_dir().join(format!("lakesmith-{job}")) };
        DirBuilder::new().mode(0o700).create(&files.directory).with_context(|| files.failed())?;
        Ok(files)
    }

    /// Writes a file, and says where it is.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| self.failed())?;
        Ok(path)
    }

    fn failed(&self) -> String {
        format!("the engine's script cannot be written into {}", self.directory.display())
    }
}

impl Drop for JobFiles {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            debug!(directory = %self.directory.display(), %error, "the engine's script could not be deleted");
        }
    }
}

/// The job as Spark SQL.
///
/// Spark 4 puts added files into a directory of the session, earlier ones into the one where the command starts. Rows of `VALUES` are spread
/// over as many tasks as the setting says, one after the other.
///
/// The description's name says which job it is, because a session of Spark's may have the files of several.
pub(super) fn spark_script(parts: &[Part], description: &Path) -> Result<String> {
    script(parts, &std::env::current_exe().context("this program does not know its own file")?, description)
}

fn script(parts: &[Part], program: &Path, description: &Path) -> Result<String> {
    let name = program.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)).ok_or_else(|| {
        Error::config(format!("{} is no name for a program that an engine starts", program.display()))
            .hint("use letters, digits, points, hyphens and underscores")
    })?;
    let file = description.file_name().unwrap_or_default().display();
    let mut rows = String::new();
    for part in parts {
        let comma = if part.number == 0 { "" } else { ",\n" };
        // Writing to a string does not fail.
        let _ = write!(rows, "{comma}  ('{}')", part.to_line()?);
    }
    Ok(format!(
        "-- By `lakesmith reprocess`, which waits for the rows of this query on the standard output of --engine-command.\n\
         ADD FILE '{}';\n\
         ADD FILE '{}';\n\
         SET spark.sql.leafNodeDefaultParallelism={};\n\
         SELECT TRANSFORM (part)\n\
         USING 'job=$(find . -name {file} | head -n 1) && exec \"$(dirname \"$job\")/{name}\" reprocess-part \"$job\"'\n\
         AS (result STRING)\n\
         FROM VALUES\n{rows}\n\
         AS parts(part);\n",
        literal(program),
        literal(description),
        parts.len(),
    ))
}

fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// A path within the quotes of a literal of Spark SQL.
fn literal(path: &Path) -> String {
    path.display().to_string().replace('\\', r"\\").replace('\'', r"\'")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::part::split;
    use super::*;
    use crate::checkpoint::OffsetRange;

    #[test]
    fn a_script_has_a_row_and_a_task_for_each_part() {
        let job = Uuid::from_u128(7);
        let parts = split(job, &BTreeMap::from([(0, OffsetRange { start: 0, end: 25 })]), 10).unwrap();
        let text = script(&parts, Path::new("/opt/it's/lakesmith"), Path::new("/tmp/a/lakesmith-x.json")).unwrap();
        assert!(text.contains("\nADD FILE '/opt/it\\'s/lakesmith';\n") && text.contains("Parallelism=3;\n"), "{text}");
        assert!(text.contains("-name lakesmith-x.json | "), "{text}");
        assert!(text.contains("/lakesmith\" reprocess-part \"$job\"'\n"), "{text}");
        for part in &parts {
            assert!(text.contains(&format!("('{}')", part.to_line().unwrap())), "{text}");
        }
        assert!(script(&parts, Path::new("/opt/lake smith"), Path::new("/tmp/x")).is_err());
    }
}
