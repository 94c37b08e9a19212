-- Generates functions.tsv: every function name of pg_catalog with the strongest volatility over its overloads
-- (v volatile > s stable > i immutable).
-- Run on a database with no extensions but plpgsql, sorted by bytes:
--   psql -X -A -t -F "$(printf '\t')" -f functions.sql postgres > functions.tsv
SELECT p.proname,
       CASE max(CASE p.provolatile WHEN 'v' THEN 3 WHEN 's' THEN 2 ELSE 1 END)
            WHEN 3 THEN 'v' WHEN 2 THEN 's' ELSE 'i' END
  FROM pg_catalog.pg_proc p
 WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
 GROUP BY p.proname
 ORDER BY p.proname COLLATE "C";
