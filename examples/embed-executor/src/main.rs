//! An agent that tidies up a shop: a script stands in for the model, the person at the terminal for the reviewer.
//!
//! Takes the database from `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER` and `PGPASSWORD`.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;

use embed_executor::{Embedded, Model, Step, Tokens, connect, next_request, run};
use gateway_core::approval::{Approver, RequestId, Verdict};
use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_pg::{Address, SslMode, Target};

/// Says its lines whatever it is shown.
struct Script(VecDeque<Step>);

impl Model for Script {
    fn next(&mut self, observation: &str) -> Option<Step> {
        println!("{observation}");
        let step = self.0.pop_front()?;
        println!("> {step:?}");
        Some(step)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let database = std::env::var("PGDATABASE")?;
    let address = Address::Tcp(std::env::var("PGHOST")?, std::env::var("PGPORT")?.parse()?);
    let target = Target::new("shop", address, SslMode::Prefer).database(&database);
    let password = Secret::new(std::env::var("PGPASSWORD")?);
    let credential = UpstreamCredential::Password { username: std::env::var("PGUSER")?, password };
    // All three stay in this process, so they only tell the parts of it from one another.
    let tokens = Tokens { planner: "planner", executor: "executor", reviewer: "reviewer" };
    let embedded = Arc::new(Embedded::new(target, credential, tokens)?);
    let planner = connect(&embedded.gateway, &database, tokens.planner).await?;
    let executor = connect(&embedded.gateway, &database, tokens.executor).await?;
    let person = tokio::spawn(review_at_terminal(Arc::clone(&embedded), tokens.reviewer));
    let mut script = Script(VecDeque::from([
        Step::Look("SELECT id, status FROM orders WHERE status = 'open' ORDER BY id LIMIT 3".to_owned()),
        Step::Look("UPDATE orders SET status = 'cancelled' WHERE id = 2".to_owned()),
        Step::Act("UPDATE orders SET status = 'cancelled' WHERE id = 2".to_owned()),
        Step::Look("SELECT name, email FROM customers ORDER BY id LIMIT 3".to_owned()),
    ]));
    run(&mut script, &planner.client, &executor.client).await?;
    person.abort();
    Ok(())
}

async fn review_at_terminal(embedded: Arc<Embedded>, token: &'static str) {
    let mut events = embedded.approver.subscribe();
    while let Some(request) = next_request(&mut events).await {
        if let Err(error) = review(&embedded, request, token).await {
            eprintln!("not reviewed: {error}");
        }
    }
}

async fn review(
    embedded: &Embedded,
    request: RequestId,
    token: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let exact = embedded.exact(request, token).await?;
    let answer = tokio::task::spawn_blocking(move || {
        print!("held for your approval:\n{exact}\nlet it run? [y/N] ");
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let verdict = if answer.await??.trim() == "y" { Verdict::Approve } else { Verdict::Reject };
    embedded.review(request, token, verdict).await
}
