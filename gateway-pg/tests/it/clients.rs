//! Stock clients work unmodified.

use crate::support::{allow_all, gateway};

#[test]
fn psql_reads_and_writes() {
    let gateway = gateway(allow_all(), &[]);
    let out = testkit::psql_script(&gateway.url(), "SELECT 1 + 1; SELECT count(*) FROM customers;").unwrap();
    assert_eq!(out, "2\n200");
}
