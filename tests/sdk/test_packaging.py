"""The tenant wheel is thin: neither Ray nor Rust nor servers come with it, and its import is cheap."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires

HEAVY = {
    "ray",
    "mumian_core",
    "mumian_orchestrator",
    "mumian_agent",
    "click",
    "rich",
    "yaml",
    "grpc",
    "numpy",
}


def test_the_wheel_asks_for_grpc_and_protobuf_only() -> None:
    asked = requires("mumian") or []
    plain = {re.split(r"[<>=!~;\[ ]", line)[0] for line in asked if "extra ==" not in line}
    extra = {re.split(r"[<>=!~;\[ ]", line)[0] for line in asked if "extra ==" in line}
    assert plain == {"grpcio", "grpcio-status", "googleapis-common-protos", "protobuf"}
    assert {name.lower() for name in extra} == {"click", "rich", "pyyaml"}


def test_what_comes_with_the_wheel_is_neither_ray_nor_rust_nor_a_server() -> None:
    found, left = {"mumian"}, ["mumian"]
    while left:
        for line in requires(left.pop()) or []:
            name = re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-")
            if "extra ==" not in line and name not in found:
                found.add(name)
                left.append(name)
    assert found == {
        *("mumian", "grpcio", "grpcio-status", "googleapis-common-protos", "protobuf", "typing-extensions")
    }


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded in a fresh interpreter after some code."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{m.partition('.')[0] for m in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(printed.stdout.split())


def test_importing_mumian_loads_nothing_heavy() -> None:
    assert not modules_after("import mumian") & HEAVY


def test_building_a_job_and_a_client_needs_no_extra() -> None:
    code = "import mumian; mumian.task_group(command='echo'); mumian.Client().close(); mumian.AsyncClient"
    assert modules_after(code) & HEAVY == {"grpc"}


def test_the_public_names_are_there_and_no_other() -> None:
    code = "import mumian; [getattr(mumian, n) for n in mumian.__all__]; assert not hasattr(mumian, 'nope')"
    assert "mumian" in modules_after(code)


def test_without_the_extra_the_command_says_how_to_get_it() -> None:
    code = (
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'rich' else found(name, *a)\n"
        "from mumian.cli.main import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (
        2,
        "mumian: the command line is not installed; pip install 'mumian[cli]'\n",
    )
