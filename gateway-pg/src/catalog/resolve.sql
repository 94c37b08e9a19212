-- $1 relation names as written (quoted), $2 function names, $3 type names as written (quoted); answers what they mean to this session right now.
-- Every function, type and operator is qualified: this runs under the agent's search_path.
WITH RECURSIVE asked AS (
  SELECT n.ord, pg_catalog.to_regclass(n.name)::pg_catalog.oid AS oid
  -- Told the length of the list, the planner takes the recursion for a large one and compiles this for seconds (JIT).
  FROM pg_catalog.unnest(ARRAY(SELECT u.name FROM pg_catalog.unnest($1::pg_catalog.text[]) AS u(name))) WITH ORDINALITY AS n(name, ord)
), reach(oid) AS (
  SELECT a.oid FROM asked a WHERE a.oid IS NOT NULL
  UNION
  SELECT x.oid FROM reach r, LATERAL (
    SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i
    WHERE i.inhrelid OPERATOR(pg_catalog.=) r.oid
    UNION ALL
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i
    WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_rewrite w
    JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) w.oid
    WHERE w.ev_class OPERATOR(pg_catalog.=) r.oid
      AND d.classid OPERATOR(pg_catalog.=) 2618::pg_catalog.oid   -- pg_rewrite
      AND d.refclassid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid -- pg_class
      AND d.refobjid OPERATOR(pg_catalog.<>) w.ev_class
    UNION ALL
    -- The server does not note that a user's view depends on the server's own tables (up to 11999: FirstUnpinnedObjectId).
    SELECT (m.part)[1]::pg_catalog.oid FROM pg_catalog.pg_rewrite w,
      LATERAL pg_catalog.regexp_matches(w.ev_action::pg_catalog.text, ':relid ([1-9]\d{0,3}|1[01]\d{3}) ', 'g') AS m(part)
    WHERE w.ev_class OPERATOR(pg_catalog.=) r.oid AND r.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    -- What row policies read.
    SELECT (m.part)[1]::pg_catalog.oid FROM pg_catalog.pg_policy q,
      LATERAL pg_catalog.regexp_matches(pg_catalog.concat(q.polqual, q.polwithcheck), ':relid ([1-9]\d*) ', 'g') AS m(part)
    WHERE q.polrelid OPERATOR(pg_catalog.=) r.oid
    UNION ALL
    -- The table whose long values a TOAST table holds; those of the server's own tables name none.
    SELECT d.refobjid FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) d.objid
    WHERE d.objid OPERATOR(pg_catalog.=) r.oid AND t.relkind OPERATOR(pg_catalog.=) 't'::pg_catalog."char"
      AND d.classid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.refclassid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid
    UNION ALL
    SELECT k.conrelid FROM pg_catalog.pg_constraint k
    WHERE k.confrelid OPERATOR(pg_catalog.=) r.oid AND (k.confdeltype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
      OR k.confupdtype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[]))
  ) x
), named AS (
  -- `to_regtype` fails for a type that is only announced (CREATE TYPE without a definition): where there is one of that name, the same by hand.
  SELECT n.ord, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type s
      WHERE s.typname OPERATOR(pg_catalog.=) p.name AND NOT s.typisdefined)
    THEN (SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typname OPERATOR(pg_catalog.=) p.name AND CASE
      WHEN p.schema IS NULL THEN pg_catalog.pg_type_is_visible(t.oid)
      WHEN p.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
      ELSE t.typnamespace OPERATOR(pg_catalog.=) (SELECT w.oid FROM pg_catalog.pg_namespace w
        WHERE w.nspname OPERATOR(pg_catalog.=) p.schema::pg_catalog.name) END)
    ELSE pg_catalog.to_regtype(n.name)::pg_catalog.oid END AS oid
  FROM pg_catalog.unnest(ARRAY(SELECT u.name FROM pg_catalog.unnest($3::pg_catalog.text[]) AS u(name))) WITH ORDINALITY AS n(name, ord),
    LATERAL (SELECT pg_catalog.parse_ident(n.name) AS words) w,
    LATERAL (SELECT w.words[pg_catalog.cardinality(w.words)]::pg_catalog.name AS name,
      w.words[pg_catalog.cardinality(w.words) OPERATOR(pg_catalog.-) 1] AS schema) p
), kinds(oid) AS (
  -- User types that values of these relations and types can be made of: of columns, rows, elements, domains, ranges, fields.
  SELECT s.oid FROM (
    SELECT t.atttypid AS oid FROM pg_catalog.pg_attribute t
    WHERE t.attrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.oid FROM reach r)) AND t.attnum OPERATOR(pg_catalog.>) 0 AND NOT t.attisdropped
    UNION ALL
    SELECT c.reltype FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.oid FROM reach r))
    UNION ALL
    SELECT m.oid FROM named m
  ) s WHERE s.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
  UNION
  SELECT x.oid FROM kinds k, LATERAL (
    SELECT u.oid FROM pg_catalog.pg_type t, LATERAL (VALUES (t.typelem), (t.typbasetype), (t.typarray)) AS u(oid)
    WHERE t.oid OPERATOR(pg_catalog.=) k.oid
    UNION ALL
    SELECT u.oid FROM pg_catalog.pg_range g, LATERAL (VALUES (g.rngtypid), (g.rngmultitypid), (g.rngsubtype)) AS u(oid)
    WHERE g.rngtypid OPERATOR(pg_catalog.=) k.oid OR g.rngmultitypid OPERATOR(pg_catalog.=) k.oid
    UNION ALL
    SELECT a.atttypid FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) t.typrelid
    WHERE t.oid OPERATOR(pg_catalog.=) k.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
  ) x
  WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
)
SELECT 'schema', pg_catalog.current_schema()::pg_catalog.text, pg_catalog.current_setting('transaction_isolation'),
  pg_catalog.current_setting('standard_conforming_strings'), pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('search_path'), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
UNION ALL
SELECT 'name', a.ord::pg_catalog.text, a.oid::pg_catalog.text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM asked a
UNION ALL
SELECT 'relation', c.oid::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.relkind::pg_catalog.text,
  (SELECT pg_catalog.string_agg(DISTINCT p.oid::pg_catalog.text, ',') FROM (
     SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid
     UNION ALL
     SELECT d.refobjid FROM pg_catalog.pg_rewrite w
     JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) w.oid
     WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid AND d.classid OPERATOR(pg_catalog.=) 2618::pg_catalog.oid
       AND d.refclassid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.<>) w.ev_class
     UNION ALL
     SELECT (m.part)[1]::pg_catalog.oid FROM pg_catalog.pg_rewrite w,
       LATERAL pg_catalog.regexp_matches(w.ev_action::pg_catalog.text, ':relid ([1-9]\d{0,3}|1[01]\d{3}) ', 'g') AS m(part)
     WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
     UNION ALL
     SELECT d.refobjid FROM pg_catalog.pg_depend d
     WHERE d.objid OPERATOR(pg_catalog.=) c.oid AND c.relkind OPERATOR(pg_catalog.=) 't'::pg_catalog."char"
       AND d.classid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.refclassid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid
  ) p),
  (SELECT pg_catalog.json_object_agg(t.attnum, pg_catalog.json_build_array(t.attname, t.atttypid::pg_catalog.int8))::pg_catalog.text FROM pg_catalog.pg_attribute t
   WHERE t.attrelid OPERATOR(pg_catalog.=) c.oid AND t.attnum OPERATOR(pg_catalog.>) 0 AND NOT t.attisdropped),
  -- The origin of each view column: target entries of the stored query tree, outer and inner alike. In a name every blank, tab and line
  -- feed has a backslash before it, and no other white space (outToken in the server's source, nodes/outfuncs.c).
  -- If there are more entries than were read, nothing is known of any.
  COALESCE((SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) (
       SELECT pg_catalog.count(*) FROM pg_catalog.pg_rewrite x, LATERAL pg_catalog.regexp_matches(x.ev_action::pg_catalog.text, ':resno ', 'g')
       WHERE x.ev_class OPERATOR(pg_catalog.=) c.oid)
     THEN pg_catalog.string_agg(pg_catalog.array_to_string(m.part, ':'), ',') END
   FROM pg_catalog.pg_rewrite w,
     LATERAL pg_catalog.regexp_matches(w.ev_action::pg_catalog.text,
       ':resno (\d+) :resname (?:[^ \t\n\\]|\\.)+ :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (-?\d+)', 'g') AS m(part)
   WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['v','m']::pg_catalog."char"[])),
    -- Of a table: its generated columns, which may carry anything of it. They are there from version 12 on.
    (SELECT pg_catalog.string_agg(pg_catalog.concat(t.attnum, ':0:0'), ',') FROM pg_catalog.pg_attribute t
     WHERE t.attrelid OPERATOR(pg_catalog.=) c.oid AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','f']::pg_catalog."char"[]) AND t.attnum OPERATOR(pg_catalog.>) 0
       AND (pg_catalog.to_jsonb(t) OPERATOR(pg_catalog.->>) 'attgenerated') OPERATOR(pg_catalog.<>) '')),
  (SELECT pg_catalog.string_agg(i.inhrelid::pg_catalog.text, ',') FROM pg_catalog.pg_inherits i
   WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid),
  -- The functions that run by themselves when it is used: of stored queries, triggers, defaults, checks, indexes, row policies.
  -- events: 1 read, 2 before the event, 4 insert, 8 delete, 16 update, 32 truncate (those of pg_trigger.tgtype), 64 maintenance. The
  -- server's own views are left out. Up to version 14 the triggers that a partition has from its table count as the server's own (tgisinternal).
  (SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(f.nspname, p.proname, s.events, s.via,
     pg_catalog.md5(pg_catalog.to_jsonb(p)::pg_catalog.text)))::pg_catalog.text
   FROM (
     SELECT t.tgfoid AS oid, t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 62 AS events, 'trigger' AS via
     FROM pg_catalog.pg_trigger t
     WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
     UNION ALL
     SELECT (m.part)[1]::pg_catalog.oid, e.events, e.via
     FROM (
       SELECT pg_catalog.concat(w.ev_qual, w.ev_action) AS tree, 63 AS events, 'view' AS via
       FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT pg_catalog.concat(q.polqual, q.polwithcheck), 63, 'policy'
       FROM pg_catalog.pg_policy q WHERE q.polrelid OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT d.adbin::pg_catalog.text, 20, 'default'
       FROM pg_catalog.pg_attrdef d WHERE d.adrelid OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT k.conbin::pg_catalog.text, 20, 'check'
       FROM pg_catalog.pg_constraint k WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.=) 'c'::pg_catalog."char"
       UNION ALL
       SELECT pg_catalog.concat(i.indexprs, i.indpred), 20, 'index'
       FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT t.partexprs::pg_catalog.text, 20, 'partition'
       FROM pg_catalog.pg_partitioned_table t WHERE t.partrelid OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT pg_catalog.to_jsonb(x) OPERATOR(pg_catalog.->>) 'stxexprs', 64, 'statistics'
       FROM pg_catalog.pg_statistic_ext x WHERE x.stxrelid OPERATOR(pg_catalog.=) c.oid
       UNION ALL
       SELECT t.tgqual::pg_catalog.text, t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 62, 'trigger'
       FROM pg_catalog.pg_trigger t
       WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
     ) e, LATERAL pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS m(part)
   ) s
   JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) s.oid
   JOIN pg_catalog.pg_namespace f ON f.oid OPERATOR(pg_catalog.=) p.pronamespace
   WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
     AND (s.via OPERATOR(pg_catalog.=) ANY ('{view,policy}'::pg_catalog.text[]) OR p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
       OR p.proname OPERATOR(pg_catalog.=) 'set_config'::pg_catalog.name)),
  -- Any change of a definition changes this.
  (SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat(w.ev_enabled, w.ev_qual, w.ev_action), '' ORDER BY w.oid))
   FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid),
  -- The foreign keys through which changing it changes other tables: action on delete, on update, the table, the columns referred to.
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', k.confdeltype, k.confupdtype, k.conrelid, pg_catalog.array_to_string(k.confkey, '+')), ',')
   FROM pg_catalog.pg_constraint k
   WHERE k.confrelid OPERATOR(pg_catalog.=) c.oid AND (k.confdeltype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
     OR k.confupdtype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[]))),
  -- Rules: on which event, the commands anywhere in what they do (ON CONFLICT DO UPDATE has the number of an update), and whether they
  -- touch the relation itself: then it is among the tables of theirs more often than as OLD and NEW.
  (SELECT pg_catalog.string_agg(pg_catalog.concat(w.ev_type, ':', (
     SELECT pg_catalog.string_agg(DISTINCT (m.part)[1], '+')
     FROM pg_catalog.regexp_matches(w.ev_action::pg_catalog.text, ':(?:commandType|onConflict \{ONCONFLICTEXPR :action) (\d+)', 'g') AS m(part)),
     CASE WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(pg_catalog.concat(w.ev_qual, w.ev_action),
         pg_catalog.concat(':rtekind 0 :relid ', c.oid, ' '), 'g'))
       OPERATOR(pg_catalog.>) (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(w.ev_action::pg_catalog.text,
         ':alias \{ALIAS :aliasname (?:old|new) :colnames <>\} :eref \{ALIAS :aliasname (?:old|new) ', 'g'))
     THEN ':self' END), ',')
   FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid AND w.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog."char"),
  -- What its row policies read.
  (SELECT pg_catalog.string_agg(DISTINCT (m.part)[1], ',') FROM pg_catalog.pg_policy q,
     LATERAL pg_catalog.regexp_matches(pg_catalog.concat(q.polqual, q.polwithcheck), ':relid ([1-9]\d*) ', 'g') AS m(part)
   WHERE q.polrelid OPERATOR(pg_catalog.=) c.oid),
  -- The columns by which it is divided into partitions, those in expressions (number 0) among them.
  (SELECT pg_catalog.string_agg(DISTINCT k.attnum, ',') FROM pg_catalog.pg_partitioned_table t, LATERAL (
     SELECT u.attnum::pg_catalog.text FROM pg_catalog.unnest(t.partattrs::pg_catalog.int2[]) AS u(attnum)
     UNION ALL
     SELECT (m.part)[1] FROM pg_catalog.regexp_matches(t.partexprs::pg_catalog.text, ':varattno (\d+) ', 'g') AS m(part)
   ) AS k(attnum)
   WHERE t.partrelid OPERATOR(pg_catalog.=) c.oid),
  -- The columns that are compared with each other, or together with those of other rows, by each check, key and exclusion; 0 is any.
  (SELECT pg_catalog.string_agg(g.attnums, ',') FROM (
     SELECT pg_catalog.array_to_string(k.conkey, '+') AS attnums FROM pg_catalog.pg_constraint k
     WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.=) 'c'::pg_catalog."char"
     UNION ALL
     SELECT (SELECT pg_catalog.string_agg(DISTINCT u.attnum, '+') FROM (
         SELECT n.attnum::pg_catalog.text AS attnum FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) AS n(attnum)
         WHERE n.attnum OPERATOR(pg_catalog.>) 0
         UNION ALL
         SELECT (m.part)[1] FROM pg_catalog.regexp_matches(pg_catalog.concat(i.indexprs, i.indpred), ':varattno (\d+) ', 'g') AS m(part)) u)
     FROM pg_catalog.pg_index i
     WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND (i.indisunique OR i.indisexclusion)
   ) g)
-- As an array: the planner takes a recursive query for a large one, and then compiles this for longer than it runs (JIT).
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.oid FROM reach r))
UNION ALL
-- The functions of each name, in any schema: the schema, whether it is on the path, and a digest of all their definitions.
SELECT 'function', p.proname::pg_catalog.text, n.nspname::pg_catalog.text,
  (n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true)))::pg_catalog.text,
  pg_catalog.md5(pg_catalog.string_agg(pg_catalog.to_jsonb(p)::pg_catalog.text, '' ORDER BY p.oid)),
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.proname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]::pg_catalog.name[])
  AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name
GROUP BY p.proname, n.nspname
UNION ALL
-- An unqualified operator may be a user's if one of that name lies in a schema on the path.
SELECT 'function', ('operator ' OPERATOR(pg_catalog.||) o.oprname::pg_catalog.text), n.nspname::pg_catalog.text, 'true',
  pg_catalog.md5(pg_catalog.string_agg(pg_catalog.to_jsonb(o)::pg_catalog.text, '' ORDER BY o.oid)),
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE ('operator ' OPERATOR(pg_catalog.||) o.oprname::pg_catalog.text) OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
  AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name
  AND n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true))
GROUP BY o.oprname, n.nspname
UNION ALL
-- `('x').trap` and `trap('x')` are casts if there is a type of that name (FuncNameAsType): any of a user's on the path; and `r.trap` of a row,
-- if the type is a domain of a row.
SELECT DISTINCT 'function', a.name, n.nspname::pg_catalog.text, 'true', t.oid::pg_catalog.text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.unnest($2::pg_catalog.text[]) AS a(name)
JOIN pg_catalog.pg_type t ON t.typname OPERATOR(pg_catalog.=) pg_catalog.regexp_replace(a.name, '^(?:row )?type ', '')::pg_catalog.name
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
WHERE a.name OPERATOR(pg_catalog.~) '^(?:row )?type ' AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
  AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name
  AND n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true))
  AND (a.name OPERATOR(pg_catalog.~) '^type '
    OR EXISTS (SELECT FROM pg_catalog.pg_type b
      WHERE b.oid OPERATOR(pg_catalog.=) t.typbasetype AND b.typtype OPERATOR(pg_catalog.=) ANY ('{c,d}'::pg_catalog."char"[])))
UNION ALL
SELECT 'typename', m.ord::pg_catalog.text, m.oid::pg_catalog.text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM named m
UNION ALL
-- How values of a user type are made: element, base, bounds, fields, first label, and which function sends them.
SELECT 'type', t.oid::pg_catalog.text, n.nspname::pg_catalog.text, t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
  t.typelem::pg_catalog.text, t.typbasetype::pg_catalog.text,
  (SELECT g.rngsubtype::pg_catalog.text FROM pg_catalog.pg_range g
   WHERE g.rngtypid OPERATOR(pg_catalog.=) t.oid OR g.rngmultitypid OPERATOR(pg_catalog.=) t.oid),
  (SELECT pg_catalog.string_agg(a.atttypid::pg_catalog.text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
   WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped),
  (SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid OPERATOR(pg_catalog.=) t.oid
   ORDER BY e.enumsortorder USING OPERATOR(pg_catalog.<) LIMIT 1),
  p.proname::pg_catalog.text, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
LEFT JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.typsend::pg_catalog.oid
WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT k.oid FROM kinds k))
