//! Commits through two real metastores on one database, one of which is dead at any time.

use std::time::Duration;

use lakesmith::catalog::CatalogSettings;
use lakesmith::checkpoint::OffsetRange;

use super::lake::{Lake, append, offsets};
use crate::gate::{Gate, Gatekeeper};
use crate::servers::metastore_uri;

super::on_lake!(by_value, Lake::real().await, commits_survive_the_death_of_each_server_in_turn);
super::on_lake!(by_lock, Lake::real().await.locking(), commits_survive_the_death_of_each_server_in_turn);

async fn commits_survive_the_death_of_each_server_in_turn(lake: &Lake) {
    lake.table("t", &[]).await;
    let gates = [Gatekeeper::before(&metastore_uri("4.0.1")).await, Gatekeeper::before(&metastore_uri("second")).await];
    let catalog = lake.catalog_through(gates.iter().map(Gatekeeper::uri).collect(), CatalogSettings::default()).await;
    let mut table = lake.open(&catalog, "t").await;
    let deaths = async {
        for victim in gates.iter().cycle() {
            victim.turn(Gate::Shut);
            tokio::time::sleep(Duration::from_millis(700)).await;
            victim.turn(Gate::Open);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let commits = async {
        for batch in 0..12 {
            append(&mut table, 0, OffsetRange::new(batch * 10, batch * 10 + 10)).await;
        }
    };
    tokio::select! {
        () = deaths => {}
        () = commits => {}
    }
    assert!(gates.iter().all(|gate| gate.arrivals() > 1), "both servers were asked");
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(offsets(&table, None).await, (0..120).collect::<Vec<_>>());
    assert_eq!(table.snapshots().len(), 12);
    catalog.metastore().finish().await;
    assert!(lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap().is_empty());
}
