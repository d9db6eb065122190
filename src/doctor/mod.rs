//! What a pipeline depends on, looked at before anything is started: each thing with what was found and, where it would stop a run, the way
//! out.
//!
//! *Invariants*: nothing is left behind. The metastore's probe makes a view of its own and drops it, a lock on its own name is taken and given
//! back, a small file is written to the warehouse and deleted; where there is no embedded metastore yet, none is made.

mod metastore;
mod source;
mod storage;
mod tables;

use serde::Serialize;

use crate::catalog::{EMBEDDED_FILE, Lakehouse};
use crate::error::Error;
use crate::pipeline::Definition;
use crate::storage::Storages;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Ok,
    /// A run starts; somebody should look.
    Warning,
    /// It would stop a run.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub finding: Finding,
    /// `source`, `storage`, `metastore` or `tables`.
    pub area: &'static str,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// The way out; none where nothing is to be done.
    pub hint: Option<String>,
}

impl Check {
    fn new(finding: Finding, area: &'static str, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { finding, area, what: what.into(), found: found.into(), hint: None }
    }

    fn ok(area: &'static str, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Finding::Ok, area, what, found)
    }

    fn warning(area: &'static str, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Finding::Warning, area, what, found)
    }

    fn failed(area: &'static str, what: impl Into<String>, error: &Error) -> Self {
        Self { hint: error.hint_text().map(str::to_owned), ..Self::new(Finding::Failed, area, what, error.chain()) }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Looks at everything that a pipeline depends on; in the order of a record's way.
pub async fn examine(definition: &Definition) -> Vec<Check> {
    let ((source, origin), storages) = tokio::join!(source::check(definition), storage::check(definition));
    let (storage, storages) = storages;
    let mut checks = source;
    checks.extend(storage);
    let Some(storages) = storages else { return checks };
    if definition.metastore.uris.is_empty() && !embedded_is_there(&storages).await {
        let found = "embedded; the first run makes it, with all tables";
        checks.push(Check::ok(metastore::AREA, format!("{}/{EMBEDDED_FILE}", storages.warehouse()), found));
        return checks;
    }
    match Lakehouse::open(&definition.metastore, &definition.storage, &definition.catalog).await {
        Ok(lakehouse) => {
            checks.extend(metastore::check(definition, &lakehouse).await);
            checks.extend(tables::check(definition, &lakehouse, origin.as_ref()).await);
            lakehouse.close().await;
        }
        Err(error) => {
            let what = match definition.metastore.uris.as_slice() {
                [] => "embedded".to_owned(),
                uris => uris.join(", "),
            };
            checks.push(Check::failed(metastore::AREA, what, &error));
        }
    }
    checks
}

/// Opening an embedded metastore would make it.
async fn embedded_is_there(storages: &Storages) -> bool {
    let file = format!("{}/{EMBEDDED_FILE}", storages.warehouse().trim_end_matches('/'));
    // What can't be looked at is told by the opening.
    storages.status(&file).await.map_or(true, |status| status.is_some())
}
