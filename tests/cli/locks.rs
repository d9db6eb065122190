//! `lakesmith locks`: a maintainer's lock while it runs, after it was killed, and after the next one has ended.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::run::Lakesmith;

const NOTHING: &str = "no locks on the pipeline's tables in datalake\n";

#[test]
fn locks_of_the_living_and_the_dead_are_listed_until_they_are_given_back() {
    let here = Lakesmith::new();
    here.run(&["init"]).done();
    let text = here.read("pipeline.toml").replace("kind = \"kafka\"", "kind = \"file\"");
    let text = text.replace("[source.kafka]", "[source.file]\npath = \"sales.jsonl\"\n\n[source.kafka]");
    here.write("pipeline.toml", &text);
    here.run(&["generate", "--rows", "50", "--format", "jsonl", "-o", "sales.jsonl"]).done();
    assert_eq!(here.run(&["locks"]).done(), NOTHING);
    assert_eq!(here.run(&["locks", "--output", "json"]).done(), "");

    let mut daemon = here.command(&["run"], &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let log = BufReader::new(daemon.stderr.take().expect("its log"));
    log.lines().map_while(Result::ok).find(|line| line.contains("maintaining a gold table")).expect("gold is maintained");
    let maintainer = |text: &str| -> serde_json::Value {
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let name = "gold_amazon_sales_aggregated__lakesmith_maintainer";
        lines.into_iter().find(|lock| lock["table"] == name).unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let lock = maintainer(&here.run(&["locks", "--output", "json"]).done());
    assert_eq!((&lock["state"], &lock["database"]), (&"acquired".into(), &"datalake".into()));
    assert!(lock["agent"].as_str().is_some_and(|agent| agent.starts_with("lakesmith-")), "{lock}");
    assert!(lock["since_ms"].as_i64() > Some(0) && lock["last_heartbeat_ms"].as_i64() > Some(0), "{lock}");
    let page = here.run(&["locks"]).done();
    assert!(page.contains(&lock["lock_id"].to_string()) && page.contains("acquired") && page.contains('@'), "{page}");

    daemon.kill().expect("SIGKILL");
    daemon.wait().expect("its end");
    let left = maintainer(&here.run(&["locks", "--output", "json"]).done());
    assert_eq!(left["lock_id"], lock["lock_id"], "a dead process's lock is still there to be seen");
    // The next maintainer finds that the process is dead, and gives its lock back.
    here.run(&["run", "--until-caught-up"]).done();
    assert_eq!(here.run(&["locks"]).done(), NOTHING);
}
