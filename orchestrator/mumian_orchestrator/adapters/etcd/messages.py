"""etcd3's messages, rebuilt so that they work with today's protobuf.

etcd3 0.12.0 ships code generated for protobuf 3; protobuf >= 4 refuses to run it, and the pure-Python
implementation that would run it slows the whole process down 50 times and more. The serialized
descriptors inside those files are still good: this module reads them without running the files, builds
the messages in a descriptor pool of its own (nothing collides with other packages' etcd messages), and
hands them to `etcd3` under the names that its stubs import.
"""

from __future__ import annotations

import ast
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# In the order in which they import each other.
_FILES = ("kv_pb2", "auth_pb2", "rpc_pb2")
_BOOL, _INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL, descriptor_pb2.FieldDescriptorProto.TYPE_INT64
# etcd3 0.12.0 knows etcd 3.3; these fields are of etcd 3.4 (message, field, number, type).
_NEWER_FIELDS = (
    ("WatchCreateRequest", "fragment", 8, _BOOL),
    ("WatchResponse", "fragment", 7, _BOOL),
    ("StatusResponse", "dbSizeInUse", 9, _INT64),
)


def _serialized_descriptor(source: Path) -> bytes:
    """The `serialized_pb` literal of a generated file, read without running the file.

    Raises:
        ImportError: the file has none; etcd3 is another version than the one this was written for.
    """
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            literal = ast.literal_eval(node.value.args[0])
            return str(literal).encode("latin-1")
    raise ImportError(f"{source} holds no serialized_pb; install etcd3==0.12.0")


def _module(name: str, file: Any) -> ModuleType:
    """A module with the file's messages and enum values, as a generated one would have them."""
    module = ModuleType(name)
    for message in file.message_types_by_name.values():
        setattr(module, message.name, message_factory.GetMessageClass(message))
    for enum in file.enum_types_by_name.values():
        for value in enum.values:
            setattr(module, value.name, value.number)
    return module


def _add_newer_fields(file: descriptor_pb2.FileDescriptorProto) -> None:
    messages = {message.name: message for message in file.message_type}
    for message, name, number, kind in _NEWER_FIELDS:
        if message in messages:
            messages[message].field.add(
                name=name,
                number=number,
                type=kind,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
                json_name=name,
            )


def load() -> tuple[ModuleType, ModuleType]:
    """etcd3's messages and its gRPC stubs (`rpc_pb2`, `rpc_pb2_grpc`).

    Raises:
        ImportError: etcd3 is not installed, or is another version.
    """
    spec = find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ImportError("etcd3 is not installed; install mumian-orchestrator with its dependencies")
    folder = Path(spec.origin).parent / "etcdrpc"
    pool = descriptor_pool.DescriptorPool()
    for stem in _FILES:
        name = f"etcd3.etcdrpc.{stem}"
        proto = descriptor_pb2.FileDescriptorProto.FromString(_serialized_descriptor(folder / f"{stem}.py"))
        _add_newer_fields(proto)
        pool.Add(proto)
        sys.modules[name] = _module(name, pool.FindFileByName(proto.name))
    return sys.modules["etcd3.etcdrpc.rpc_pb2"], importlib.import_module("etcd3.etcdrpc.rpc_pb2_grpc")


rpc, stubs = load()
