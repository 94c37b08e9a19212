//! The lines that the README shows for embedding compile as they stand there.
#![allow(missing_docs, clippy::unwrap_used)]

use std::error::Error;

use gateway_core::pipeline::Pipeline;
use gateway_pg::{PgGateway, Target};
use tokio_postgres::NoTls;

#[rustfmt::skip]
#[allow(dead_code)]
async fn embedded(pipeline: Pipeline, target: Target, token: String) -> Result<(), Box<dyn Error>> {
// The README begins here.
let (client, server) = tokio::io::duplex(64 * 1024);
let gateway = PgGateway::new(pipeline, target);
tokio::spawn(async move { gateway.serve_stream(Box::new(server)).await });
let (client, connection) = tokio_postgres::Config::new().user("agent").password(token).connect_raw(client, NoTls).await?;
// The README ends here.
drop((client, connection));
Ok(())
}

#[test]
fn the_readme_shows_this() {
    let (_, rest) = include_str!("readme.rs").split_once("// The README begins here.\n").unwrap();
    let (code, _) = rest.split_once("// The README ends here.").unwrap();
    assert!(include_str!("../../../README.md").contains(code), "make the README and this test the same");
}
