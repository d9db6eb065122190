//! The program as people run it: what it prints, where, and with which exit code.

mod demo;
mod doctor;
mod locks;
mod metastore;
mod offsets;
mod run;

use run::Lakesmith;

#[test]
fn every_command_shows_its_help() {
    let here = Lakesmith::new();
    let help = here.run(&["--help"]).done();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = commands.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        assert!(here.run(&[command, "--help"]).done().contains("Examples:"), "{command}");
    }
    assert!(here.run(&["--version"]).done().starts_with("lakesmith "));
}

#[test]
fn bad_usage_is_exit_code_2() {
    let here = Lakesmith::new();
    for arguments in
        [&["nonsense"][..], &["run", "--nonsense"], &["query"], &["--set", "x", "run"], &["offsets", "set", "bronze"]]
    {
        let ended = here.run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.errors);
        assert!(ended.output.is_empty());
    }
}

#[test]
fn without_a_pipeline_file_the_way_out_is_shown() {
    let ended = Lakesmith::new().run(&["run"]);
    assert_eq!(ended.code, 2);
    assert_eq!(
        ended.errors,
        "error: there is no pipeline file: neither ./pipeline.toml nor ./lakehouse/pipeline.toml exists\n \
         hint: name one with --config, write one with `lakesmith init`, or try `lakesmith demo`\n"
    );
}

#[test]
fn init_writes_a_file_that_is_right_and_replaces_none() {
    let here = Lakesmith::new();
    assert!(here.run(&["init"]).done().starts_with("wrote pipeline.toml"));
    let refused = here.run(&["init"]);
    assert_eq!(refused.code, 2);
    assert_eq!(refused.errors, "error: pipeline.toml exists already\n hint: name another file, or replace it with --force\n");
    here.write("pipeline.toml", "broken");
    here.run(&["init", "--force"]).done();
    let checked = here.run(&["config", "check"]).done();
    assert!(checked.starts_with("ok: pipeline amazon-sales\n  source     kafka topic supermarket-sales\n"), "{checked}");
}

#[test]
fn check_reports_all_problems_with_their_lines() {
    let here = Lakesmith::new();
    here.run(&["init", "p.toml"]).done();
    let text =
        here.read("p.toml").replace("commit_interval = \"10s\"", "commit_intervall = \"10s\"").replace("\"1m\"", "\"soon\"");
    here.write("p.toml", &text);
    let line = |of: &str| 1 + text.lines().position(|line| line.starts_with(of)).expect("the line is there");
    let ended = here.run(&["config", "check", "-c", "p.toml", "--set", "source.topik=x"]);
    assert_eq!(ended.code, 2);
    let expected = format!(
        "error: the configuration has 3 problems\n  \
         p.toml:{}: pipeline.commit_intervall: unknown key; did you mean `commit_interval`?\n  \
         p.toml:{}: gold.0.window: expected a duration, found \"soon\" (for example \"10s\")\n  \
         flag --set: source.topik: unknown key; did you mean `topic`?\n",
        line("commit_intervall"),
        line("window = "),
    );
    assert_eq!(ended.errors, expected);
}

#[test]
fn show_says_where_each_setting_came_from_and_keeps_secrets() {
    let here = Lakesmith::new();
    here.run(&["init"]).done();
    let environment = [
        ("KAFKA_TOPIC", "from-environment"),
        ("LAKESMITH_SOURCE__KAFKA__OPTIONS__SASL_PASSWORD", "hunter2"),
        ("HDFS_URL", "hdfs://nn:8020"),
    ];
    let shown = here.run_with(&["config", "show", "--set", "pipeline.name=flagged"], &environment).done();
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert!(line("topic").starts_with("topic = \"from-environment\"") && line("topic").ends_with("# env KAFKA_TOPIC"), "{shown}");
    assert!(line("name").contains("\"flagged\"") && line("name").ends_with("# flag --set"), "{shown}");
    assert!(line("warehouse").contains("\"hdfs://nn:8020/\"") && line("warehouse").ends_with("# env HDFS_URL"), "{shown}");
    assert!(line("brokers").ends_with(|c: char| c.is_ascii_digit()) && line("brokers").contains("# pipeline.toml:"), "{shown}");
    assert!(shown.contains("********") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn generated_rows_are_the_same_for_the_same_seed() {
    let here = Lakesmith::new();
    let rows = here.run(&["generate", "--rows", "20", "--seed", "7"]).done();
    assert_eq!(rows.lines().count(), 21);
    assert_eq!(here.run(&["generate", "--rows", "20", "--seed", "7"]).done(), rows);
    assert_ne!(here.run(&["generate", "--rows", "20", "--seed", "8"]).done(), rows);
    here.run(&["generate", "--rows", "20", "--seed", "7", "-o", "rows.csv"]).done();
    assert_eq!(here.read("rows.csv"), rows);
    assert_eq!(here.run(&["generate", "-o", "rows.csv"]).code, 2, "an existing file was replaced");
    let messages = here.run(&["generate", "--rows", "3", "--format", "jsonl"]).done();
    assert!(messages.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{messages}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let here = Lakesmith::new();
    let ended = here.run_cut_short(&["generate", "--rows", "200000"], 1);
    assert_eq!((ended.code, ended.errors.as_str()), (0, ""));
}

#[test]
fn unreachable_servers_are_named() {
    let here = Lakesmith::new();
    here.run(&["init"]).done();
    // A port that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let uris = format!("metastore.uris=thrift://{address}");
    let ended =
        here.run(&["tables", "--set", &uris, "--set", "metastore.connect_timeout=1s", "--set", "metastore.call_timeout=1s"]);
    assert_eq!(ended.code, 1, "{}", ended.errors);
    assert!(ended.errors.starts_with("error: ") && ended.errors.contains(&address.to_string()), "{}", ended.errors);
}
