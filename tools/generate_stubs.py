"""Generate the Python stubs of every proto (`make proto`); --check fails when the committed ones differ."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
# Package path = import path, so a proto's folder says which distribution carries its stubs.
DESTINATIONS = {"mumian": ROOT / "sdk", "mumian_core": ROOT / "scheduler_core/python"}


def generate(proto: Path, out: Path) -> None:
    """Write the message stubs of one proto, and the gRPC stubs when it declares a service, below out."""
    well_known = Path(protoc.__file__).parent / "_proto"
    args = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}", f"--mypy_out={out}"]
    if "\nservice " in proto.read_text():
        args += [f"--grpc_python_out={out}", f"--mypy_grpc_out={out}"]
    if protoc.main([*args, str(proto.relative_to(PROTO))]) != 0:
        raise SystemExit(f"protoc refused {proto.relative_to(ROOT)}; see its message above")


def main() -> None:
    """Generate into the source tree, or into a scratch folder and compare."""
    check = "--check" in sys.argv[1:]
    # protoc finds its mypy plug-in, which stands beside this Python, by PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    stale: list[str] = []
    for package, destination in DESTINATIONS.items():
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            for proto in sorted((PROTO / package).rglob("*.proto")):
                generate(proto, out)
            for stub in sorted(out.rglob("*_pb2*")):
                target = destination / stub.relative_to(out)
                if check:
                    if not target.exists() or target.read_bytes() != stub.read_bytes():
                        stale.append(str(target.relative_to(ROOT)))
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(stub.read_bytes())
                for folder in target.relative_to(destination).parents:
                    (destination / folder / "__init__.py").touch() if folder.parts else None
    if stale:
        raise SystemExit(f"stale stubs, run `make proto` and commit: {', '.join(stale)}")


if __name__ == "__main__":
    main()
