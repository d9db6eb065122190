-- Bronze in plain Hive form (bronze.format = "hive"), as `lakesmith run` registers it; for people who want to see it, or have to register the
-- files of a table again whose entry was dropped: its progress is in the files.
--
-- Hive needs the SerDe's jar, which a release has in hcatalog/share/hcatalog:
--   ADD JAR /opt/hive/hcatalog/share/hcatalog/hive-hcatalog-core-4.0.1.jar;
-- Spark reads by its own source, which the parameters below name; Trino knows the SerDe.

CREATE EXTERNAL TABLE datalake.bronze_amazon_sales (
  `topic` STRING,
  `partition` INT,
  `offset` BIGINT,
  `timestamp` TIMESTAMP,
  `key` STRING,
  `value` STRING,
  `headers` ARRAY<STRUCT<key:STRING,value:STRING,value_base64:STRING>>,
  `ingested_at` TIMESTAMP,
  `key_base64` STRING,
  `value_base64` STRING
)
ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'
WITH SERDEPROPERTIES ('path' = 'hdfs://namenode:8020/datalake/bronze/amazon_sales')
STORED AS INPUTFORMAT 'org.apache.hadoop.mapred.TextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 'hdfs://namenode:8020/datalake/bronze/amazon_sales'
TBLPROPERTIES (
  'lakesmith.commit-log' = '_lakesmith',
  'spark.sql.sources.provider' = 'json',
  'spark.sql.sources.schema' = '{"type":"struct","fields":[{"name":"topic","type":"string","nullable":true,"metadata":{}},{"name":"partition","type":"integer","nullable":true,"metadata":{}},{"name":"offset","type":"long","nullable":true,"metadata":{}},{"name":"timestamp","type":"timestamp","nullable":true,"metadata":{}},{"name":"key","type":"string","nullable":true,"metadata":{}},{"name":"value","type":"string","nullable":true,"metadata":{}},{"name":"headers","type":{"type":"array","elementType":{"type":"struct","fields":[{"name":"key","type":"string","nullable":true,"metadata":{}},{"name":"value","type":"string","nullable":true,"metadata":{}},{"name":"value_base64","type":"string","nullable":true,"metadata":{}}]},"containsNull":true},"nullable":true,"metadata":{}},{"name":"ingested_at","type":"timestamp","nullable":true,"metadata":{}},{"name":"key_base64","type":"string","nullable":true,"metadata":{}},{"name":"value_base64","type":"string","nullable":true,"metadata":{}}]}'
);

-- What is in it:
--   hdfs dfs -ls /datalake/bronze/amazon_sales          each file's name says its commit, topic partitions and offsets
--   hdfs dfs -cat '/datalake/bronze/amazon_sales/*.json' | head
SELECT `partition`, COUNT(*), MIN(`offset`), MAX(`offset`), MAX(`timestamp`) FROM datalake.bronze_amazon_sales GROUP BY `partition`;
SELECT `value` FROM datalake.bronze_amazon_sales LIMIT 10;
-- Bytes that are no text:
SELECT `partition`, `offset`, UNBASE64(value_base64) FROM datalake.bronze_amazon_sales WHERE value_base64 IS NOT NULL;
