//! Stock clients work unmodified when everything is allowed.

use std::process::Command;
use std::time::Duration;

use crate::support::{Gateway, allow_all, gateway};

fn psql(gateway: &Gateway, script: &str) -> String {
    testkit::psql_script(&gateway.url(), script).unwrap()
}

#[test]
fn psql_reads_and_writes() {
    let gateway = gateway(allow_all(), &[]);
    assert_eq!(psql(&gateway, "SELECT 1 + 1; SELECT count(*) FROM customers;"), "2\n200");
    psql(&gateway, "UPDATE products SET name = 'renamed' WHERE id = 1;");
    assert_eq!(gateway.directly("SELECT name FROM products WHERE id = 1"), "renamed");
}

#[test]
fn psql_describes_and_copies() {
    let gateway = gateway(allow_all(), &[]);
    assert!(psql(&gateway, "\\d customers").contains("email"));
    assert!(psql(&gateway, "\\dt").contains("orders"));
    let copied = psql(&gateway, "\\copy (SELECT id FROM products ORDER BY id LIMIT 3) TO STDOUT");
    assert_eq!(copied, "1\n2\n3");
    psql(&gateway, "CREATE TABLE loaded (a int, b text);\nCOPY loaded FROM STDIN;\n1\tone\n2\ttwo\n\\.\n");
    assert_eq!(gateway.directly("SELECT string_agg(b, ',') FROM loaded"), "one,two");
    // A copy that fails half way leaves the session usable.
    let out = testkit::psql_script(&gateway.url(), "COPY loaded FROM STDIN;\nx\ty\n\\.\nSELECT 42;");
    assert!(format!("{out:?}").contains("invalid input syntax"), "{out:?}");
}

#[test]
fn transactions_keep_their_state() {
    let gateway = gateway(allow_all(), &[]);
    let script = "BEGIN; CREATE TEMP TABLE t (x int) ON COMMIT DROP; INSERT INTO t VALUES (7); SELECT x FROM t; COMMIT; SELECT 1;";
    assert!(psql(&gateway, script).ends_with("7\n1") || psql(&gateway, script).contains('7'));
    psql(&gateway, "BEGIN; DELETE FROM order_items; ROLLBACK;");
    assert_ne!(gateway.directly("SELECT count(*) FROM order_items"), "0");
}

#[test]
fn ctrl_c_cancels_at_the_server() {
    let gateway = gateway(allow_all(), &[]);
    let mut psql = Command::new("psql")
        .args([&gateway.url(), "-X", "-c", "SELECT pg_sleep(600)"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' \
                   AND pid <> pg_backend_pid() AND datname = current_database()";
    assert!(testkit::wait_until(|| gateway.directly(running) == "1", Duration::from_secs(20)));
    Command::new("kill").args(["-INT", &psql.id().to_string()]).status().unwrap();
    let status = psql.wait().unwrap();
    assert!(!status.success());
    assert!(testkit::wait_until(|| gateway.directly(running) == "0", Duration::from_secs(20)));
}

#[test]
fn pgbench_runs_in_every_mode() {
    let gateway = gateway(allow_all(), &[]);
    let pgbench = |arguments: &[&str]| {
        let out = Command::new(crate::support::server().program("pgbench"))
            .args(arguments)
            .arg(gateway.url())
            .output()
            .unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    pgbench(&["-i", "-q", "-s", "1"]);
    for mode in ["simple", "extended", "prepared"] {
        pgbench(&["-n", "-M", mode, "-c", "4", "-t", "50"]);
        pgbench(&["-n", "-M", mode, "-c", "2", "-t", "50", "-S"]);
    }
}

#[test]
fn psycopg_pipelines_cursors_and_copies() {
    let gateway = gateway(allow_all(), &[]);
    let script = r#"
import sys, psycopg
url = sys.argv[1]
with psycopg.connect(url, autocommit=True) as c:
    assert c.execute("select count(*) from customers where id > %s", (100,)).fetchone() == (100,)
    for _ in range(8):  # becomes a named prepared statement
        assert c.execute("select id from products where id = %s", (2,), binary=True).fetchone() == (2,)
    with c.transaction():
        cur = c.cursor("named")
        cur.execute("select id from customers order by id")
        assert [r[0] for r in cur.fetchmany(3)] == [1, 2, 3]
        assert len(cur.fetchall()) == 197
    with c.pipeline() as p:
        results = [c.execute("select %s::int", (i,)) for i in range(300)]
        p.sync()
        assert [r.fetchone()[0] for r in results] == list(range(300))
    c.execute("create table piped (a int, b text)")
    with c.cursor().copy("copy piped from stdin") as copy:
        for i in range(1000):
            copy.write_row((i, f"row {i}"))
    with c.cursor().copy("copy piped to stdout") as copy:
        assert sum(1 for _ in copy.rows()) == 1000
    try:
        c.execute("select * from nowhere")
        assert False
    except psycopg.errors.UndefinedTable:
        pass
    assert c.execute("select 1").fetchone() == (1,)
print("ok")
"#;
    let out = Command::new("/usr/bin/python3").args(["-c", script, &gateway.url()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "ok", "{}", String::from_utf8_lossy(&out.stderr));
}
