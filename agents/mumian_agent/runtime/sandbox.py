"""Keeps from a task what its node keeps for itself and for others: folders that are empty where the task is.

The task gets a mount namespace in which an empty file system lies over each of those folders, and a user
namespace without a single capability: it cannot take them away again, nor read the environment and the memory
of what is in another. It is still the agent's user, on the node's network and among its processes.

It is made by util-linux, for a Python with threads cannot enter a user namespace. The task's own environment
is set at the very end: by a library that it names, or a function for the shell, it would take part in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mumian_agent.runtime.process_tree import ALLOCATION_VARIABLE, ATTEMPT_VARIABLE, NODE_VARIABLE

_ANSWER_WITHIN_S = 10.0
_TOOLS = ("unshare", "setpriv", "mount", "sh")
# By these a process is known as the task's, from its first moment on.
_MARKS = (ALLOCATION_VARIABLE, ATTEMPT_VARIABLE, NODE_VARIABLE)
_LATER = "MUMIAN_LATER_"
# Arguments: its own folder (or nothing), where it starts, the folders to hide, "--", what follows.
_HIDE = """
set -e
own=$1 start=$2
shift 2
[ -z "$own" ] || cd "$own"
while [ "$1" != -- ]; do
  [ ! -d "$1" ] || mount -t tmpfs -o mode=700,size=64k none "$1"
  shift
done
shift
if [ -n "$own" ]; then
  mkdir -p "$own"
  mount --no-canonicalize --bind . "$own"
fi
cd "$start"
exec "$@"
"""
# Arguments: the names of the task's variables; what to execute.
_BEGIN = f"""
for name in $1; do
  eval "export $name=\\"\\${{{_LATER}$name}}\\"; unset {_LATER}$name"
done
shift
unset OLDPWD
exec "$@"
"""
_NO_CAPABILITIES = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


def why_not(wanted: str, hidden: Sequence[Path]) -> str:
    """Why tasks of this node cannot be kept from those folders; empty: they can.

    Args:
        wanted: "auto" or "none".
    """
    if wanted == "none":
        return "the node's configuration wants none"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} is not installed; it is in util-linux"
    for folder in hidden:
        if Path(sys.prefix).resolve().is_relative_to(folder.resolve()):
            return f"the Python that tasks use ({sys.prefix}) lies in {folder}, which they are not to see"
    look = ["sh", "-c", '[ -z "$(ls -A "$1")" ]', "look", str(hidden[0])]
    try:
        asked = subprocess.run(
            argv_of(look, {}, [str(folder) for folder in hidden], "", "/"),
            env=environment_of({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unshare does not answer: {error}"
    said = (asked.stderr.strip().splitlines() or ["it says nothing"])[-1]
    return "" if asked.returncode == 0 else f"user namespaces do not work here: {said}"


def argv_of(
    argv: Sequence[str],
    environment: Mapping[str, str],
    hidden: Sequence[str],
    own_folder: str,
    start: str | None,
) -> list[str]:
    """What executes a command where those folders are empty; to be given `environment_of(environment)`.

    Args:
        own_folder: the task's, which it sees as it is, though it may lie in one that is hidden; empty: none.
        start: the folder in which the command starts; None: the caller's, if it is not hidden.
    """
    if start is None:
        here = Path.cwd()
        start = "/" if any(here.is_relative_to(folder) for folder in hidden) else str(here)
    later = " ".join(name for name in environment if name not in _MARKS)
    return [
        *("unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "--"),
        *("sh", "-c", _HIDE, "hide", own_folder, start, *hidden, "--"),
        *("setpriv", *_NO_CAPABILITIES, "--"),
        *("sh", "-c", _BEGIN, "begin", later, *argv),
    ]


def environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What `argv_of` is to be executed with: the task's variables under other names."""
    ours = {name: value for name, value in environment.items() if name in _MARKS}
    later = {f"{_LATER}{name}": value for name, value in environment.items() if name not in _MARKS}
    return {"PATH": os.environ.get("PATH", os.defpath), **ours, **later}


def is_being_made(pid: int) -> bool:
    """Whether a process that executes what `argv_of` gave is not the command yet."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # it is gone
    # In the midst of an exec it has none.
    return not words or _BEGIN.encode() in words
