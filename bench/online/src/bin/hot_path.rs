//! `hot_path NAME` runs one hot path once. Callgrind counts what happens in `measured` alone.

use bench_online::paths::PATHS;

#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    run();
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(path) = PATHS.iter().find(|path| path.name == name) else {
        let names: Vec<_> = PATHS.iter().map(|path| path.name).collect();
        eprintln!("hot_path NAME: NAME ({name}) must be one of {}", names.join(", "));
        std::process::exit(2);
    };
    measured(&mut *(path.prepare)());
}
