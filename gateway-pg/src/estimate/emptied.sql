-- What TRUNCATE empties: $1 object ids of relations, $2 whether with CASCADE. Partitions and children go with a table, and with CASCADE every
-- table whose foreign keys refer to one that is emptied. Runs with an empty search path.
WITH RECURSIVE emptied(id) AS (
  SELECT o.oid FROM unnest($1::oid[]) AS o(oid)
  UNION
  SELECT x.id FROM emptied e, LATERAL (
    SELECT i.inhrelid AS id FROM pg_inherits i WHERE i.inhparent = e.id
    UNION ALL
    SELECT k.conrelid FROM pg_constraint k WHERE k.confrelid = e.id AND k.contype = 'f' AND $2
  ) x
)
SELECT e.id::text, NULL FROM emptied e LIMIT 1000
