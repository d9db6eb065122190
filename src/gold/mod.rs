//! Gold: aggregates over windows of time, kept as plain Hive tables.
//!
//! [`GoldPlan`] understands a `[[gold]]` block over silver's columns. [`GoldMaintainer`] counts committed silver rows in open windows
//! and writes changed partitions as complete versions. What a table holds is the `GROUP BY` of silver at the offsets in its parameters;
//! [`GoldPlan::group_by_sql`] is that query, for anybody who wants to check it.
//!
//! Everything that decides a value is pure: [`window`] assigns, [`accumulator`] aggregates, [`open_windows`] keeps the books.
//! [`maintainer`], [`versions`] and [`lease`] are the parts that read and write; [`redefine`] leads a table to another definition.

pub mod accumulator;
pub mod average;
mod carry_out;
pub mod definition;
mod distinct;
mod entries;
mod grant;
pub mod group_by;
mod lease;
pub mod maintainer;
pub mod measure;
pub mod open_windows;
pub mod plan;
pub mod progress;
mod recompute;
mod redefine;
mod refresh;
pub mod settings;
pub mod silver;
pub mod state;
pub mod versions;
pub mod watermark;
pub mod window;

pub use carry_out::{Workplace, carry_out};
pub use definition::{GoldDefinition, OtherDefinition, Standing, WorkGranted};
pub use grant::{Again, Grant, OldRows, Touched, Work};
pub use lease::maintainer_lock;
pub use maintainer::{CatchUp, GoldMaintainer};
pub use open_windows::Update;
pub use plan::GoldPlan;
pub use progress::{Positions, Progress};
pub use refresh::RefreshReport;
pub use settings::{GoldSettings, MeasureSettings, PartitionBy};
pub use silver::{SilverRows, TimeFilter, TimeRange};
pub use versions::{RefusedWindow, null_columns};
