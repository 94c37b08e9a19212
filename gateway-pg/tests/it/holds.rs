//! Held operations: the client waits, people decide, it runs once.

use gateway_core::approval::{ApprovalEvent, Approver, Verdict};
use tokio_postgres::NoTls;

use crate::support::{gateway, guarded};

#[test]
fn an_approved_delete_runs_once() {
    let gateway = gateway(guarded(), &[]);
    let before: u64 = gateway.directly("SELECT count(*) FROM order_items").parse().unwrap();
    gateway.block_on(async {
        let (client, mut connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        let (notices, mut noticed) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                let _ = notices.send(message);
            }
        });
        let mut events = gateway.approver.subscribe();
        let sql = "DELETE FROM order_items WHERE order_id = 1 AND product_id > 0";
        let (deleted, _) =
            tokio::join!(client.execute(sql, &[]), gateway.review(&mut events, Verdict::Approve));
        assert!(deleted.unwrap() > 0);
        let notice = format!("{:?}", noticed.recv().await.unwrap().unwrap());
        assert!(notice.contains("held for approval by dba"), "{notice}");
        // The same text again needs a new approval.
        let (again, _) = tokio::join!(client.execute(sql, &[]), gateway.review(&mut events, Verdict::Reject));
        let error = again.unwrap_err();
        assert!(
            error.to_string().contains("rejected") || format!("{error:?}").contains("rejected"),
            "{error:?}"
        );
        assert_eq!(client.query_one("SELECT 5", &[]).await.unwrap().get::<_, i32>(0), 5);
    });
    let after: u64 = gateway.directly("SELECT count(*) FROM order_items").parse().unwrap();
    assert!(after < before);
}

#[test]
fn cancel_ends_a_hold_and_nothing_runs() {
    let gateway = gateway(guarded(), &[]);
    let before = gateway.directly("SELECT count(*) FROM order_items");
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let cancel = client.cancel_token();
        let mut events = gateway.approver.subscribe();
        let canceller = async {
            events.next().await.unwrap();
            cancel.cancel_query(NoTls).await.unwrap();
        };
        let (deleted, ()) =
            tokio::join!(client.execute("DELETE FROM order_items WHERE order_id = 2", &[]), canceller);
        assert_eq!(deleted.unwrap_err().code().unwrap().code(), "57014");
        assert_eq!(client.query_one("SELECT 5", &[]).await.unwrap().get::<_, i32>(0), 5);
    });
    assert_eq!(gateway.directly("SELECT count(*) FROM order_items"), before);
}

#[test]
fn in_a_transaction_the_agent_comes_back_after_approval() {
    let gateway = gateway(guarded(), &[]);
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut events = gateway.approver.subscribe();
        client.batch_execute("BEGIN").await.unwrap();
        let sql = "DELETE FROM order_items WHERE order_id = 3";
        let denied = client.batch_execute(sql).await.unwrap_err();
        assert!(denied.as_db_error().unwrap().detail().unwrap().contains("approval request"), "{denied:?}");
        gateway.review(&mut events, Verdict::Approve).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute(sql).await.unwrap();
        let asked = async {
            while !matches!(events.next().await.unwrap(), ApprovalEvent::Submitted(_)) {}
        };
        tokio::select! {
            again = client.batch_execute(sql) => panic!("the grant is used up, yet a second run ended with {again:?}"),
            () = asked => {}
        }
    });
    assert_eq!(gateway.directly("SELECT count(*) FROM order_items WHERE order_id = 3"), "0");
}
