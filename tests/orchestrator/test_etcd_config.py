"""How a coordinator is told where its etcd is, and what it says when it is told wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mumian_orchestrator.main.config import ConfigError, etcd_credentials, load

PEM = "-----BEGIN CERTIFICATE-----"


def config_file(folder: Path, **fields: object) -> Path:
    """A configuration with these fields; `ca.pem` is there, `text` is no PEM file."""
    (folder / "ca.pem").write_text(PEM)
    (folder / "text").write_text("hello")
    named = {k: str(folder / str(v)) if k.startswith("etcd_") else v for k, v in fields.items()}
    path = folder / "coordinator.yaml"
    path.write_text(yaml.safe_dump(named))
    return path


def test_one_address_is_a_cluster_of_one_and_several_are_kept_in_order(tmp_path: Path) -> None:
    assert load(config_file(tmp_path, etcd="h:1")).etcd == ("h:1",)
    assert load(config_file(tmp_path, etcd=["h:2", "h:1"])).etcd == ("h:2", "h:1")


def test_tls_is_used_when_all_its_files_are_given(tmp_path: Path) -> None:
    assert etcd_credentials(load(config_file(tmp_path))) is None
    files = {"etcd_ca": "ca.pem", "etcd_cert": "ca.pem", "etcd_key": "ca.pem"}
    credentials = etcd_credentials(load(config_file(tmp_path, **files)))
    assert credentials is not None
    assert credentials.ca == PEM.encode()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"etcd": "nowhere"}, r"etcd \('nowhere'\) must be host:port"),
        ({"etcd": []}, r"etcd \(\[\]\) must be host:port, or a list"),
        ({"etcd": [1]}, "must be host:port, or a list"),
        ({"etcd_ca": "ca.pem"}, "etcd_cert and etcd_key must be set too"),
        ({"etcd_ca": "ca.pem", "etcd_cert": "ca.pem", "etcd_key": "none"}, "etcd_key .* cannot be read"),
        ({"etcd_ca": "text", "etcd_cert": "ca.pem", "etcd_key": "ca.pem"}, "etcd_ca .* is no PEM file"),
    ],
)
def test_what_is_wrong_names_the_field(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(config_file(tmp_path, **fields))
