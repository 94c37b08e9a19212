//! The loop of a listener: how many connections at once, what a failed accept costs, when it ends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long to wait after an accept that failed, as it does when descriptors or memory run out: trying again at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections with `accept` (a listener's `poll_accept`) until `stop` is ready, serves each in a task of its own, and returns the tasks still live then; dropping
/// them ends them.
///
/// At most `most` connections are served at once. One over the limit is closed as soon as it is accepted: nothing is known of
/// it yet, and a queue of strangers would be one more thing to fill.
pub async fn accept_until<T, Serving>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    most: usize,
    stop: impl Future<Output = ()>,
    mut serve: impl FnMut(T) -> Serving,
) -> JoinSet<()>
where
    Serving: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(most));
    let mut live = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return live,
            accepted = poll_fn(&mut accept) => accepted,
            Some(_) = live.join_next() => continue,
        };
        match accepted {
            Ok(connection) => {
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                let serving = serve(connection);
                live.spawn(async move {
                    serving.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = &mut stop => return live,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn serves_up_to_the_limit_and_goes_on_after_a_failure() {
        let (arrive, mut arrivals) = mpsc::channel::<io::Result<oneshot::Receiver<()>>>(8);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let accepting = tokio::spawn(async move {
            let accept = |cx: &mut Context<'_>| match arrivals.poll_recv(cx) {
                Poll::Ready(Some(arrival)) => Poll::Ready(arrival),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            };
            let stop = async { stopped.await.unwrap_or_default() };
            accept_until(accept, 1, stop, |end: oneshot::Receiver<()>| {
                count.fetch_add(1, Ordering::SeqCst);
                async { end.await.unwrap_or_default() }
            })
            .await
            .len()
        });
        let (first, ended) = oneshot::channel();
        arrive.send(Ok(ended)).await.unwrap();
        let (mut over, ended) = oneshot::channel();
        arrive.send(Ok(ended)).await.unwrap();
        over.closed().await;
        assert_eq!(served.load(Ordering::SeqCst), 1, "the second was over the limit");
        first.send(()).unwrap();
        arrive.send(Err(io::ErrorKind::OutOfMemory.into())).await.unwrap();
        // The slot of the first comes free before a timer fires: the pause behind the failure is one.
        let (_third, ended) = oneshot::channel();
        arrive.send(Ok(ended)).await.unwrap();
        tokio::time::sleep(2 * ACCEPT_PAUSE).await;
        assert_eq!(served.load(Ordering::SeqCst), 2);
        stop.send(()).unwrap();
        assert_eq!(accepting.await.unwrap(), 1, "the third is still live");
    }
}
