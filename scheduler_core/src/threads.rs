//! Work shared by threads in such a way that the outcome does not depend on how many there are.

use std::sync::atomic::{AtomicUsize, Ordering};

/// `of(i)` for every i below `count`, in that order. A panic in one of them is a panic here.
pub fn shared<T: Send>(threads: usize, count: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return (0..count).map(of).collect();
    }
    // Who is done takes the next, so that nobody waits for one who had more to do.
    let next = AtomicUsize::new(0);
    let take = || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|&i| i < count);
        taken.map(|i| (i, of(i))).collect::<Vec<(usize, T)>>()
    };
    let mut results = std::thread::scope(|scope| {
        let running: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut results = take();
        for thread in running {
            match thread.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn results_come_in_order_on_any_number_of_threads() {
        for threads in [0, 1, 2, 3, 7, 50] {
            assert_eq!(shared(threads, 10, |i| i * i), (0..10).map(|i| i * i).collect::<Vec<_>>());
            assert!(shared(threads, 0, |i| i).is_empty());
        }
    }
}
