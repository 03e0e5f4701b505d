"""`mumian-bench rtt`: measured matrices of round-trip times through the coordinator's network coordinates."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click

from mumian_orchestrator.bench.rtt.matrix import MatrixFileError, read_matrix
from mumian_orchestrator.bench.rtt.replay import Accuracy, replay

_UNITS_US = {"us": 1, "ms": 1000, "s": 1_000_000}
# Of 1,740 Internet hosts (King), two dimensions and heights: the abstract of Dabek et al., SIGCOMM 2004.
PUBLISHED = {
    "source": "Dabek et al., Vivaldi, SIGCOMM 2004, abstract: King, 1,740 hosts, two dimensions with heights",
    "median_relative_error": 0.11,
}


class _BadInputError(click.ClickException):
    exit_code = 2


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--unit", type=click.Choice(list(_UNITS_US)), default="ms", show_default=True, help="Of FILE's numbers."
)
@click.option(
    "--samples",
    "samples",
    type=click.IntRange(1, 100_000),
    multiple=True,
    default=(16, 32, 64, 128, 256),
    show_default=True,
    help="Report after so many samples by each node; give it several times.",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1, 100_000),
    default=32,
    show_default=True,
    help="That each node measures.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Runs, seeded from 1."
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rtt(file: Path, unit: str, samples: tuple[int, ...], neighbours: int, seeds: int, output: str) -> None:
    """Let the nodes of FILE measure some of one another, and say how well the coordinates then know the round
    trips that none of them has measured.

    FILE is a square matrix, tab-separated, gzipped or not; 0 where nothing was measured.
    """
    try:
        matrix_us = read_matrix(file, _UNITS_US[unit])
    except MatrixFileError as error:
        raise _BadInputError(str(error)) from error
    runs = [run for seed in range(1, seeds + 1) for run in replay(matrix_us, samples, neighbours, seed)]
    if not runs:
        raise _BadInputError(
            f"{file}: with {neighbours} neighbours every pair of the {len(matrix_us)} nodes is measured; "
            "give fewer --neighbours"
        )
    if output == "json":
        document = {
            "file": file.name,
            "nodes": len(matrix_us),
            "neighbours": neighbours,
            "published_vivaldi": PUBLISHED,
            "runs": [run._asdict() for run in runs],
        }
        click.echo(json.dumps(document, indent=2))
        return
    for sample in sorted(set(samples)):
        _print_medians(sample, [run for run in runs if run.samples_per_node == sample])
    click.echo(f"rtt_published_vivaldi_king_median_relative_error {PUBLISHED['median_relative_error']} ratio")


def _print_medians(sample: int, runs: list[Accuracy]) -> None:
    for name in ("median_relative_error", "p90_relative_error", "constant_median_relative_error"):
        click.echo(f"rtt_{sample}_{name} {statistics.median(getattr(run, name) for run in runs):.3f} ratio")
    within = statistics.median(run.within_error_permille for run in runs)
    click.echo(f"rtt_{sample}_within_error {within:g} permille")
