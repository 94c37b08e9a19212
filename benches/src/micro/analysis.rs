//! Analysing SQL text: first sight, and from the cache.

use gateway_pg::analysis::{AnalysisCache, LexSettings, Limits, analyse};

use crate::report::Report;
use crate::sample::nanoseconds;
use crate::{Result, Size};

pub(super) fn run(size: Size, report: &mut Report) -> Result<()> {
    let settings = LexSettings { server_version_num: 150_000, ..LexSettings::default() };
    let limits = Limits::default();
    let cache = AnalysisCache::default();
    for (name, text) in STATEMENTS {
        let case = format!("analyse: {name} ({} bytes)", text.len());
        analyse(text, &settings, &limits).map_err(|error| format!("{case}: {error}"))?;
        let uncached = nanoseconds(size, || analyse(text, &settings, &limits).is_ok());
        report.add(&case, "uncached", "time", uncached, "ns");
        let cached = nanoseconds(size, || cache.analyse(text.as_bytes(), &settings).is_ok());
        report.add(&case, "cached", "time", cached, "ns");
    }
    Ok(())
}

const STATEMENTS: [(&str, &str); 12] = [
    ("select 1", "SELECT 1"),
    ("primary key", "SELECT abalance FROM pgbench_accounts WHERE aid = $1"),
    (
        "orm, 10 columns",
        "SELECT \"orders\".\"id\", \"orders\".\"customer_id\", \"orders\".\"status\", \"orders\".\"total\", \
         \"orders\".\"currency\", \"orders\".\"created_at\", \"orders\".\"updated_at\", \"orders\".\"note\", \
         \"orders\".\"region\", \"orders\".\"channel\" FROM \"orders\" WHERE \"orders\".\"customer_id\" = $1 \
         AND \"orders\".\"status\" IN ($2, $3) ORDER BY \"orders\".\"created_at\" DESC LIMIT $4 OFFSET $5",
    ),
    (
        "insert on conflict",
        "INSERT INTO inventory (sku, warehouse, quantity, updated_at) VALUES ($1, $2, $3, now()) \
         ON CONFLICT (sku, warehouse) DO UPDATE SET quantity = inventory.quantity + excluded.quantity",
    ),
    ("update", "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2"),
    ("delete", "DELETE FROM sessions WHERE expires_at < now() AND user_id <> $1"),
    (
        "join, aggregate",
        "SELECT c.region, date_trunc('month', o.created_at) AS month, count(*) AS orders, sum(o.total) AS total \
         FROM orders o JOIN customers c ON c.id = o.customer_id LEFT JOIN refunds r ON r.order_id = o.id \
         WHERE o.status = 'paid' AND r.id IS NULL GROUP BY c.region, month HAVING sum(o.total) > 1000 ORDER BY 4",
    ),
    (
        "cte with dml",
        "WITH moved AS (DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT 10 FOR UPDATE \
         SKIP LOCKED) RETURNING *) INSERT INTO archive SELECT m.*, now() FROM moved m RETURNING id",
    ),
    (
        "window",
        "SELECT id, region, total, rank() OVER (PARTITION BY region ORDER BY total DESC) AS place, \
         sum(total) OVER (PARTITION BY region) FROM orders WHERE created_at > $1",
    ),
    (
        "jsonb, lateral",
        "SELECT e.id, i.value ->> 'sku' AS sku, (i.value ->> 'qty')::int AS qty FROM events e, \
         LATERAL jsonb_array_elements(e.payload -> 'items') AS i(value) WHERE e.payload @> $1 LIMIT 50",
    ),
    (
        "catalog",
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT \
         pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = \
         a.attrelid AND d.adnum = a.attnum AND a.atthasdef), a.attnotnull, (SELECT c.collname FROM \
         pg_catalog.pg_collation c, pg_catalog.pg_type t WHERE c.oid = a.attcollation AND t.oid = a.atttypid \
         AND a.attcollation <> t.typcollation) AS attcollation, a.attidentity, a.attgenerated FROM \
         pg_catalog.pg_attribute a WHERE a.attrelid = '16384' AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attnum",
    ),
    ("copy", "COPY (SELECT id, note FROM wide WHERE id < 1000) TO STDOUT"),
];
