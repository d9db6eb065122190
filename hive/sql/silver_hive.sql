-- Silver in plain Hive form (silver.format = "hive"), as `lakesmith run` registers it with the preset's columns; for people who want to see it, or
-- have to register the files of a table again whose entry was dropped: its progress is in `_lakesmith`, below its directory.

CREATE EXTERNAL TABLE datalake.silver_amazon_sales (
  `topic` STRING,
  `partition` INT,
  `offset` BIGINT,
  `kafka_timestamp` TIMESTAMP,
  `OrderID` STRING,
  `OrderDate` DATE,
  `CustomerID` STRING,
  `CustomerName` STRING,
  `ProductID` STRING,
  `ProductName` STRING,
  `Category` STRING,
  `Brand` STRING,
  `Quantity` INT,
  `UnitPrice` DECIMAL(10,2),
  `Discount` DECIMAL(5,4),
  `Tax` DECIMAL(10,2),
  `ShippingCost` DECIMAL(10,2),
  `TotalAmount` DECIMAL(12,2),
  `PaymentMethod` STRING,
  `OrderStatus` STRING,
  `City` STRING,
  `State` STRING,
  `Country` STRING,
  `SellerID` STRING,
  `Quarter` INT,
  `DayOfWeek` INT,
  `Revenue` DECIMAL(18,2),
  `DiscountAmount` DECIMAL(18,4),
  `NetRevenue` DECIMAL(18,4),
  `processing_timestamp` TIMESTAMP
)
PARTITIONED BY (
  `Year` INT,
  `Month` INT
)
STORED AS PARQUET
LOCATION 'hdfs://namenode:8020/datalake/silver/amazon_sales'
TBLPROPERTIES (
  'lakesmith.commit-log' = '_lakesmith',
  'lakesmith.partition-columns' = 'Year,Month'
);

-- lakesmith adds each partition when its first file comes. After a new CREATE they are added like this:
--   ALTER TABLE datalake.silver_amazon_sales ADD IF NOT EXISTS
--     PARTITION (Year = 2026, Month = 11) LOCATION 'hdfs://namenode:8020/datalake/silver/amazon_sales/Year=2026/Month=11';

-- What is in it:
--   hdfs dfs -ls -R /datalake/silver/amazon_sales       each file's name says its commit, topic partitions and offsets
SHOW PARTITIONS datalake.silver_amazon_sales;
SELECT Category, COUNT(*) AS orders, SUM(TotalAmount) AS revenue
FROM datalake.silver_amazon_sales WHERE Year = 2024 AND Month = 12 GROUP BY Category ORDER BY revenue DESC;
