"""A small city on this machine does the platform's real job: `python examples/demo/main.py`.

It starts an edge site, a city site and a remote hub, submits real jobs, measures what their users see,
compares with other ways to place them, and stops everything again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[2]))

from mumian import MumianError
from mumian_orchestrator.main.local_processes import StartError

from examples.demo.report import Report
from examples.demo.running_city import RunningCity
from examples.demo.show import run
from examples.demo.tenants import DemoError
from examples.demo.zone_client import ServiceError

_FAILED, _INTERRUPTED = 1, 130
_ENDING = (signal.SIGINT, signal.SIGTERM)


def main(*, keep: bool) -> int:
    """The exit status: 0 only when everything worked and everything is stopped."""
    report = Report()
    running = RunningCity(report.step)
    _set_signals(running)
    status, message, last_words = 0, "", []
    try:
        run(running, report)
    except KeyboardInterrupt:
        status, message = _INTERRUPTED, "interrupted"
    except (DemoError, StartError, MumianError, ServiceError) as error:
        status, message = _FAILED, str(error)
    except Exception as error:
        status, message = _FAILED, f"a defect of the demo: {type(error).__name__}: {error}"
    finally:
        # Whoever is impatient must not leave half of it running.
        _ignore_signals()
        if status == _FAILED:
            last_words = running.last_words_of_the_dead()
        with report.doing("stopping everything"):
            running.stop(keep=keep)
    if keep:
        report.step(f"state and logs are kept in {running.folder}")
    elif status == _FAILED:
        last_words.append("(all logs are gone with the temporary folder; --keep keeps them)")
    if status:
        print(f"demo: {message}", *last_words, sep="\n", file=sys.stderr)
    else:
        report.end(f"Done in {report.elapsed_s:.0f} s; everything is stopped.")
    return status


def _set_signals(running: RunningCity) -> None:
    """Let the user's wish to stop, and the end of any process of the city, break off whatever is going on."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        _ignore_signals()
        os.write(sys.stderr.fileno(), b"interrupted; stopping everything\n")
        raise KeyboardInterrupt

    def child_has_ended(_: int, __: FrameType | None) -> None:
        if running.last_words_of_the_dead():
            _ignore_signals()
            raise DemoError("a part of the city has ended by itself")

    for number in _ENDING:
        signal.signal(number, interrupt)
    signal.signal(signal.SIGCHLD, child_has_ended)


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the folder with all state and logs")
    sys.exit(main(keep=parser.parse_args().keep))
