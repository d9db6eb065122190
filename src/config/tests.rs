//! A configuration as a whole: the preset, precedence, and problems of all kinds at once.

use super::*;
use crate::config::preset::PRESETS;
use crate::error::Kind;

fn preset() -> PipelineFile {
    PRESETS[0].file()
}

fn sources(file: PipelineFile, environment: &[(&str, &str)], set: &[&str]) -> Sources {
    Sources {
        file: Some(file),
        environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        flags: set.iter().map(|text| FlagSetting::parse(text).unwrap()).collect(),
    }
}

fn file(text: &str) -> PipelineFile {
    PipelineFile::built_in("p.toml", text)
}

fn problems(sources: &Sources) -> String {
    let error = Config::load(sources).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    error.to_string()
}

#[test]
fn the_preset_is_what_the_design_says() {
    let config = Config::load(&sources(preset(), &[], &[])).unwrap().config;
    assert_eq!(config.source.topic, "supermarket-sales");
    assert_eq!(config.tables.database, "datalake");
    let tables = [
        &config.bronze.table,
        &config.silver.table,
        &config.silver.rejected_table(),
        &config.gold[0].table,
        &config.gold[0].view,
    ];
    assert_eq!(
        tables,
        [
            "bronze_amazon_sales",
            "silver_amazon_sales",
            "silver_amazon_sales_rejected",
            "gold_amazon_sales_aggregated",
            "gold_amazon_sales_aggregated_view"
        ]
    );
    assert_eq!(config.silver.columns.len(), 20);
    assert_eq!(config.silver.derive.len(), 7);
    assert_eq!(config.location(config.bronze.location.as_deref().unwrap()), "./lakehouse/datalake/bronze/amazon_sales");
    assert_eq!((config.pipeline.commit_interval.as_secs(), config.gold[0].refresh_interval.as_secs()), (10, 30));
}

#[test]
fn what_is_shown_can_be_read_back() {
    for preset in PRESETS {
        let first = Config::load(&sources(preset.file(), &[], &[])).unwrap();
        let text = first.show();
        let again = Config::load(&sources(file(&text), &[], &[])).unwrap();
        assert_eq!(again.config, first.config, "{text}");
        assert!(text.contains(&format!("# preset {}:", preset.name)), "{text}");
        assert!(text.contains("# default"), "{text}");
    }
}

#[test]
fn every_setting_says_which_layer_it_came_from() {
    let environment = [
        ("KAFKA_BROKER", "k1:9092,k2:9092"),
        ("HIVE_METASTORE_URIS", "thrift://m1:9083,thrift://m2:9083"),
        ("HDFS_URL", "hdfs://nn:8020"),
        ("LAKESMITH_PIPELINE__COMMIT_INTERVAL", "5s"),
        ("LAKESMITH_SOURCE__KAFKA__OPTIONS__SASL_PASSWORD", "hunter2"),
    ];
    let set = ["gold.0.refresh_interval=1m", "source.kafka.options.security.protocol=SASL_SSL"];
    let loaded = Config::load(&sources(preset(), &environment, &set)).unwrap();
    let config = &loaded.config;
    assert_eq!(config.source.kafka.brokers, "k1:9092,k2:9092");
    assert_eq!(config.metastore.uris, ["thrift://m1:9083", "thrift://m2:9083"]);
    assert_eq!(config.storage.warehouse, "hdfs://nn:8020/");
    assert_eq!(config.location("datalake/bronze"), "hdfs://nn:8020/datalake/bronze");
    assert_eq!(config.gold[0].refresh_interval.as_secs(), 60);
    assert_eq!(config.source.kafka.options["sasl.password"], "hunter2");
    let shown = loaded.show();
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_string();
    assert!(line("brokers").ends_with("# env KAFKA_BROKER"), "{shown}");
    assert!(line("warehouse").ends_with("# env HDFS_URL"), "{shown}");
    assert!(line("commit_interval").ends_with("# env LAKESMITH_PIPELINE__COMMIT_INTERVAL"), "{shown}");
    assert!(line("refresh_interval").ends_with("# flag --set"), "{shown}");
    assert!(line("\"sasl.password\"").contains("********"), "{shown}");
    assert!(!shown.contains("hunter2"));
    assert!(line("topic").contains("# preset amazon-sales:"), "{shown}");
}

#[test]
fn the_engines_that_must_read_are_known_ones() {
    let set = |engines: &str| sources(preset(), &[], &[&*format!("tables.compatibility={engines}")]);
    assert_eq!(Config::load(&set(r#"["trino", "hive-3.1"]"#)).unwrap().config.tables.compatibility.lake_codec().name(), "snappy");
    let unknown = problems(&set(r#"["hive-2"]"#));
    assert!(unknown.contains("tables.compatibility") && unknown.contains("hive-3.1"), "{unknown}");
    assert!(problems(&set("[]")).contains("tables.compatibility: names no engine"));
}

#[test]
fn no_table_lies_below_bronze_s_text_files() {
    let below = ["silver.location=datalake/bronze/amazon_sales/silver"];
    Config::load(&sources(preset(), &[], &below)).unwrap();
    let found = problems(&sources(preset(), &[], &[below[0], "bronze.format=hive"]));
    assert!(found.contains("silver.location: it is below bronze's directory"), "{found}");
    let other = problems(&sources(preset(), &[], &["bronze.format=orc"]));
    assert!(other.contains("bronze.format") && other.contains("hive"), "{other}");
    let beside = ["bronze.format=hive", "silver.location=datalake/bronze/amazon_sales_silver"];
    Config::load(&sources(preset(), &[], &beside)).unwrap();
}

#[test]
fn silver_in_plain_hive_form_is_checked_before_anything_runs() {
    Config::load(&sources(preset(), &[], &["silver.format=hive"])).unwrap();
    // The key had another meaning once.
    let messages = problems(&sources(preset(), &[], &["silver.format=json"]));
    assert!(messages.contains("silver.format") && messages.contains("silver.message_format"), "{messages}");
    let transform = ["silver.format=hive", "silver.partition_by=[\"month(OrderDate)\"]"];
    let found = problems(&sources(preset(), &[], &transform));
    assert!(found.contains("partitioned by columns alone") && found.contains("[[silver.derive]]"), "{found}");
    Config::load(&sources(preset(), &[], &transform[1..])).unwrap();
    let money = problems(&sources(preset(), &[], &["silver.format=hive", "silver.partition_by=[\"TotalAmount\"]"]));
    assert!(money.contains("TotalAmount"), "{money}");
    let below = ["silver.format=hive", "silver.rejected.location=datalake/silver/amazon_sales/rejected"];
    assert!(problems(&sources(preset(), &[], &below)).contains("below silver's directory"));
}

/// The DDL that people are given is what the preset's table is registered as.
#[test]
fn the_ddl_of_silver_has_the_preset_s_columns() {
    let config = Config::load(&sources(preset(), &[], &["silver.format=hive"])).unwrap().config;
    let plan = crate::silver::SilverPlan::new(&config.silver).unwrap();
    let spec = crate::table::logged::PartitionedSpec {
        ident: iceberg::TableIdent::from_strs(["a", "b"]).unwrap(),
        location: "file:///b".into(),
        schema: plan.arrow_schema(),
        partition_by: plan.partition_by().iter().map(|(column, _)| column.clone()).collect(),
        comment: String::new(),
    };
    let table = spec.logged().unwrap().table;
    let ddl = include_str!("../../hive/sql/silver_hive.sql");
    for columns in [&table.columns, &table.partition_keys] {
        let columns: Vec<_> = columns.iter().map(|column| format!("  `{}` {}", column.name, column.hive_type)).collect();
        assert!(ddl.to_lowercase().contains(&format!("(\n{}\n)", columns.join(",\n"))), "{columns:#?}");
    }
    for (key, value) in table.parameters.iter().filter(|(key, _)| key.starts_with("lakesmith")) {
        assert!(ddl.contains(&format!("'{key}' = '{value}'")), "{key} = {value}");
    }
}

#[test]
fn hadoop_s_files_speak_where_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let site = |name: &str, key: &str, value: &str| {
        let text = format!("<configuration><property><name>{key}</name><value>{value}</value></property></configuration>");
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    site("core-site.xml", "fs.defaultFS", "hdfs://cluster");
    site("hive-site.xml", "hive.metastore.uris", "thrift://hms:9083");
    let conf_dir = directory.path().to_str().unwrap();
    let text = PRESETS[0].text.replace("\nwarehouse = \"./lakehouse\"", "").replace("\nuris = []", "");
    let loaded = Config::load(&sources(file(&text), &[("HADOOP_CONF_DIR", conf_dir)], &[])).unwrap();
    assert_eq!(loaded.config.storage.warehouse, "hdfs://cluster/");
    assert_eq!(loaded.config.metastore.uris, ["thrift://hms:9083"]);
    assert!(loaded.show().contains("# hive-site.xml") && loaded.show().contains("# core-site.xml"));
    // The preset as it is says where to write: a Hadoop installed on the machine doesn't change that.
    let loaded = Config::load(&sources(preset(), &[("HADOOP_CONF_DIR", conf_dir)], &[])).unwrap();
    assert_eq!(loaded.config.storage.warehouse, "./lakehouse");
    assert!(loaded.config.metastore.uris.is_empty());
    let missing = problems(&sources(preset(), &[("HADOOP_CONF_DIR", "/nowhere/at/all")], &[]));
    assert!(
        missing.starts_with("environment variable HADOOP_CONF_DIR: storage.hadoop_conf_dir: /nowhere/at/all is not a directory"),
        "{missing}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = PRESETS[0]
        .text
        .replace("commit_interval = \"10s\"", "commit_intervall = \"10s\"")
        .replace("topic = \"supermarket-sales\"", "topik = \"x\"\ntopic = \"\"")
        .replace("refresh_interval = \"30s\"", "refresh_interval = \"2d\"")
        .replace("table = \"bronze_amazon_sales\"", "table = \"Bronze\"")
        .replace("dimensions = [\"Category\"", "dimensions = [\"Categori\"");
    let text = problems(&sources(file(&text), &[], &[]));
    for expected in [
        ": pipeline.commit_intervall: unknown key; did you mean `commit_interval`?",
        ": source.topik: unknown key; did you mean `topic`?",
        "source.topic is not set",
        ": gold.0.refresh_interval: 2days is not between 100ms and 1day",
        ": bronze.table: \"Bronze\" is not a name; use up to 128 letters of lower case",
        "Categori",
    ] {
        assert!(text.contains(expected), "{expected}\n\nis not in\n{text}");
    }
    assert!(text.starts_with("the configuration has 6 problems\n  p.toml:"), "{text}");
}

#[test]
fn two_tables_may_not_be_one() {
    let set = ["silver.table=bronze_amazon_sales", "silver.rejected.location=datalake/silver/amazon_sales/"];
    let text = problems(&sources(preset(), &[], &set));
    assert!(text.contains("flag --set: silver.table: bronze_amazon_sales is also the table of bronze"), "{text}");
    assert!(
        text.contains("silver.rejected.location: ./lakehouse/datalake/silver/amazon_sales is also the directory of silver"),
        "{text}"
    );
}

#[test]
fn a_pipeline_without_columns_is_sent_to_the_preset() {
    let text = problems(&sources(file("[source.kafka]\nbrokers = \"b:1\"\n"), &[], &[]));
    assert_eq!(text, "silver: no columns are declared; declare [[silver.columns]], or begin with `lakesmith init`");
    assert!(Config::load_unchecked(&sources(file(""), &[], &[])).is_ok());
}

#[test]
fn relative_paths_start_at_the_file() {
    let at = |directory: &str| PipelineFile { directory: directory.into(), ..preset() };
    let warehouse = |sources: &Sources| Config::load(sources).unwrap().config.storage.warehouse;
    assert_eq!(warehouse(&sources(at("conf"), &[], &[])), "conf/lakehouse");
    assert_eq!(warehouse(&sources(at("."), &[], &[])), "./lakehouse");
    assert_eq!(warehouse(&sources(at("conf"), &[], &["storage.warehouse=here"])), "here");
    assert_eq!(warehouse(&sources(at("conf"), &[], &["storage.warehouse=hdfs://n/w"])), "hdfs://n/w");
    let file_source = ["source.kind=file", "source.topic=", "source.file.path=sales.csv"];
    let config = Config::load(&sources(at("conf"), &[], &file_source)).unwrap().config;
    assert_eq!((config.source.topic.as_str(), config.source.file.path.to_str()), ("sales.csv", Some("sales.csv")));
    let text = PRESETS[0]
        .text
        .replace("kind = \"kafka\"\ntopic = \"supermarket-sales\"", "kind = \"file\"\ntopic = \"\"\nfile.path = \"sales.csv\"");
    let in_file = PipelineFile { text, ..at("conf") };
    let config = Config::load(&sources(in_file, &[], &[])).unwrap().config;
    assert_eq!((config.source.topic.as_str(), config.source.file.path.to_str()), ("sales.csv", Some("conf/sales.csv")));
}
