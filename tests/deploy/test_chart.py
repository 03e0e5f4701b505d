"""The Helm chart of a site: rendered by Helm, and held against Kubernetes' schemas and the agent's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from mumian_agent.domain import config as site_config
from mumian_agent.domain.fields import Fields

CHART = Path(__file__).parents[2] / "deploy/helm/mumian-site"
KUBERNETES = ("1.25", "1.34")
SITE = {
    "id": "gz-nansha",
    "operator_id": "china-telecom",
    "tier": "edge",
    "jurisdiction": "CN-GD-GZ",
    "pue": {"average": 1.35},
}
LEAST: dict[str, Any] = {
    "image": {"repository": "registry.example/mumian-agent"},
    "config": {"site": SITE, "coordinator": ["10.0.0.2:7071"]},
}
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/mumian-agent", "tag": "0.1.0-rc1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "config": {
        "site": SITE,
        "coordinator": ["10.0.0.2:7071", "10.0.0.3:7071"],
        "node": {"labels": {"rack": "r1"}, "cpu_limit": 12},
        "ray": {"warm_workers": 3},
        "reflector": {"advertise": "203.0.113.7:9002"},
        "power": {"rapl": "ignore"},
    },
    "join": {"coordinator": "10.0.0.2:7070", "tokenSecret": "site-token"},
    "nodes": {
        "count": 3,
        "config": {"labels": {"rack": "r2"}},
        "resources": {"limits": {"nvidia.com/gpu": 2}},
        "nodeSelector": {"mumian": "node"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
    "topology": {"fromNodeLabels": True, "rackLabels": ["example.com/rack"]},
    "hostNetwork": False,
    "state": {"size": "50Gi", "storageClass": "cephfs", "accessMode": "ReadWriteMany", "shared": True},
    "resources": {"limits": {"memory": "16Gi"}},
    "nodeSelector": {"mumian": "agent"},
    "tolerations": [{"operator": "Exists"}],
    "zoneReflector": {"enabled": True, "nodeSelector": {"zone": "tianhe"}},
}


def _helm() -> str | None:
    built = Path(os.environ.get("MUMIAN_CACHE_DIR", Path.home() / ".cache/mumian")) / "helm"
    return shutil.which("helm") or next((str(file) for file in sorted(built.glob("*/helm"))), None)


HELM = _helm()
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed; `make helm` builds it, with Go")


def helm(folder: Path, values: dict[str, Any], *argv: str) -> subprocess.CompletedProcess[str]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    assert HELM is not None
    # A helm that was built from its source takes itself for one of an old Kubernetes.
    command = [HELM, *argv, str(CHART), "--values", str(file), "--kube-version", KUBERNETES[0]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(folder: Path, values: dict[str, Any], release: str = "edge") -> list[dict[str, Any]]:
    done = helm(folder, values, "template", release)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_the_chart_is_free_of_faults(tmp_path: Path, values: dict[str, Any]) -> None:
    done = helm(tmp_path, values, "lint", "--strict")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_kubernetes_knows_every_field_that_is_rendered(
    tmp_path: Path, values: dict[str, Any], version: str
) -> None:
    documents = rendered(tmp_path, values)
    assert len(documents) >= 5
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_the_agent_takes_the_configuration_that_it_is_given(tmp_path: Path, values: dict[str, Any]) -> None:
    [config] = of_kind(rendered(tmp_path, values), "ConfigMap").values()
    site = site_config.parse(yaml.safe_load(config["data"]["site.yaml"].replace("POD_IP", "10.1.0.6")))
    assert site.site.id == "gz-nansha"
    assert site.coordinators == tuple(values["config"]["coordinator"])
    assert (site.ray_listen, site.reflector_listen) == ("10.1.0.6:6380", "10.1.0.6:9002")
    node = site_config.node_of(Fields(yaml.safe_load(config["data"]["node.yaml"]), "node"))
    if values is EVERYTHING:
        assert (site.warm_workers, site.reflector_advertised) == (3, "203.0.113.7:9002")
        assert node.labels == {"rack": "r2"}


def test_every_pod_finds_what_it_mounts_and_its_scripts_are_shell(tmp_path: Path) -> None:
    documents = rendered(tmp_path, EVERYTHING)
    claims = of_kind(documents, "PersistentVolumeClaim")
    given = {**of_kind(documents, "ConfigMap"), **of_kind(documents, "Secret"), "site-token": {}}
    workloads = [each for each in documents if each["kind"] in ("StatefulSet", "Deployment")]
    assert len(workloads) == 3
    for workload in workloads:
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
            for kind, field in (("configMap", "name"), ("secret", "secretName")):
                assert kind not in volume or volume[kind][field] in given
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes.keys()
            if container["command"][0] == "sh":
                subprocess.run(["sh", "-n"], input=container["command"][-1], text=True, check=True)


def test_only_what_reads_where_the_machine_is_has_a_token(tmp_path: Path) -> None:
    assert not of_kind(rendered(tmp_path, LEAST), "ServiceAccount")
    for workload in of_kind(rendered(tmp_path, EVERYTHING), "StatefulSet").values():
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        containers = [*pod["initContainers"], *pod["containers"]]
        mounts = {each["name"]: {mount["name"] for mount in each["volumeMounts"]} for each in containers}
        assert [name for name, volumes in mounts.items() if "kubernetes" in volumes] == ["place"]
        [place] = [each for each in containers if each["name"] == "place"]
        assert "--rack-label 'example.com/rack'" in place["command"][-1]


def test_two_sites_in_one_namespace_share_nothing(tmp_path: Path) -> None:
    one, other = rendered(tmp_path, EVERYTHING, "one"), rendered(tmp_path, EVERYTHING, "other")
    names = [{(each["kind"], each["metadata"]["name"]) for each in site} for site in (one, other)]
    assert not names[0] & names[1]
    selectors = [
        [each["spec"]["selector"] for each in site if each["kind"] in ("StatefulSet", "Service")]
        for site in (one, other)
    ]
    assert all(selector not in selectors[1] for selector in selectors[0])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"image": {"repository": ""}}, "image"),
        ({"config": {"site": SITE, "coordinator": []}}, "coordinator"),
        ({"config": {"site": {**SITE, "tier": "cloud"}, "coordinator": ["a:1"]}}, "tier"),
        ({"config": {**LEAST["config"], "state_dir": "/tmp"}}, "config"),
        ({"state": {"shared": True, "accessMode": "ReadWriteOnce"}}, "accessMode"),
        ({"join": {"tokenSecret": "site-token"}}, "coordinator"),
        ({"warm": True}, "warm"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(tmp_path: Path, wrong: dict[str, Any], why: str) -> None:
    done = helm(tmp_path, {**LEAST, **wrong}, "template", "edge")
    assert done.returncode != 0
    assert why in done.stderr
