-- The same questions for Trino:
--   trino --server http://HOST:8080 --file hive/sql/trino.sql
-- Gold and its view are in the catalog `hive`, the Iceberg tables in `iceberg`.

SELECT * FROM hive.datalake.gold_amazon_sales_aggregated_view ORDER BY window_start DESC LIMIT 1000;

SELECT category, sum(total_revenue) AS revenue, sum(total_orders) AS orders
FROM hive.datalake.gold_amazon_sales_aggregated_view GROUP BY category ORDER BY revenue DESC;

SELECT orderid, orderdate, category, quantity, unitprice, totalamount
FROM iceberg.datalake.silver_amazon_sales WHERE year = 2024 AND month = 12 LIMIT 20;

SELECT stage, reason, count(*) AS records
FROM iceberg.datalake.silver_amazon_sales_rejected GROUP BY stage, reason ORDER BY records DESC;

SELECT committed_at, snapshot_id, operation, summary['lakesmith.complete-until'] AS complete_until
FROM iceberg.datalake."silver_amazon_sales$snapshots" ORDER BY committed_at DESC LIMIT 10;
