//! The queue and the one thread that encodes: off the reactors, of low priority, and there only once
//! something was asked for.

use super::shelf::{Content, Shelf};
use super::{Job, Shared, writing};
use crate::encode::Coding;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Jobs that wait. What is asked for beyond is not queued, and asked for again by the next request.
const MOST_JOBS: usize = 4_096;
/// Source bytes after which what was made is published, so that a page's files do not wait for each other.
const BATCH_BYTES: u64 = 4 << 20;
/// How nice the thread is to those that serve.
const NICE: i32 = 10;
/// The thread's name.
const NAME: &str = "encode";

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    /// The thread runs.
    running: bool,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Queue> {
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// False: there are too many.
pub(super) fn push(shared: &Arc<Shared>, job: Job) -> bool {
    let mut queue = lock(shared);
    if queue.jobs.len() >= MOST_JOBS {
        return false;
    }
    if !queue.running {
        let worker = shared.clone();
        let thread = std::thread::Builder::new().name(NAME.into());
        if let Err(error) = thread.spawn(move || run(&worker)) {
            tracing::warn!(%error, "cannot start the thread that encodes, files are served as they are");
            return false;
        }
        queue.running = true;
    }
    queue.jobs.push_back(job);
    drop(queue);
    shared.wake.notify_one();
    true
}

/// Somebody waits for it: it goes before all that is queued.
pub(super) fn hasten(shared: &Shared, shelf: &Arc<Shelf>, content: Content, coding: Coding) {
    let mut queue = lock(shared);
    let is_it = |job: &Job| {
        Arc::ptr_eq(&job.shelf, shelf) && (job.content, job.coding) == (content, coding)
    };
    if let Some(at) = queue.jobs.iter().position(is_it)
        && let Some(job) = queue.jobs.remove(at)
    {
        queue.jobs.push_front(job);
    }
}

/// Says that the thread is gone, however it went: the next job starts another one.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(self.0).running = false;
    }
}

fn run(shared: &Shared) {
    let _running = Running(shared);
    // On Linux a thread has a priority of its own.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the thread that encodes keeps its priority");
    }
    while let Some(jobs) = next(shared) {
        let made = catch_unwind(AssertUnwindSafe(|| writing::make(shared, &jobs)));
        if made.is_err() {
            tracing::error!("encoding a file ended abnormally, its batch is served as it is");
        }
        for job in &jobs {
            if made.is_err() {
                job.shelf.give_up(job.content);
            }
            job.shelf.answered(job.content, job.coding);
        }
        shared.done.notify_waiters();
    }
}

/// Waits for work: the oldest job, and those of the same base behind it. None: the end.
fn next(shared: &Shared) -> Option<Vec<Job>> {
    let mut queue = lock(shared);
    loop {
        if shared.ending.load(Relaxed) {
            queue.jobs.clear();
            return None;
        }
        if let Some(first) = queue.jobs.pop_front() {
            let mut bytes = first.content.length;
            let mut batch = vec![first];
            let (same, others): (VecDeque<Job>, VecDeque<Job>) = std::mem::take(&mut queue.jobs)
                .into_iter()
                .partition(|job| {
                    let same = Arc::ptr_eq(&job.shelf, &batch[0].shelf);
                    bytes += if same { job.content.length } else { 0 };
                    same && bytes <= BATCH_BYTES
                });
            batch.extend(same);
            queue.jobs = others;
            return Some(batch);
        }
        queue = shared
            .wake
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
