"""Instructions of the placer's hot paths, counted by callgrind (`make bench-instructions`).

Unlike seconds they are the same on a busy machine, so a regression shows in one run. The counts
in `instructions.toml` hold for one compiler; with another they are printed and not compared.
`--update` writes what was counted.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

from bench.report import ROOT

EXPECTED = ROOT / "bench/instructions.toml"
HOT_PATH = ROOT / "target/release/hot_path"
PATHS = ("bulk", "bulk_again", "decision", "delta", "verify", "snapshot")
HEAD = """\
# Instructions of the hot paths of bench/online/src/paths.rs, from `make bench-instructions`.
# After a change that is meant to cost more: `.venv/bin/python -m bench.instructions --update`.
"""


def count(path: str) -> int:
    """Instructions between the start and the end of one hot path."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--tool=callgrind", "--toggle-collect=hot_path::measured*"]
        command = ["valgrind", *options, f"--callgrind-out-file={folder}/out", str(HOT_PATH), path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not collected or collected.group(1) == "0":
        raise SystemExit(f"{' '.join(command)} counted nothing ({done.returncode}):\n{done.stderr[-2000:]}")
    return int(collected.group(1))


def compiler() -> str:
    """The compiler, which decides what the same source costs."""
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def write(counts: dict[str, int], tolerance_percent: int) -> None:
    """Make these counts the expected ones."""
    lines = [f'compiler = "{compiler()}"', f"tolerance_percent = {tolerance_percent}", "", "[instructions]"]
    lines += [f"{path} = {value}" for path, value in counts.items()]
    EXPECTED.write_text(HEAD + "\n".join(lines) + "\n")


def main() -> int:
    """Print each count; 1 when one is out of its range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--update", action="store_true", help="make the counts of this run the expected ones")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        print("instructions: not counted, valgrind is missing; install it with `apt-get install valgrind`")
        return 0
    counts = {path: count(path) for path in PATHS}
    expected = tomllib.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    tolerance_percent = int(expected.get("tolerance_percent", 5))
    if args.update:
        write(counts, tolerance_percent)
        return 0
    comparable = expected.get("compiler") == compiler()
    failed = False
    for path, value in counts.items():
        print(f"instructions_{path} {value} instructions")
        wanted = int(expected.get("instructions", {}).get(path, 0))
        if comparable and abs(value - wanted) * 100 > wanted * tolerance_percent:
            failed = True
            change = f"{100 * (value - wanted) / wanted:+.1f} %" if wanted else "not committed yet"
            print(
                f"{path}: {value} instructions, expected {wanted} +- {tolerance_percent} % ({change});"
                f" find the cause, or run `{sys.executable} -m bench.instructions --update` and commit",
                file=sys.stderr,
            )
    if not comparable:
        print(
            f"instructions: not compared, {compiler()} is not {expected.get('compiler')} of {EXPECTED.name}"
        )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
