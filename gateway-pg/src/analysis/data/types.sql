-- Generates types.txt: every type name of pg_catalog that is no array and no row type of a catalog, sorted by bytes:
--   psql -X -A -t -f types.sql postgres > types.txt
SELECT t.typname
  FROM pg_catalog.pg_type t
 WHERE t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
   AND t.typcategory <> 'A' AND t.typtype <> 'c'
 ORDER BY t.typname COLLATE "C";
