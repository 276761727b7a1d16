//! Until when an answer's first byte may be waited for.

use super::body::Body;
use super::error;
use crate::images::ImageError;
use http::Response;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now on; None: for ever.
    pub(super) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// What is asked for, if it comes in time. The work goes on after that.
    ///
    /// # Errors
    /// The answer: 503 `timeout`, or what went wrong.
    pub(super) async fn wait<T>(
        self,
        asked: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, Response<Body>> {
        let outcome = match self.0 {
            None => asked.await,
            Some(end) => match tokio::time::timeout_at(end, asked).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(error::timeout()),
            },
        };
        outcome.map_err(|failed| error::image(&failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_one_for_all_that_is_waited_for() {
        let slow = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, ImageError>(seconds)
        };
        let status = |outcome: Result<u64, Response<Body>>| {
            outcome.map_err(|answer| answer.status().as_u16())
        };
        let deadline = Deadline::after(Some(Duration::from_secs(3)));
        assert_eq!(status(deadline.wait(slow(2)).await), Ok(2));
        assert_eq!(status(deadline.wait(slow(2)).await), Err(503));
        let none = Deadline::after(None);
        assert_eq!(status(none.wait(slow(100_000)).await), Ok(100_000));
        let missing = async { Err::<u64, _>(ImageError::NotFound("gone".into())) };
        assert_eq!(status(none.wait(missing).await), Err(404));
    }
}
