"""Where a machine is in its site, read from a Kubernetes API that is a small server here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mumian_agent.runtime.kubernetes_node import (
    RACK_LABELS,
    SWITCH_LABELS,
    KubernetesError,
    first_of,
    labels_of,
)

LABELS = {"network.topology.nvidia.com/leaf": "sw-3", "topology.kubernetes.io/rack": "r7"}


class Api(BaseHTTPRequestHandler):
    """Knows one node, and one token."""

    def do_GET(self) -> None:
        status, answer = 404, b"{}"
        if self.headers["Authorization"] != "Bearer right":
            status = 403
        elif self.path == "/api/v1/nodes/worker-1":
            status, answer = 200, json.dumps({"metadata": {"labels": LABELS}}).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def account(folder: Path, token: str) -> Path:
    (folder / "token").write_text(f"{token}\n")
    return folder


def test_switch_and_rack_are_the_first_labels_that_are_there(api: str, tmp_path: Path) -> None:
    labels = labels_of(api, "worker-1", account(tmp_path, "right"))
    assert first_of(labels, SWITCH_LABELS) == "sw-3"
    assert first_of(labels, RACK_LABELS) == "r7"
    assert first_of(labels, ["example.com/row"]) == ""


@pytest.mark.parametrize(
    ("token", "node", "why"), [("wrong", "worker-1", "403; its account needs"), ("right", "x", "answers 404")]
)
def test_what_kubernetes_refuses_is_told(api: str, tmp_path: Path, token: str, node: str, why: str) -> None:
    with pytest.raises(KubernetesError, match=why):
        labels_of(api, node, account(tmp_path, token))


def test_without_a_token_or_a_server_it_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(KubernetesError, match="No such file"):
        labels_of("http://127.0.0.1:9", "n", tmp_path)
    with pytest.raises(KubernetesError, match="refused"):
        labels_of("http://127.0.0.1:9", "n", account(tmp_path, "right"))
