//! diesel, over libpq.

mod common;

use common::{env, large, tell};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::Error;
use diesel::sql_types::{Bool, Bytea, Double, Integer, Nullable, Text, Uuid as SqlUuid};

diesel::table! {
    shelf (id) {
        id -> Integer,
        name -> Text,
    }
}
diesel::table! {
    book (id) {
        id -> Integer,
        title -> Text,
        price -> Double,
        tags -> Array<Text>,
        added -> Timestamptz,
        extra -> Jsonb,
        key -> Uuid,
        cover -> Nullable<Bytea>,
        shelf_id -> Integer,
    }
}
diesel::joinable!(book -> shelf (shelf_id));
diesel::allow_tables_to_appear_in_same_query!(book, shelf);

#[derive(Debug, Clone, Queryable, Selectable, Insertable, Identifiable, AsChangeset)]
#[diesel(table_name = book)]
struct Book {
    id: i32,
    title: String,
    price: f64,
    tags: Vec<String>,
    added: chrono::DateTime<chrono::Utc>,
    extra: serde_json::Value,
    key: uuid::Uuid,
    cover: Option<Vec<u8>>,
    shelf_id: i32,
}

type Done<T> = Result<T, Error>;

fn connect() -> PgConnection {
    let url = common::url();
    PgConnection::establish(&url).unwrap_or_else(|error| panic!("no connection: {error}"))
}

fn words(error: &Error) -> String {
    match error {
        Error::DatabaseError(kind, about) => format!("{kind:?}: {}", about.message()),
        other => other.to_string(),
    }
}

fn feature<T: std::fmt::Debug>(
    name: &str,
    check: impl FnOnce(&mut PgConnection) -> Done<T> + std::panic::UnwindSafe,
) {
    match std::panic::catch_unwind(|| check(&mut connect())) {
        Ok(outcome) => tell(name, outcome.map_err(|e| words(&e))),
        Err(panic) => tell::<(), _>(name, Err(panic.downcast_ref::<String>().cloned().unwrap_or_default())),
    }
}

fn a_book(number: i32) -> Book {
    Book {
        id: number,
        title: format!("Book {number} ☕"),
        price: f64::from(number) / 4.0,
        tags: vec!["a, b".to_owned(), format!("t{number}")],
        added: chrono::DateTime::from_timestamp(1_709_210_096, 0).unwrap_or_default(),
        extra: serde_json::json!({"n": number}),
        key: uuid::Uuid::from_u128(1),
        cover: (number % 2 == 0).then(|| vec![0, 255]),
        shelf_id: 1,
    }
}

fn create(c: &mut PgConnection) -> Done<()> {
    c.batch_execute("CREATE TABLE shelf (id serial PRIMARY KEY, name text NOT NULL)")?;
    c.batch_execute(
        "CREATE TABLE book (id integer PRIMARY KEY, title text NOT NULL, price double precision NOT NULL, tags text[] NOT NULL, added timestamptz NOT NULL, \
         extra jsonb NOT NULL, key uuid NOT NULL, cover bytea, shelf_id integer NOT NULL REFERENCES shelf)",
    )
}

fn insert(c: &mut PgConnection) -> Done<(usize, i32, Vec<Book>)> {
    let id: i32 = diesel::insert_into(shelf::table)
        .values(shelf::name.eq("first"))
        .returning(shelf::id)
        .get_result(c)?;
    let books: Vec<Book> = (1..=100).map(a_book).collect();
    let done = diesel::insert_into(book::table).values(&books).execute(c)?;
    Ok((done, id, book::table.select(Book::as_select()).order(book::id).limit(2).load(c)?))
}

fn change(c: &mut PgConnection) -> Done<(usize, usize, Vec<(String, i64)>)> {
    let updated =
        diesel::update(book::table.filter(book::id.lt(10))).set(book::title.eq("changed")).execute(c)?;
    let deleted = diesel::delete(book::table.filter(book::id.gt(90))).execute(c)?;
    let counted = shelf::table
        .inner_join(book::table)
        .group_by(shelf::name)
        .select((shelf::name, diesel::dsl::count(book::id)))
        .load(c)?;
    Ok((updated, deleted, counted))
}

fn upsert(c: &mut PgConnection) -> Done<usize> {
    diesel::insert_into(book::table)
        .values(a_book(1))
        .on_conflict(book::id)
        .do_update()
        .set(book::title.eq("again"))
        .execute(c)
}

fn transactions(c: &mut PgConnection) -> Done<(String, i64)> {
    let error = c.transaction::<(), Error, _>(|c| {
        diesel::delete(book::table).execute(c)?;
        let nested = c.transaction::<usize, Error, _>(|c| diesel::sql_query("SELECT 1/0").execute(c));
        assert!(nested.is_err());
        Err(Error::RollbackTransaction)
    });
    Ok((error.err().map(|e| words(&e)).unwrap_or_default(), book::table.count().get_result(c)?))
}

fn serializable(c: &mut PgConnection) -> Done<i64> {
    c.build_transaction().serializable().read_only().deferrable().run(|c| book::table.count().get_result(c))
}

fn types(c: &mut PgConnection) -> Done<(i32, f64, String, bool, Vec<u8>)> {
    let one = diesel::select((
        7.into_sql::<Integer>(),
        0.1.into_sql::<Double>(),
        "naïve ☕ 日本 \\ \n".into_sql::<Text>(),
        true.into_sql::<Bool>(),
        vec![0u8, 255].into_sql::<Bytea>(),
    ));
    one.get_result(c)
}

fn streamed(c: &mut PgConnection) -> Done<i64> {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = Integer)]
        n: i32,
    }
    let rows = diesel::RunQueryDsl::load_iter::<Number, diesel::pg::PgRowByRowLoadingMode>(
        diesel::sql_query("SELECT n FROM numbers"),
        c,
    )?;
    rows.map(|row| row.map(|r| i64::from(r.n))).sum()
}

fn errors(c: &mut PgConnection) -> Done<(Vec<String>, i32)> {
    let told = ["SELECT 1/0", "SELECT * FROM nowhere", "INSERT INTO fruit VALUES (1, 'x', 1)"]
        .map(|sql| diesel::sql_query(sql).execute(c).err().map(|e| words(&e)).unwrap_or_default());
    Ok((told.to_vec(), diesel::select(1.into_sql::<Integer>()).get_result(c)?))
}

fn copy_in(c: &mut PgConnection) -> Done<usize> {
    diesel::copy_from(shelf::table)
        .from_raw_data(shelf::table, |out: &mut dyn std::io::Write| {
            out.write_all(b"100\tsecond\n101\tthird\n").map_err(|e| Error::DeserializationError(e.into()))
        })
        .execute(c)
}

fn copy_out(c: &mut PgConnection) -> Done<String> {
    let mut text = String::new();
    let mut reader = diesel::copy_to(shelf::table).load_raw(c)?;
    std::io::Read::read_to_string(&mut reader, &mut text)
        .map_err(|e| Error::DeserializationError(e.into()))?;
    Ok(text)
}

fn copy_out_binary(c: &mut PgConnection) -> Done<Vec<(i32, String)>> {
    #[derive(Debug, Queryable, Selectable)]
    #[diesel(table_name = shelf)]
    struct Shelf {
        id: i32,
        name: String,
    }
    let rows = diesel::copy_to(shelf::table).load::<Shelf, _>(c)?;
    rows.map(|row| row.map(|s| (s.id, s.name))).collect()
}

fn notifications(c: &mut PgConnection) -> Done<Vec<String>> {
    diesel::sql_query("LISTEN news").execute(c)?;
    diesel::sql_query("NOTIFY news, 'first'").execute(&mut connect())?;
    diesel::sql_query("SELECT 1").execute(c)?;
    c.notifications_iter().map(|n| n.map(|n| format!("{} {}", n.channel, n.payload))).collect()
}

fn pool() -> Done<i64> {
    let pool = Pool::builder()
        .max_size(2)
        .test_on_check_out(true)
        .build(ConnectionManager::<PgConnection>::new(common::url()))
        .map_err(|e| Error::QueryBuilderError(Box::new(e)))?;
    let mut total = 0;
    for n in 0..20 {
        let mut c = pool.get().map_err(|e| Error::QueryBuilderError(Box::new(e)))?;
        total += i64::from(diesel::select(n.into_sql::<Integer>()).get_result::<i32>(&mut c)?);
    }
    Ok(total)
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    println!("version\tdiesel {}", env("DRIVERS_VERSION_DIESEL"));
    feature("connect", |c| diesel::sql_query("SELECT 1").execute(c));
    feature("types, binary", types);
    feature("null", |c| {
        diesel::select(None::<String>.into_sql::<Nullable<Text>>()).get_result::<Option<String>>(c)
    });
    feature("large text", |c| {
        Ok(diesel::select(large().into_sql::<Text>()).get_result::<String>(c)? == large())
    });
    feature("ORM, create table", create);
    feature("ORM, insert and select", insert);
    feature("ORM, update and delete", change);
    feature("ORM, upsert", upsert);
    feature("savepoints", transactions);
    feature("isolation, read only", serializable);
    feature("error, then on", errors);
    feature("stream, 10000 rows", streamed);
    feature("copy in, text", copy_in);
    feature("copy out, text", copy_out);
    feature("copy out, binary", copy_out_binary);
    feature("listen, notify", notifications);
    feature("several statements, one depends", |c| {
        c.batch_execute("CREATE TABLE early (a int); INSERT INTO early VALUES (1)")
    });
    feature("migrations", |c| {
        let key: uuid::Uuid = diesel::select(uuid::Uuid::nil().into_sql::<SqlUuid>()).get_result(c)?;
        c.batch_execute("CREATE TABLE one (a int); CREATE TABLE two (a int)")?;
        Ok(key)
    });
    tell("pool, reset", pool().map_err(|e| words(&e)));
    println!("end\tok");
}
