"""The Redfish meter against a controller that is not ours: sushy-tools' static BMC, by HTTPS, with resources
in the form of DMTF's mockups (DSP2043).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from mumian_agent.main.config_file import load
from mumian_agent.runtime.power.http_meters import RedfishMeter
from mumian_agent.runtime.power.meter import MeterError
from mumian_agent.runtime.power.site_meters import power_of_site
from mumian_agent.runtime.power.site_power import in_use
from mumian_orchestrator.main.free_ports import free_port

from tests.agent.test_doctor import config_file
from tests.processes import SCRIPTS, wait_for_port

CHASSIS = "Chassis/437XR1138R2"
# A server since 2021, with a resource for what its sensors say (DSP2046, EnvironmentMetrics).
NEW = {
    "EnvironmentMetrics": {
        "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
        "@odata.id": f"/redfish/v1/{CHASSIS}/EnvironmentMetrics",
        "Id": "EnvironmentMetrics",
        "Name": "Chassis Environment Metrics",
        "TemperatureCelsius": {"DataSourceUri": f"/redfish/v1/{CHASSIS}/Sensors/Intake", "Reading": 24.8},
        "PowerWatts": {"DataSourceUri": f"/redfish/v1/{CHASSIS}/Sensors/TotalPower", "Reading": 374.25},
    }
}
# One from before, with two power domains (DSP2046, Power).
OLD = {
    "Power": {
        "@odata.type": "#Power.v1_5_0.Power",
        "@odata.id": f"/redfish/v1/{CHASSIS}/Power",
        "Id": "Power",
        "Name": "Power",
        "PowerControl": [
            {"@odata.id": f"/redfish/v1/{CHASSIS}/Power#/PowerControl/0", "PowerConsumedWatts": 344},
            {"@odata.id": f"/redfish/v1/{CHASSIS}/Power#/PowerControl/1", "PowerConsumedWatts": 120.5},
        ],
        "PowerSupplies": [{"MemberId": "0", "LastPowerOutputWatts": 325}],
    }
}


class Controller:
    """A board controller that can be unplugged."""

    def __init__(self, folder: Path, resources: dict[str, Any]) -> None:
        for name, resource in resources.items():
            file = folder / "mockup" / CHASSIS / name / "index.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(resource))
        authority = trustme.CA()
        self.ca_file, key_file, chain_file = folder / "ca.pem", folder / "key.pem", folder / "chain.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(key_file)
        certificate.cert_chain_pems[0].write_to_path(chain_file)
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        argv = ["sushy-static", "-i", "127.0.0.1", "-p", str(port), "-m", str(folder / "mockup")]
        self.process = subprocess.Popen(
            [str(SCRIPTS / argv[0]), *argv[1:], "-c", str(chain_file), "-k", str(key_file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(f"127.0.0.1:{port}")

    def unplug(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def controller(folder: Path, resources: dict[str, Any]) -> Iterator[Controller]:
    made = Controller(folder, resources)
    yield made
    made.unplug()


@pytest.mark.parametrize(("resources", "power_mw"), [(NEW, 374_250), (OLD, 464_500), (NEW | OLD, 374_250)])
def test_a_controller_is_asked_for_what_it_has(
    tmp_path: Path, resources: dict[str, Any], power_mw: int
) -> None:
    with controller(tmp_path, resources) as bmc:
        meter = RedfishMeter(bmc.url, "437XR1138R2", "reader", "secret", str(bmc.ca_file))
        assert meter.power_mw() == power_mw
        assert meter.power_mw() == power_mw
        with pytest.raises(MeterError, match="answers 404"):
            RedfishMeter(bmc.url, "1", ca_file=str(bmc.ca_file)).power_mw()
        with pytest.raises(MeterError, match="certificate"):
            RedfishMeter(bmc.url, "437XR1138R2").power_mw()


def test_a_site_counts_by_its_controller_until_that_is_unplugged(tmp_path: Path) -> None:
    with controller(tmp_path, NEW) as bmc:
        redfish = {"url": bmc.url, "chassis": "437XR1138R2", "ca_file": str(bmc.ca_file)}
        config = load(config_file(tmp_path, power={"rapl": "ignore", "redfish": redfish}))
        power = power_of_site(config)
        reading = in_use(power.read(load_permille=0))
        assert reading is not None
        assert (reading.name, reading.power_mw) == ("redfish", 374_250)
        bmc.unplug()
        [lost] = power.read(load_permille=0)
        assert not lost.in_use
        assert "cannot be asked" in lost.fault
