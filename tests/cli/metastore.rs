//! `lakesmith metastore`: others' server, killed in the middle of their writes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lakesmith::metastore::{EnvironmentContext, HiveTable, Metastore, MetastoreError, MetastoreSettings};

use super::run::Lakesmith;

/// Serves on an address (port 0 takes a free one); returns where.
fn serve(here: &Lakesmith, listen: &str) -> (Child, String) {
    let mut server = here.command(&["metastore", "--listen", listen], &[]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let uri = line.trim().rsplit_once(" at ").unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
    (server, uri)
}

/// Window: anywhere in a series of writes. What was acknowledged is there afterwards; what was not is there whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_in_the_middle_of_writes() {
    let here = Lakesmith::new();
    let (mut server, uri) = serve(&here, "127.0.0.1:0");
    let settings = MetastoreSettings { uris: vec![uri.clone()], ..MetastoreSettings::default() };
    let metastore = Metastore::connect(&settings).await.unwrap();
    let mut view = HiveTable::view("default", "t", "SELECT 1", "SELECT 1");
    view.set_parameter("n", "0");
    metastore.create_table(&view).await.unwrap();
    for round in 1..=5 {
        let acknowledged = Arc::new(AtomicU32::new(0));
        let writing = tokio::spawn({
            let (metastore, acknowledged) = (metastore.clone(), acknowledged.clone());
            async move {
                loop {
                    let table = metastore.table("default", "t").await?.expect("the view");
                    let old: u32 = table.parameter("n").expect("a number").parse().expect("a number");
                    let mut changed = table.clone();
                    changed.set_parameter("n", (old + 1).to_string());
                    changed.set_parameter("twice", (2 * (old + 1)).to_string());
                    let expecting = EnvironmentContext::new().expecting("n", &old.to_string());
                    metastore.alter_table("default", "t", &changed, &expecting).await?;
                    acknowledged.store(old + 1, Ordering::SeqCst);
                }
                #[allow(unreachable_code)]
                Ok::<(), MetastoreError>(())
            }
        });
        let begun = Instant::now();
        while acknowledged.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        server.kill().expect("SIGKILL");
        server.wait().expect("its end");
        let error = writing.await.unwrap().unwrap_err();
        assert!(matches!(error, MetastoreError::Transport { .. }), "{error}");
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        let (again, _) = serve(&here, uri.trim_start_matches("thrift://"));
        server = again;
        let table = metastore.table("default", "t").await.unwrap().unwrap();
        let number = |key: &str| table.parameter(key).unwrap().parse::<u32>().unwrap();
        assert!(number("n") == acknowledged || number("n") == acknowledged + 1, "{} after {acknowledged}", number("n"));
        assert_eq!(number("twice"), 2 * number("n"));
    }
    server.kill().expect("SIGKILL");
    server.wait().expect("its end");
}
