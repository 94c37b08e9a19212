//! tokio-postgres.

mod common;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use common::{env, large, tell};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future, pin_mut};
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, NoTls, SimpleQueryMessage};
use uuid::Uuid;

type Done<T> = Result<T, Error>;

async fn connect() -> Done<Client> {
    let (client, connection) = tokio_postgres::connect(&common::url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// An error with the server's words.
fn words(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| format!("{}: {}", e.code().code(), e.message()))
}

async fn feature<T: std::fmt::Debug>(name: &str, check: impl Future<Output = Done<T>>) {
    match tokio::time::timeout(Duration::from_secs(30), check).await {
        Ok(outcome) => tell(name, outcome.map_err(|e| words(&e))),
        Err(late) => tell::<(), _>(name, Err(late)),
    }
}

async fn simple() -> Done<Vec<String>> {
    let found = connect().await?.simple_query("SELECT * FROM fruit ORDER BY id; SELECT 1; ").await?;
    Ok(found
        .iter()
        .map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                format!("{:?}", (0..row.len()).map(|i| row.get(i)).collect::<Vec<_>>())
            }
            SimpleQueryMessage::CommandComplete(n) => n.to_string(),
            _ => "columns".to_owned(),
        })
        .collect())
}

async fn types() -> Done<String> {
    let c = connect().await?;
    let row = c
        .query_one(
            "SELECT $1::int2, $2::int4, $3::int8, $4::float4, $5::float8, $6::text, $7::bytea, $8::bool, $9::uuid, $10::jsonb",
            &[&32767i16, &i32::MAX, &i64::MIN, &1.5f32, &0.1f64, &"naïve ☕ 日本 \\ \n", &vec![0u8, 255], &true, &Uuid::from_u128(1), &serde_json::json!({"a": [1, "é"]})],
        )
        .await?;
    let first: (i16, i32, i64, f32, f64, String, Vec<u8>, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6), row.get(7));
    let second: (Uuid, serde_json::Value) = (row.get(8), row.get(9));
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap_or_default();
    let time = NaiveTime::from_hms_micro_opt(12, 34, 56, 789).unwrap_or_default();
    let row = c
        .query_one(
            "SELECT $1::date, $2::time, $3::timestamp, $4::timestamptz, $5::int[], $6::text[]",
            &[
                &day,
                &time,
                &day.and_time(time),
                &day.and_time(time).and_utc(),
                &vec![Some(1), None, Some(3)],
                &vec!["a b", "c\"d"],
            ],
        )
        .await?;
    let third: (NaiveDate, NaiveTime, NaiveDateTime, DateTime<Utc>, Vec<Option<i32>>, Vec<String>) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5));
    Ok(format!("{first:?}{second:?}{third:?}"))
}

async fn custom_types() -> Done<String> {
    let c = connect().await?;
    let statement =
        c.prepare("SELECT feeling, place, bounds, how_many, $1::mood FROM everything WHERE id = 1").await?;
    let columns: Vec<_> =
        statement.columns().iter().map(|c| format!("{} {}", c.name(), c.type_().name())).collect();
    Ok(format!(
        "{columns:?} {:?}",
        statement.params().iter().map(|t| t.name().to_owned()).collect::<Vec<_>>()
    ))
}

async fn prepared() -> Done<Vec<String>> {
    let c = connect().await?;
    let by_id = c.prepare("SELECT name FROM fruit WHERE id = $1").await?;
    let mut found = Vec::new();
    for n in 0..10 {
        found.push(c.query_one(&by_id, &[&(n % 3 + 1)]).await?.get(0));
    }
    Ok(found)
}

async fn transactions() -> Done<(i64, String, i32)> {
    let mut c = connect().await?;
    let mut t = c.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    t.batch_execute("CREATE TABLE kept (a int)").await?;
    let nested = t.savepoint("a").await?;
    let error = nested.query("SELECT 1/0", &[]).await.err().map(|e| words(&e)).unwrap_or_default();
    nested.rollback().await?;
    t.execute("INSERT INTO kept VALUES ($1)", &[&1]).await?;
    t.commit().await?;
    let t = c.transaction().await?;
    t.execute("DELETE FROM kept", &[]).await?;
    drop(t);
    Ok((
        c.query_one("SELECT count(*) FROM kept", &[]).await?.get(0),
        error,
        c.query_one("SELECT 1", &[]).await?.get(0),
    ))
}

async fn errors() -> Done<(Vec<String>, i32)> {
    let c = connect().await?;
    let mut told = Vec::new();
    for sql in ["SELECT 1/0", "SELECT * FROM nowhere", "INSERT INTO fruit VALUES (1, 'x', 1)"] {
        told.push(c.query(sql, &[]).await.err().map(|e| words(&e)).unwrap_or_default());
    }
    Ok((told, c.query_one("SELECT 1", &[]).await?.get(0)))
}

async fn pipelined() -> Done<i32> {
    let c = connect().await?;
    let statement = c.prepare("SELECT $1::int").await?;
    let all = future::try_join_all((0..500).map(|n| {
        let (c, statement) = (&c, &statement);
        async move { c.query_one(statement, &[&n]).await }
    }));
    Ok(all.await?.iter().map(|row| row.get::<_, i32>(0)).sum())
}

async fn portals() -> Done<(i64, usize)> {
    let mut c = connect().await?;
    let t = c.transaction().await?;
    let portal = t.bind("SELECT n FROM numbers ORDER BY n", &[]).await?;
    let (mut total, mut calls) = (0, 0);
    loop {
        let rows = t.query_portal(&portal, 1000).await?;
        if rows.is_empty() {
            return Ok((total, calls));
        }
        total += rows.iter().map(|r| i64::from(r.get::<_, i32>(0))).sum::<i64>();
        calls += 1;
    }
}

async fn streamed() -> Done<i64> {
    let c = connect().await?;
    let rows = c.query_raw("SELECT n FROM numbers WHERE n > $1", [0i32]).await?;
    rows.try_fold(0, |sum, row| future::ready(Ok(sum + i64::from(row.get::<_, i32>(0))))).await
}

async fn copy_in() -> Done<(u64, i64)> {
    let c = connect().await?;
    c.batch_execute("CREATE TEMP TABLE copied (a int, b text)").await?;
    let sink = c.copy_in("COPY copied FROM STDIN").await?;
    pin_mut!(sink);
    for n in 0..10000 {
        sink.send(Bytes::from(format!("{n}\tr {n}\n"))).await?;
    }
    let done = sink.finish().await?;
    Ok((done, c.query_one("SELECT sum(a) FROM copied", &[]).await?.get(0)))
}

async fn copy_in_given_up() -> Done<(String, i64)> {
    let c = connect().await?;
    c.batch_execute("CREATE TEMP TABLE copied (a int)").await?;
    {
        let sink = c.copy_in("COPY copied FROM STDIN").await?;
        pin_mut!(sink);
        sink.send(Bytes::from_static(b"1\n")).await?;
    }
    let sink = c.copy_in("COPY copied FROM STDIN").await?;
    pin_mut!(sink);
    sink.send(Bytes::from_static(b"x\n")).await?;
    let error = sink.finish().await.err().map(|e| words(&e)).unwrap_or_default();
    Ok((error, c.query_one("SELECT count(*) FROM copied", &[]).await?.get(0)))
}

async fn copy_out(sql: &str) -> Done<Vec<u8>> {
    let c = connect().await?;
    let parts: Vec<Bytes> = c.copy_out(sql).await?.try_collect().await?;
    Ok(parts.concat())
}

async fn cancel() -> Done<(String, i32)> {
    let c = connect().await?;
    let watcher = connect().await?;
    let token = c.cancel_token();
    let pid: i32 = c.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let ask = async {
        // Once the server sleeps.
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while watcher.query_one(asleep, &[&pid]).await?.get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
        token.cancel_query(NoTls).await
    };
    let (slept, asked) = tokio::join!(c.query("SELECT pg_sleep(60)", &[]), ask);
    asked?;
    Ok((slept.err().map(|e| words(&e)).unwrap_or_default(), c.query_one("SELECT 1", &[]).await?.get(0)))
}

async fn notifications() -> Done<Vec<String>> {
    let (listener, mut connection) = tokio_postgres::connect(&common::url(), NoTls).await?;
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            let _ = match message {
                AsyncMessage::Notification(n) => heard.send(format!("{} {}", n.channel(), n.payload())),
                AsyncMessage::Notice(n) => heard.send(format!("{} {}", n.severity(), n.message())),
                _ => Ok(()),
            };
        }
    });
    listener.batch_execute("LISTEN news; SELECT shout('hello')").await?;
    connect().await?.batch_execute("NOTIFY news, 'first'").await?;
    let mut found = Vec::new();
    while found.len() < 2
        && let Ok(Some(one)) = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await
    {
        found.push(one);
    }
    Ok(found)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("version\ttokio-postgres {}", env("DRIVERS_VERSION_TOKIO_POSTGRES"));
    feature("connect", async {
        Ok(connect().await?.query_one("SELECT current_user::text", &[]).await?.get::<_, String>(0))
    })
    .await;
    feature("simple query", simple()).await;
    feature("several statements, one depends", async {
        connect().await?.batch_execute("CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1)").await
    })
    .await;
    feature("types, binary", types()).await;
    feature("custom types", custom_types()).await;
    feature("null", async {
        Ok(connect()
            .await?
            .query_one("SELECT $1::text", &[&None::<String>])
            .await?
            .get::<_, Option<String>>(0))
    })
    .await;
    feature("large text", async {
        Ok(connect().await?.query_one("SELECT $1::text", &[&large()]).await?.get::<_, String>(0) == large())
    })
    .await;
    feature("prepared reuse", prepared()).await;
    feature("savepoints", transactions()).await;
    feature("error, then on", errors()).await;
    feature("syntax error", async {
        Ok(connect().await?.query("SELEC", &[]).await.err().map(|e| words(&e)))
    })
    .await;
    feature("empty query", async { connect().await?.execute("", &[]).await }).await;
    feature("pipeline", pipelined()).await;
    feature("cursor, 10000 rows", portals()).await;
    feature("stream, 10000 rows", streamed()).await;
    feature("copy in, text", copy_in()).await;
    feature("copy in, error", copy_in_given_up()).await;
    feature("copy out, text", copy_out("COPY numbers TO STDOUT")).await;
    feature("copy out, csv", copy_out("COPY numbers TO STDOUT (FORMAT csv)")).await;
    feature("copy out, binary", copy_out("COPY numbers TO STDOUT (FORMAT binary)")).await;
    feature("cancel", cancel()).await;
    feature("listen, notify", notifications()).await;
    feature("query_typed", async {
        Ok(connect()
            .await?
            .query_typed("SELECT $1::int", &[(&7i32, tokio_postgres::types::Type::INT4)])
            .await?[0]
            .get::<_, i32>(0))
    })
    .await;
    println!("end\tok");
}
