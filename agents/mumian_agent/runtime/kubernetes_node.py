"""Where a machine is in its site, by the labels of its Kubernetes node."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

# Of the switch next to a node: what NVIDIA's Topograph writes, newest first. For racks there is a custom.
SWITCH_LABELS = ("fabric.topograph.run/tier-0", "network.topology.nvidia.com/leaf")
RACK_LABELS = ("topology.kubernetes.io/rack",)
# Where Kubernetes puts what a pod needs to speak to its API.
ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 10.0
_ANSWER_BYTES_MAX = 4 << 20


class KubernetesError(Exception):
    """Kubernetes does not tell of the node, and why."""


def labels_of(api_url: str, node_name: str, account_dir: Path = ACCOUNT_DIR) -> Mapping[str, str]:
    """The labels of a node.

    Args:
        api_url: of Kubernetes' API, https://host:port.
        account_dir: holds the caller's `token`, and the API's authority as `ca.crt`.

    Raises:
        KubernetesError: it cannot be asked, or refuses.
    """
    url = f"{api_url}/api/v1/nodes/{urllib.parse.quote(node_name, safe='')}"
    try:
        token = (account_dir / "token").read_text().strip()
        authority = account_dir / "ca.crt"
        tls = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=tls) as answer:
            node = json.loads(answer.read(_ANSWER_BYTES_MAX))
        return {str(name): str(value) for name, value in node["metadata"].get("labels", {}).items()}
    except urllib.error.HTTPError as error:
        advice = "; its account needs `get` of `nodes`" if error.code == 403 else ""
        raise KubernetesError(f"{url} answers {error.code}{advice}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KubernetesError(f"{url} cannot be asked: {getattr(error, 'reason', error)}") from None


def first_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    """The value of the first label that is there; empty: none is."""
    return next((labels[name] for name in names if labels.get(name)), "")
