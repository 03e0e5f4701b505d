//! Wall time of the hot paths: `cargo bench --package bench_online`.

use bench_online::paths::{Path, PATHS};

fn main() {
    divan::main();
}

#[divan::bench(args = PATHS, sample_count = 20, sample_size = 1)]
fn hot_path(bencher: divan::Bencher, path: &Path) {
    bencher.with_inputs(path.prepare).bench_refs(|run| run());
}
