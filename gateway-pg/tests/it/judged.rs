//! What the server's analysed tree has is judged too, where the text does not say it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyInput};
use testkit::raw_pg::RawPg;

use crate::support::{TOKEN, gateway};

const SETUP: &str = "CREATE FUNCTION plain() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE TABLE keys (id integer PRIMARY KEY);
CREATE TABLE deeper (id integer);
CREATE TABLE guarded (id integer CONSTRAINT only_once PRIMARY KEY);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_keys ON guarded USING (EXISTS (SELECT FROM keys k WHERE k.id = guarded.id));
CREATE POLICY by_deeper ON keys USING (id IN (SELECT d.id FROM deeper d));
CREATE VIEW shown AS SELECT id FROM guarded;
CREATE VIEW catalogued AS SELECT relname FROM pg_catalog.pg_class;
CREATE TABLE told (id integer, twice integer);
CREATE TABLE counted (id integer PRIMARY KEY, n integer);
CREATE RULE told AS ON INSERT TO told DO ALSO INSERT INTO counted VALUES (new.id, 1) ON CONFLICT (id) DO UPDATE SET n = 2;
CREATE TABLE turned (id integer);
CREATE RULE turned AS ON INSERT TO turned WHERE EXISTS (SELECT FROM turned t WHERE t.id = new.id) DO INSTEAD
    UPDATE turned SET id = 0 WHERE turned.id = new.id;
CREATE FUNCTION seen(integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
CREATE TABLE watched (id integer CHECK (seen(id)));
CREATE MATERIALIZED VIEW kept AS SELECT name FROM products;";

/// Accesses as action, schema and name.
type Accesses = &'static [(&'static str, &'static str, &'static str)];

/// A statement and accesses it must be judged for.
const JUDGED: [(&str, Accesses); 27] = [
    ("ALTER TABLE watched ALTER COLUMN id TYPE bigint", &[("call", "public", "seen")]),
    ("CREATE INDEX ON watched (id)", &[("call", "public", "seen")]),
    ("REINDEX TABLE watched", &[("call", "public", "seen"), ("maintain", "public", "watched")]),
    (
        "CREATE OR REPLACE VIEW shown AS SELECT 1 AS id",
        &[("create", "public", "shown"), ("alter", "public", "shown")],
    ),
    (
        "CREATE OR REPLACE FUNCTION plain() RETURNS integer LANGUAGE sql AS 'SELECT 2'",
        &[("create", "public", "plain"), ("alter", "public", "plain")],
    ),
    ("CREATE RULE keys AS ON DELETE TO keys DO INSTEAD NOTHING", &[("alter", "public", "keys")]),
    ("CREATE POLICY keys ON keys USING (true)", &[("alter", "public", "keys")]),
    ("CREATE STATISTICS public.told ON id, twice FROM told", &[("alter", "public", "told")]),
    ("CREATE INDEX told ON public.told (twice)", &[("alter", "public", "told")]),
    (
        "CREATE TABLE other.told () INHERITS (public.told)",
        &[("alter", "public", "told"), ("insert", "public", "told")],
    ),
    ("CREATE TABLE fresh (id integer)", &[("create", "public", "fresh")]),
    ("SELECT id FROM guarded", &[("select", "public", "keys"), ("select", "public", "deeper")]),
    ("SELECT id FROM shown", &[("select", "public", "keys"), ("select", "public", "deeper")]),
    ("DELETE FROM guarded WHERE id = 1", &[("delete", "public", "guarded"), ("select", "public", "keys")]),
    (
        "INSERT INTO told VALUES (1)",
        &[("insert", "public", "counted"), ("update", "public", "counted"), ("select", "public", "counted")],
    ),
    ("INSERT INTO turned VALUES (1)", &[("update", "public", "turned"), ("select", "public", "turned")]),
    ("SELECT * FROM catalogued", &[("select", "pg_catalog", "pg_class")]),
    ("REFRESH MATERIALIZED VIEW kept", &[("maintain", "public", "kept"), ("select", "public", "products")]),
    (
        "INSERT INTO guarded VALUES (1) ON CONFLICT ON CONSTRAINT only_once DO NOTHING",
        &[("insert", "public", "guarded"), ("select", "public", "guarded")],
    ),
    ("COMMENT ON COLUMN products.name IS 'said'", &[("comment", "public", "products")]),
    ("CREATE SCHEMA made CREATE TABLE t (id integer)", &[("create", "made", "t")]),
    ("COMMENT ON FUNCTION plain() IS 'said'", &[("comment", "public", "plain")]),
    ("GRANT EXECUTE ON FUNCTION lower(text) TO app", &[("grant", "pg_catalog", "lower")]),
    ("CREATE AGGREGATE total(integer) (SFUNC = int4pl, STYPE = integer)", &[("create", "public", "total")]),
    ("ALTER ROUTINE plain() RENAME TO other", &[("alter", "public", "plain"), ("create", "public", "other")]),
    ("DROP FUNCTION plain()", &[("drop", "public", "plain")]),
    ("DROP FUNCTION IF EXISTS nowhere()", &[("drop", "(unresolved)", "nowhere")]),
];

type Judged = BTreeSet<(String, String, String)>;

#[test]
fn what_the_text_does_not_say_is_judged_too() {
    let judged: Arc<Mutex<Judged>> = Arc::default();
    let seen = Arc::clone(&judged);
    let policy = FnPolicy(move |input: &PolicyInput<'_>| {
        let accesses = input.operation.accesses.iter().map(|access| {
            let schema = access.resource.path().get(2).map_or("", |(_, name)| name);
            (access.action.as_str().to_owned(), schema.to_owned(), access.resource.name().to_owned())
        });
        seen.lock().unwrap().extend(accesses);
        Decision::Allow(Allowed::default())
    });
    let gateway = gateway(policy, &[]);
    gateway.directly(SETUP);
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, TOKEN).await.unwrap();
        for (sql, wanted) in JUDGED {
            judged.lock().unwrap().clear();
            // Not all of them may do what they say: they are judged before that.
            client.query(sql).await.unwrap();
            let found = judged.lock().unwrap().clone();
            for (action, schema, name) in wanted {
                let access = ((*action).to_owned(), (*schema).to_owned(), (*name).to_owned());
                assert!(found.contains(&access), "{sql}: {access:?} is not in {found:?}");
            }
        }
    });
}
