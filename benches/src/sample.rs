//! Timing small things in this process, by CPU time, and medians.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Size;

/// Samples per measurement; the median of them counts.
const SAMPLES: usize = 7;

/// CPU time this thread has used: unlike the clock on the wall it stands still while other processes run.
pub(crate) fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Nanoseconds of CPU one call takes: the median of some samples, each as many calls as fill some milliseconds.
pub(crate) fn nanoseconds<T>(size: Size, mut call: impl FnMut() -> T) -> f64 {
    let sample = size.pick(Duration::from_millis(10), Duration::from_millis(80));
    let mut calls = 1_u32;
    // Also warms caches up.
    while time(calls, &mut call) < sample && calls < u32::MAX / 2 {
        calls *= 2;
    }
    let one = |_| time(calls, &mut call).as_nanos() as f64 / f64::from(calls);
    median((0..SAMPLES).map(one).collect())
}

fn time<T>(calls: u32, call: &mut impl FnMut() -> T) -> Duration {
    let start = thread_time();
    for _ in 0..calls {
        black_box(call());
    }
    thread_time() - start
}

/// The middle value, the mean of the two middle ones of an even number, or 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(0.0);
    let lower = middle.checked_sub(1).and_then(|i| values.get(i)).copied().unwrap_or(upper);
    if values.len().is_multiple_of(2) { f64::midpoint(lower, upper) } else { upper }
}

/// The value below which this share (0 to 1) of the sorted values lies; 0 of none.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
