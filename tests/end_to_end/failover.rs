//! A running pipeline with two metastores on one database, which die and come back in turn.

use std::time::{Duration, Instant};

use super::lake::{SMALL_COMMITS, assert_records, expected};
use super::real::cluster;
use crate::gate::{Gate, Gatekeeper};
use crate::servers::metastore_uri;

#[test]
fn a_pipeline_goes_on_while_its_metastores_die_in_turn() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let gates = ["4.0.1", "second"].map(|server| runtime.block_on(Gatekeeper::before(&metastore_uri(server))));
    let uris = format!("metastore.uris=[\"{}\", \"{}\"]", gates[0].uri(), gates[1].uri());
    let (_, lake) = cluster(6_000, "0.02", &[&uris, "metastore.connect_timeout=1s"]);
    let mut run = lake.spawn(&SMALL_COMMITS, "run.log");
    let began = Instant::now();
    let mut deaths = 0;
    let status = loop {
        if let Some(status) = run.try_wait().expect("a child") {
            break status;
        }
        if began.elapsed() > Duration::from_secs(240) {
            run.kill().expect("SIGKILL");
            panic!("it does not end:\n{}", std::fs::read_to_string(lake.path("run.log")).expect("a log"));
        }
        let victim = &gates[deaths % 2];
        victim.turn(Gate::Shut);
        std::thread::sleep(Duration::from_millis(900));
        victim.turn(Gate::Open);
        std::thread::sleep(Duration::from_millis(300));
        deaths += 1;
    };
    let log = std::fs::read_to_string(lake.path("run.log")).expect("a log");
    assert!(status.success(), "{log}");
    assert!(!log.contains(" ERROR "), "{log}");
    assert!(deaths >= 3, "only {deaths} deaths before its end");
    assert_records(&lake, &expected("--messages", &lake.path("sales.jsonl")));
    lake.verify();
}
