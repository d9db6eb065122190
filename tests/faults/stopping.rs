//! How a daemon leaves: at the first signal it commits what it has read; at the second it ends at once, which is as safe as a kill.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, signal};
use crate::end_to_end::lake::env;
use crate::table::proxy::{Fault, Proxy};

const FAREWELL: &str = "once more ends at once";
const LOG: &str = "daemon.log";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_commits_at_the_first_signal_and_ends_at_the_second() {
    let proxy = Proxy::before(&env("HIVE_METASTORE_URIS")).await;
    // A cycle that would take an hour: what was read is committed because of the signal or not at all.
    let here = Cluster::with_topic(&proxy.uri(), &["pipeline.commit_interval=1h".to_owned()], &[]);
    here.send(500);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait(&mut daemon, LOG, "the start", async || here.log(LOG).contains("reading continues")).await;
    // Nothing tells from outside what was read and is not committed; half a second would do on an idle machine.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!here.log(LOG).contains("committed"));
    here.stop(daemon, LOG, &[]);
    assert!(here.log(LOG).contains(FAREWELL) && here.log(LOG).contains("committed"), "{}", here.log(LOG));

    // The last commit waits for a metastore that takes its time, when the second signal comes.
    here.send(500);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait(&mut daemon, LOG, "the start", async || here.log(LOG).contains("reading continues")).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.delay(Duration::from_secs(20));
    signal(&daemon, libc::SIGINT);
    here.wait(&mut daemon, LOG, "the farewell", async || here.log(LOG).contains(FAREWELL)).await;
    assert!(daemon.try_wait().expect("a child").is_none(), "the first signal ended it at once:\n{}", here.log(LOG));
    let began = Instant::now();
    signal(&daemon, libc::SIGTERM);
    let status = daemon.wait().expect("its end");
    assert_eq!(status.code(), Some(128 + libc::SIGINT), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    proxy.delay(Duration::ZERO);
    here.finish();
}

/// An operator stops the daemon while a server is away: it has nothing under way, and leaves well.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_waits_for_a_server_leaves_at_once() {
    const FAILED: &str = "reading the tables again after a failure";
    let proxy = Proxy::before(&env("HIVE_METASTORE_URIS")).await;
    let here = Cluster::with_topic(&proxy.uri(), &["pipeline.retry.initial_delay=30s".to_owned()], &[]);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait(&mut daemon, LOG, "the start", async || here.log(LOG).contains("reading continues")).await;
    proxy.arm([Fault::LoseRequestAndGoDown]);
    here.send(100);
    here.wait(&mut daemon, LOG, "the failure", async || here.log(LOG).contains(FAILED)).await;
    let began = Instant::now();
    signal(&daemon, libc::SIGTERM);
    let status = daemon.wait().expect("its end");
    assert!(status.success(), "{status}\n{}", here.log(LOG));
    assert!(here.log(LOG).contains("the next start goes on where the tables are"), "{}", here.log(LOG));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    proxy.come_back();
    here.finish();
}
