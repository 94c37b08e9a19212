//! Makes the seeds of the target `recording`: `key.pub` and a sealed recording signed with its key.

use std::path::Path;
use std::sync::Arc;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::StaticCredentials;
use gateway_core::identity::{Presented, Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::operation::{Batch, Effect, Operation, Resource, Stage};
use gateway_core::pipeline::{Guard, Judged, NoRewrites, Pipeline, SessionRequest};
use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyInput};
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey, recordings};
use gateway_core::session::CloseReason;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/recording");
    let folder = std::env::temp_dir().join(format!("recording-seed-{}", std::process::id()));
    std::fs::create_dir_all(&corpus)?;
    let key = RecordingKey::generate()?;
    key.public_key().save(&corpus.join("../recording.pub"))?;
    let recorder = FileRecorder::open(&folder, key, FileOptions::default())?;
    let agent = Principal::new(PrincipalKind::Agent, "fuzz", "agent", Timestamp::MAX);
    let allow = |_: &PolicyInput<'_>| Decision::Allow(Allowed::default());
    let pipeline = Pipeline::builder(
        Arc::new(StaticAuthenticator::new()?.with("token-of-the-fuzzer-0123456789", agent)),
        Arc::new(FnPolicy(allow)),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        Arc::new(recorder),
        Arc::new(StaticCredentials::default()),
    )
    .build()?;
    let principal = pipeline.authenticate(&Presented::Token("token-of-the-fuzzer-0123456789".into())).await?;
    let guard = Guard::open(&pipeline, SessionRequest::new(principal, "fuzz", "target", "nobody")).await?;
    for text in ["read one", "write two", "read three"] {
        let effect = if text.starts_with("read") { Effect::Read } else { Effect::Write };
        let operation = Operation::on("get", effect, Resource::target("target"), text);
        let judged = guard.judge(guard.pending(Batch::one(Stage::Execute, operation)), &NoRewrites).await;
        let Judged::Permit(permit) = judged else { return Err("refused".into()) };
        let (_, mut results) = permit.consume();
        let answer = bytes::Bytes::from(format!("the answer to {text}"));
        drop(guard.release(&mut results, "fuzz", answer, 1, |_, _| Ok(None)).await?);
        results.complete("done")?;
    }
    guard.close(CloseReason::Downstream).await?;
    let (_, path) = recordings(&folder)?.pop().ok_or("no recording")?;
    std::fs::copy(path, corpus.join("sealed"))?;
    Ok(std::fs::remove_dir_all(folder)?)
}
