"""What a live system has recorded: its fleet from the public API, its jobs from there or a backup file."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mumian.api.v1.fleet_pb2 import Link, Node, Site, Zone
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.client import Client

from mumian_orchestrator.adapters.disk.backup_file import DiskBackupReader
from mumian_orchestrator.services.store.reader import DATA


@dataclass(frozen=True, slots=True)
class Recording:
    """A fleet, and all jobs with their allocations.

    Args:
        origin: where it is from, in words.
        end_unix_s: when it was taken: what ran then still runs.
    """

    origin: str
    end_unix_s: float
    sites: Sequence[Site]
    nodes: Sequence[Node]
    zones: Sequence[Zone]
    links: Sequence[Link]
    jobs: Sequence[Job]


def from_coordinator(address: str | None, tenants: Sequence[str], now_unix_s: float) -> Recording:
    """The fleet and the jobs of some tenants, by the coordinator that `Client` finds.

    Raises:
        MumianError: the coordinator does not answer.
    """
    jobs: list[Job] = []
    for tenant in tenants:
        with Client(address, tenant=tenant) as client:
            jobs += client.list()
    with Client(address) as client:
        return Recording(
            origin=f"coordinator {client.address}",
            end_unix_s=now_unix_s,
            sites=list(client.sites()),
            nodes=list(client.nodes()),
            zones=list(client.zones()),
            links=list(client.links()),
            jobs=jobs,
        )


def with_jobs_of_backup(recording: Recording, path: Path) -> Recording:
    """The same fleet with the jobs of all tenants from a backup file, up to its time.

    Raises:
        BackupFileError: it is no backup, or damaged.
    """
    reader = DiskBackupReader(path)
    reader.check()
    jobs: dict[str, Job] = {}
    allocations: dict[str, list[Allocation]] = defaultdict(list)
    for key, value in reader.records():
        if key.startswith(f"{DATA}jobs/"):
            job = Job.FromString(value)
            jobs[job.id] = job
        elif key.startswith(f"{DATA}allocations/"):
            allocation = Allocation.FromString(value)
            allocations[allocation.job_id].append(allocation)
    for job_id, job in jobs.items():
        found = sorted(allocations[job_id], key=lambda a: (a.create_time.ToNanoseconds(), a.id))
        job.allocations.extend(found)
    newest = max((job.update_time.ToNanoseconds() for job in jobs.values()), default=0) / 1e9
    return dataclasses.replace(
        recording,
        origin=f"{recording.origin}, jobs of {path.name}",
        end_unix_s=newest or recording.end_unix_s,
        jobs=list(jobs.values()),
    )
