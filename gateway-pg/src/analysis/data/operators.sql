-- Generates operators.txt: every operator name of pg_catalog, sorted by bytes:
--   psql -X -A -t -f operators.sql postgres > operators.txt
SELECT DISTINCT o.oprname COLLATE "C" AS name
  FROM pg_catalog.pg_operator o
 WHERE o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace
 ORDER BY name;
