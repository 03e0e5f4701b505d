"""A small city on this machine does the platform's real job: `python examples/demo/main.py`.

It starts an edge site, a city site and a remote hub, submits real jobs, measures what their users see,
compares with other ways to place them, and stops everything again.
"""

from __future__ import annotations

import argparse
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
from examples.demo.show import DemoError, run
from examples.demo.zone_client import ServiceError

_FAILED, _INTERRUPTED = 1, 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(*, keep: bool) -> int:
    """The exit status: 0 only when everything worked and everything is stopped."""
    report = Report()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    running = RunningCity(report.step)
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
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if status == _FAILED:
            last_words = running.last_words_of_the_dead()
        with report.doing("stopping everything"):
            running.stop(keep=keep)
    if keep:
        report.step(f"state and logs are kept in {running.folder}")
    if status:
        print(f"demo: {message}", *last_words, sep="\n", file=sys.stderr)
    else:
        report.end(f"Done in {report.elapsed_s:.0f} s; everything is stopped.")
    return status


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the folder with all state and logs")
    sys.exit(main(keep=parser.parse_args().keep))
