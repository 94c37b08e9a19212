//! tokio-postgres: named statements, binary results, pipelining, portals, COPY.

use crate::support::{Gateway, allow_all, gateway};
use tokio_postgres::{Client, NoTls};

async fn client(gateway: &Gateway) -> Client {
    let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[test]
fn statements_portals_and_pipelines() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        let by_id = client.prepare("SELECT name FROM customers WHERE id = $1").await.unwrap();
        let (a, b, c) = tokio::join!(
            client.query_one(&by_id, &[&1i32]),
            client.query_one(&by_id, &[&2i32]),
            client.query_one("SELECT count(*) FROM orders", &[]),
        );
        assert_ne!(a.unwrap().get::<_, String>(0), b.unwrap().get::<_, String>(0));
        assert!(c.unwrap().get::<_, i64>(0) > 0);
        let transaction = client.transaction().await.unwrap();
        let statement = transaction.prepare("SELECT id FROM customers ORDER BY id").await.unwrap();
        let portal = transaction.bind(&statement, &[]).await.unwrap();
        let first = transaction.query_portal(&portal, 10).await.unwrap();
        let rest = transaction.query_portal(&portal, 0).await.unwrap();
        assert_eq!((first.len(), rest.len()), (10, 190));
        transaction.commit().await.unwrap();
    });
}

#[test]
fn errors_in_the_middle_leave_the_session_usable() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let client = client(&gateway).await;
        let (bad, good) =
            tokio::join!(client.query_one("SELECT 1/0", &[]), client.query_one("SELECT 7", &[]));
        assert_eq!(bad.unwrap_err().code().unwrap().code(), "22012");
        assert_eq!(good.unwrap().get::<_, i32>(0), 7);
        assert_eq!(client.simple_query("SELECT 1; SELECT 2").await.unwrap().len(), 6);
    });
}

#[test]
fn a_changed_search_path_is_seen() {
    let gateway = gateway(allow_all(), &[]);
    gateway.directly("CREATE SCHEMA other; CREATE TABLE other.products AS SELECT 99 AS id; GRANT ALL ON SCHEMA other TO app; GRANT ALL ON ALL TABLES IN SCHEMA other TO app");
    gateway.block_on(async {
        let client = client(&gateway).await;
        client.batch_execute("SELECT count(*) FROM products").await.unwrap();
        client.batch_execute("SET search_path = other, public").await.unwrap();
        assert_eq!(client.query_one("SELECT id FROM products", &[]).await.unwrap().get::<_, i32>(0), 99);
    });
    let accesses = format!("{:?}", gateway.recorder.sessions());
    assert!(accesses.contains("\"other\""), "the record names the schema that was really read");
}
