-- The questions that a dashboard of the amazon-sales preset asks, for Beeline:
--   beeline -u jdbc:hive2://HOST:10000/datalake -f hive/sql/dashboard.sql
-- Gold and its view are native Hive tables. Filters on window_date read only the partitions they name.

SELECT * FROM datalake.gold_amazon_sales_aggregated_view ORDER BY window_start DESC LIMIT 1000;

SELECT category, SUM(total_revenue) AS revenue, SUM(total_orders) AS orders
FROM datalake.gold_amazon_sales_aggregated_view GROUP BY category ORDER BY revenue DESC;

SELECT country, SUM(total_revenue) AS revenue FROM datalake.gold_amazon_sales_aggregated_view GROUP BY country ORDER BY revenue DESC;

SELECT payment_method, SUM(total_revenue) AS revenue, SUM(total_orders) AS orders
FROM datalake.gold_amazon_sales_aggregated_view GROUP BY payment_method ORDER BY revenue DESC;

SHOW PARTITIONS datalake.gold_amazon_sales_aggregated;
