//! Asks a server whether the labelled columns exist.

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};
use gateway_core::pipeline::Label;
use tokio::io::AsyncWriteExt;

use crate::codec::{Reader, backend, encode};
use crate::io::{invalid, read_frame};
use crate::login::upstream::Connected;

/// A column as schema, table, column.
pub(crate) type ColumnPath = (String, String, String);

/// Longest answer to one column's question, in bytes.
const MAX_ANSWER_BYTES: usize = 10_000;

const QUESTION: &str = "SELECT 1 FROM pg_catalog.pg_attribute a \
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name \
      AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name \
      AND a.attname OPERATOR(pg_catalog.=) $3::pg_catalog.text::pg_catalog.name \
      AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped";

/// The labelled columns of each database.
pub(crate) fn by_database(labels: &[Label]) -> BTreeMap<String, Vec<ColumnPath>> {
    let mut columns: BTreeMap<String, Vec<ColumnPath>> = BTreeMap::new();
    for label in labels {
        if let [_, (_, database), (_, schema), (_, table), (_, column)] = label.resource.path() {
            columns.entry(database.clone()).or_default().push((
                schema.clone(),
                table.clone(),
                column.clone(),
            ));
        }
    }
    columns
}

/// Those of `columns` that the server does not have, as `schema.table.column`.
pub(crate) async fn missing(mut server: Connected, columns: &[ColumnPath]) -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (schema, table, column) in columns {
        let parameters = [schema, table, column].map(|t| Some(Bytes::copy_from_slice(t.as_bytes())));
        let mut out = BytesMut::new();
        encode::parse(&mut out, "", QUESTION);
        encode::bind(&mut out, "", "", parameters.to_vec());
        encode::execute(&mut out, "");
        encode::sync(&mut out);
        server.stream.write_all(&out).await?;
        server.stream.flush().await?;
        if !exists(&mut server).await? {
            missing.push(format!("{schema}.{table}.{column}"));
        }
    }
    server.stream.shutdown().await?;
    Ok(missing)
}

async fn exists(server: &mut Connected) -> io::Result<bool> {
    let mut found = false;
    loop {
        let frame = read_frame(&mut server.stream, MAX_ANSWER_BYTES).await?;
        match frame.tag() {
            b'D' => found = Reader::new(frame.body(), "DataRow").u16().map_err(invalid)? == 1,
            b'E' => return Err(invalid(backend::error_field(frame.body(), b'M').unwrap_or_default())),
            b'Z' => return Ok(found),
            _ => {}
        }
    }
}
