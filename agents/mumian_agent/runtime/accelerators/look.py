"""`python -m mumian_agent.runtime.accelerators.look SOURCE` prints the devices of one source as JSON.

In a process of its own: a driver's library that hangs or crashes takes only this process with it.

Sources are `nvidia`, `ascend`, and the names of the plug-ins: entry points of the group
`mumian_agent.accelerators`, each a function without arguments that returns `Device`s.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from mumian_agent.domain.accelerators import Device
from mumian_agent.runtime.accelerators import ascend, nvidia

PLUG_INS = "mumian_agent.accelerators"


def sources() -> list[str]:
    """Those that this machine has. Loads no vendor's library."""
    found = [name for name, module in (("nvidia", nvidia), ("ascend", ascend)) if module.is_here()]
    return found + sorted(each.name for each in entry_points(group=PLUG_INS))


def find(source: str) -> Sequence[Device]:
    """The devices of a source, whatever that takes and raises."""
    if source == "nvidia":
        return nvidia.find()
    if source == "ascend":
        return ascend.find()
    [plug_in] = entry_points(group=PLUG_INS, name=source)
    made: Callable[[], Sequence[Device]] = plug_in.load()
    return made()


def main(arguments: Sequence[str]) -> None:
    """Print one JSON document: a list of devices, or an object with an `error`."""
    try:
        document: object = [dataclasses.asdict(device) for device in find(arguments[0])]
    except Exception as error:  # a vendor's library or a plug-in: whatever it is, there are no devices
        document = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
