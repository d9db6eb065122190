//! Fields of messages become columns of silver by themselves (`silver.unknown_fields = "add"`).
//!
//! What the lanes have met is looked at between two cycles, when everything of the last one is committed. If columns were added, the session
//! ends and the next one reads their fields. The messages that brought them have nulls there: bronze has their values.
//!
//! *Failure*: a change that does not come about (another daemon was faster, the metastore is away) is tried again with the next messages
//! that have the field.

use tracing::{info, warn};

use super::session::Session;
use crate::error::Result;
use crate::schema;

impl Session<'_> {
    /// Makes columns of what was met. Says whether silver has other columns than the session writes.
    pub(super) async fn adopt_fields(&mut self) -> bool {
        match self.try_to_adopt().await {
            Ok(changed) => changed,
            Err(failure) => {
                warn!(
                    error = %failure.chain(),
                    hint = failure.hint_text(),
                    "fields of messages have become no columns yet; bronze has them"
                );
                false
            }
        }
    }

    async fn try_to_adopt(&mut self) -> Result<bool> {
        let per_day = self.definition.file().silver.unknown_fields_per_day;
        let Some(stage) = self.silver.live() else { return Ok(false) };
        let Some(strangers) = stage.parts().strangers.clone() else { return Ok(false) };
        let found = strangers.take();
        if found.is_empty() {
            return Ok(false);
        }
        // Another daemon may have been faster.
        stage.silver.refresh().await?;
        let Some(table) = stage.silver.lake() else { return Ok(false) };
        if self.definition.lacks_columns_of(table) {
            info!("silver has got columns from fields of messages: reading goes on with these");
            return Ok(true);
        }
        let mut columns = Vec::new();
        for stranger in found {
            match stranger.column {
                Some(column) => columns.push(column),
                None => {
                    strangers.set_aside(&stranger.field);
                    info!(table = %table.ident(), field = stranger.field, "objects and arrays become no columns: bronze has them");
                }
            }
        }
        let adopted = schema::adopt(table, columns, per_day, chrono::Utc::now().timestamp_millis()).await?;
        for column in &adopted.added {
            let field = column.field.as_deref().unwrap_or(&column.name);
            info!(
                table = %table.ident(), field, column = column.name, column_type = %column.column_type,
                "a field of messages has become a column"
            );
            self.tally.added_column();
        }
        for field in &adopted.postponed {
            strangers.set_aside(field);
            warn!(
                table = %table.ident(), field, per_day,
                "a field of messages becomes no column today: silver.unknown_fields_per_day others have; bronze has it"
            );
        }
        Ok(!adopted.added.is_empty())
    }
}
