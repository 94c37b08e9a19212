//! sqlx.

mod common;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use common::{env, large, tell};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{Column, Connection, Error, Executor, PgConnection, Row, TypeInfo};
use uuid::Uuid;

type Done<T> = Result<T, Error>;

async fn connect() -> Done<PgConnection> {
    PgConnection::connect(&common::url()).await
}

fn words(error: &Error) -> String {
    error
        .as_database_error()
        .map_or_else(|| error.to_string(), |e| format!("{}: {}", e.code().unwrap_or_default(), e.message()))
}

async fn feature<T: std::fmt::Debug>(name: &str, check: impl Future<Output = Done<T>>) {
    match tokio::time::timeout(Duration::from_secs(30), check).await {
        Ok(outcome) => tell(name, outcome.map_err(|e| words(&e))),
        Err(late) => tell::<(), _>(name, Err(late)),
    }
}

async fn types() -> Done<String> {
    let mut c = connect().await?;
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap_or_default();
    let first: (i16, i32, i64, f64, String, Vec<u8>, bool) =
        sqlx::query_as("SELECT $1, $2, $3, $4, $5, $6, $7")
            .bind(32767i16)
            .bind(i32::MAX)
            .bind(i64::MIN)
            .bind(0.1f64)
            .bind("naïve ☕ 日本 \\ \n")
            .bind(vec![0u8, 255])
            .bind(true)
            .fetch_one(&mut c)
            .await?;
    let second: (NaiveDate, DateTime<Utc>, Uuid, serde_json::Value, Vec<Option<i32>>, Vec<String>) =
        sqlx::query_as("SELECT $1, $2, $3, $4, $5, $6")
            .bind(day)
            .bind(day.and_time(chrono::NaiveTime::default()).and_utc())
            .bind(Uuid::from_u128(1))
            .bind(serde_json::json!({"a": [1, "é"]}))
            .bind(vec![Some(1), None])
            .bind(vec!["a b".to_owned(), "c\"d".to_owned()])
            .fetch_one(&mut c)
            .await?;
    Ok(format!("{first:?}{second:?}"))
}

async fn description() -> Done<Vec<String>> {
    let mut c = connect().await?;
    let row =
        c.fetch_one("SELECT id, feeling::text, bounds, texts FROM everything ORDER BY id LIMIT 1").await?;
    Ok(row.columns().iter().map(|c| format!("{} {}", c.name(), c.type_info().name())).collect())
}

async fn prepared() -> Done<Vec<String>> {
    let mut c = connect().await?;
    let mut found = Vec::new();
    for n in 0..12 {
        found.push(
            sqlx::query_scalar("SELECT name FROM fruit WHERE id = $1")
                .bind(n % 3 + 1)
                .fetch_one(&mut c)
                .await?,
        );
    }
    c.clear_cached_statements().await?;
    Ok(found)
}

async fn transactions() -> Done<(i64, String)> {
    let mut c = connect().await?;
    let mut t = c.begin().await?;
    t.execute("CREATE TABLE kept (a int)").await?;
    let mut nested = t.begin().await?;
    let error = nested.execute("SELECT 1/0").await.err().map(|e| words(&e)).unwrap_or_default();
    nested.rollback().await?;
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(1).execute(&mut *t).await?;
    t.commit().await?;
    let mut t = c.begin().await?;
    t.execute("DELETE FROM kept").await?;
    drop(t);
    Ok((sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut c).await?, error))
}

async fn errors() -> Done<(Vec<String>, i32)> {
    let mut c = connect().await?;
    let mut told = Vec::new();
    for sql in ["SELECT 1/0", "SELECT * FROM nowhere", "INSERT INTO fruit VALUES (1, 'x', 1)"] {
        told.push(c.execute(sqlx::query(sql)).await.err().map(|e| words(&e)).unwrap_or_default());
    }
    Ok((told, sqlx::query_scalar("SELECT 1").fetch_one(&mut c).await?))
}

async fn streamed() -> Done<i64> {
    let mut c = connect().await?;
    let rows = sqlx::query_scalar::<_, i32>("SELECT n FROM numbers ORDER BY n").fetch(&mut c);
    rows.try_fold(0, |sum, n| async move { Ok(sum + i64::from(n)) }).await
}

async fn several() -> Done<usize> {
    let mut c = connect().await?;
    Ok(sqlx::raw_sql("SELECT 1; SELECT 2; SELECT 3").fetch_all(&mut c).await?.len())
}

async fn copy_in() -> Done<(u64, i64)> {
    let mut c = connect().await?;
    c.execute("CREATE TEMP TABLE copied (a int, b text)").await?;
    let mut sink = c.copy_in_raw("COPY copied FROM STDIN").await?;
    for n in 0..1000 {
        sink.send(format!("{n}\tr {n}\n").into_bytes()).await?;
    }
    let done = sink.finish().await?;
    Ok((done, sqlx::query_scalar("SELECT sum(a) FROM copied").fetch_one(&mut c).await?))
}

async fn copy_out(sql: &str) -> Done<Vec<u8>> {
    let mut c = connect().await?;
    let parts: Vec<bytes::Bytes> = c.copy_out_raw(sql).await?.try_collect().await?;
    Ok(parts.concat())
}

async fn notifications() -> Done<(String, String)> {
    let pool = PgPool::connect(&common::url()).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("news").await?;
    sqlx::query("SELECT pg_notify('news', $1)").bind("first").execute(&pool).await?;
    let heard = listener.recv().await?;
    Ok((heard.channel().to_owned(), heard.payload().to_owned()))
}

async fn pool() -> Done<i32> {
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(20))
        .connect(&common::url())
        .await?;
    let each = (0..100).map(|n| {
        let pool = pool.clone();
        async move { sqlx::query_scalar::<_, i32>("SELECT $1::int").bind(n).fetch_one(&pool).await }
    });
    let all = futures_util::future::try_join_all(each).await?;
    pool.close().await;
    Ok(all.iter().sum())
}

async fn settings() -> Done<(String, String)> {
    let options: PgConnectOptions = common::url().parse()?;
    let mut c = PgConnection::connect_with(
        &options
            .application_name("drivers")
            .options([("search_path", "pg_catalog"), ("statement_timeout", "5s")]),
    )
    .await?;
    sqlx::query_as("SELECT current_setting('search_path'), current_setting('statement_timeout')")
        .fetch_one(&mut c)
        .await
}

async fn migrations() -> Done<i64> {
    let mut c = connect().await?;
    c.execute(sqlx::raw_sql("CREATE TABLE one (a int); CREATE TABLE two (a int); CREATE INDEX ON one (a)"))
        .await?;
    c.execute("SELECT pg_advisory_lock(7)").await?;
    c.execute("SELECT pg_advisory_unlock(7)").await?;
    sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relname IN ('one', 'two')")
        .fetch_one(&mut c)
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("version\tsqlx {}", env("DRIVERS_VERSION_SQLX"));
    feature("connect", async {
        sqlx::query_scalar::<_, String>("SELECT current_user::text").fetch_one(&mut connect().await?).await
    })
    .await;
    feature("several statements", several()).await;
    feature("types, binary", types()).await;
    feature("description", description()).await;
    feature("null", async {
        sqlx::query_scalar::<_, Option<String>>("SELECT $1::text")
            .bind(None::<String>)
            .fetch_one(&mut connect().await?)
            .await
    })
    .await;
    feature("large text", async {
        Ok(sqlx::query_scalar::<_, String>("SELECT $1")
            .bind(large())
            .fetch_one(&mut connect().await?)
            .await?
            == large())
    })
    .await;
    feature("prepared reuse", prepared()).await;
    feature("savepoints", transactions()).await;
    feature("error, then on", errors()).await;
    feature("stream, 10000 rows", streamed()).await;
    feature("copy in, text", copy_in()).await;
    feature("copy out, text", copy_out("COPY numbers TO STDOUT")).await;
    feature("copy out, csv", copy_out("COPY numbers TO STDOUT (FORMAT csv)")).await;
    feature("copy out, binary", copy_out("COPY numbers TO STDOUT (FORMAT binary)")).await;
    feature("listen, notify", notifications()).await;
    feature("pool, 8 connections", pool()).await;
    feature("settings", settings()).await;
    feature("migrations", migrations()).await;
    feature("ping", async { connect().await?.ping().await }).await;
    println!("end\tok");
}
