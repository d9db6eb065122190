-- Bronze, silver and rejected are Iceberg tables; Hive needs Iceberg's runtime (iceberg-hive-runtime) on its classpath.
-- Vectorised execution must be off for them: Hive 3.1 with Iceberg 1.4 fails on timestamps, decimals and zstd otherwise.
SET hive.vectorized.execution.enabled=false;

SELECT OrderID, OrderDate, Category, Quantity, UnitPrice, TotalAmount
FROM datalake.silver_amazon_sales WHERE Year = 2024 AND Month = 12 LIMIT 20;

SELECT Category, COUNT(*) AS orders, SUM(TotalAmount) AS revenue
FROM datalake.silver_amazon_sales GROUP BY Category ORDER BY revenue DESC;

SELECT stage, reason, COUNT(*) AS records FROM datalake.silver_amazon_sales_rejected GROUP BY stage, reason ORDER BY records DESC;
