"""The entry point of `mumian`."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if any(importlib.util.find_spec(package) is None for package in ("click", "rich", "yaml")):
        print("mumian: the command line is not installed; pip install 'mumian[cli]'", file=sys.stderr)
        raise SystemExit(2)
    from mumian.cli.app import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
