//! Work shared by threads in such a way that the outcome does not depend on how many there are.

/// `of(i)` for every i below `count`, in that order. A panic in one of them is a panic here.
pub fn shared<T: Send>(threads: usize, count: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return (0..count).map(of).collect();
    }
    // In turns, so that neighbours, which are often alike, do not all fall to one thread.
    let part = |first: usize| (first..count).step_by(threads).map(&of).collect::<Vec<T>>();
    let mut parts = std::thread::scope(|scope| {
        let part = &part;
        let running: Vec<_> = (1..threads).map(|first| scope.spawn(move || part(first))).collect();
        let mut parts = vec![part(0).into_iter()];
        for thread in running {
            match thread.join() {
                Ok(more) => parts.push(more.into_iter()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    });
    (0..count).filter_map(|i| parts[i % threads].next()).collect()
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
