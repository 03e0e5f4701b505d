"""Jobs built in Python: functions that return the API's own messages.

job = mumian.job(
    "hello",
    mumian.task_group(command=["echo", "hello"], cpu=0.5, memory="512MiB"),
)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from mumian import names, quantities
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import (
    Bundle,
    ComputeTime,
    Deferral,
    HealthCheck,
    JobSpec,
    LatencySlo,
    OnDisconnect,
    TaskGroup,
    UpdatePolicy,
)
from mumian.api.v1.resources_pb2 import Resources
from mumian.errors import invalid_field
from mumian.quantities import Quantity

Kind = Literal["batch", "service", "gang"]
KINDS: Mapping[str, job_pb2.JobKind.ValueType] = {
    "batch": job_pb2.JOB_KIND_BATCH,
    "service": job_pb2.JOB_KIND_SERVICE,
    "gang": job_pb2.JOB_KIND_GANG,
}
Topology = Literal["node", "switch", "rack", "site", "operator"]
TOPOLOGIES: Mapping[str, job_pb2.Topology.ValueType] = {
    "node": job_pb2.TOPOLOGY_NODE,
    "switch": job_pb2.TOPOLOGY_SWITCH,
    "rack": job_pb2.TOPOLOGY_RACK,
    "site": job_pb2.TOPOLOGY_SITE,
    "operator": job_pb2.TOPOLOGY_OPERATOR,
}
Reconcile = Literal["best_score", "keep_original", "keep_replacement", "longest_running"]
RECONCILES: Mapping[str, job_pb2.Reconcile.ValueType] = {
    "best_score": job_pb2.RECONCILE_BEST_SCORE,
    "keep_original": job_pb2.RECONCILE_KEEP_ORIGINAL,
    "keep_replacement": job_pb2.RECONCILE_KEEP_REPLACEMENT,
    "longest_running": job_pb2.RECONCILE_LONGEST_RUNNING,
}
PRIORITY_MAX = 100
COUNT_MAX = 1000
PORT_MAX = 65535
# Of the only one of a group.
PORT_NAME = "main"
RESTARTS_MAX = 1_000_000
FAILURES_MAX = 1000
USERS_MAX = 2**32 - 1
# What a group asks for in a dimension that it says nothing about.
CPU_MILLI_DEFAULT, MEMORY_MIB_DEFAULT = 1000, 256

Given = TypeVar("Given")
Parsed = TypeVar("Parsed")


def job(
    name: str,
    *task_groups: TaskGroup,
    kind: Kind = "batch",
    priority: int = 0,
    project: str = "",
    contract: str = "",
    jurisdictions: Sequence[str] = (),
    pue_max: Quantity | None = None,
    rent_max: Quantity | None = None,
    operators_allowed: Sequence[str] = (),
    operators_denied: Sequence[str] = (),
    deferral: Deferral | None = None,
    pinned: bool = False,
    on_disconnect: OnDisconnect | None = None,
    at_most_once: bool = False,
    update: UpdatePolicy | None = None,
) -> JobSpec:
    """A job of one or more task groups.

    Args:
        priority: 1 to 100, higher is placed first; 0 means the default, 50.
        project: of the tenant's own naming; quotas may be set for it.
        contract: the number of the contract that it runs under; no two voucher policies pay for one.
        jurisdictions: where its data may be; "CN-GD" covers "CN-GD-GZ". Empty: anywhere.
        pue_max: the highest average PUE of a site, such as 1.25.
        rent_max: the most that one task's rent may be an hour, in CNY at the site's own prices, such as 0.2.
        deferral: from `mumian.deferral`: a batch or gang job that may wait for cheaper hours.
        pinned: a service whose tasks are never moved to better places.
        on_disconnect: from `mumian.on_disconnect`: what becomes of tasks on a site that is cut off.
        update: from `mumian.update_policy`: how a service is replaced by a newer version of it.
        at_most_once: a task on a silent site is not replaced before it has surely stopped.

    Raises:
        MumianError: INVALID_FIELD.
    """
    if kind not in KINDS:
        raise invalid_field("kind", f"({kind!r}) is unknown; use {', '.join(KINDS)}")
    spec = JobSpec(
        name=_parsed("name", name, names.name),
        kind=KINDS[kind],
        priority=_parsed("priority", priority, quantities.WholeNumber(0, PRIORITY_MAX)),
        project=_parsed("project", project, names.name) if project else "",
        contract=_parsed("contract", contract, names.contract) if contract else "",
        task_groups=task_groups,
        jurisdictions=_texts("jurisdictions", jurisdictions),
        operators_allowed=_texts("operators_allowed", operators_allowed),
        operators_denied=_texts("operators_denied", operators_denied),
        deferral=deferral,
        pinned=pinned,
        on_disconnect=on_disconnect,
        at_most_once=at_most_once,
        update=update,
    )
    if pue_max is not None:
        spec.pue_max_permille = _parsed("pue_max", pue_max, quantities.pue_permille)
    if rent_max is not None:
        spec.rent_max_microcny_per_hour = _parsed("rent_max", rent_max, quantities.rent_microcny_per_hour)
    if not task_groups:
        raise invalid_field("task_groups", "is empty; add mumian.task_group(command=[...])")
    return spec


def deferral(*, finish_within: Quantity, run_time: Quantity) -> Deferral:
    """Lets a job wait for cheaper or cleaner hours if it still ends in time.

    Args:
        finish_within: the deadline, counted from the submit, "8h".
        run_time: how long a task runs at most, "2h".

    Raises:
        MumianError: INVALID_FIELD.
    """
    made = Deferral(
        finish_within_s=_parsed("finish_within", finish_within, quantities.duration_s),
        run_time_s=_parsed("run_time", run_time, quantities.duration_s),
    )
    if made.finish_within_s < made.run_time_s:
        raise invalid_field("finish_within", f"({finish_within}) is less than run_time ({run_time})")
    return made


def update_policy(*, max_parallel: int = 1, well_for: Quantity | None = None) -> UpdatePolicy:
    """How the tasks of a service are replaced when it is updated.

    Args:
        max_parallel: so many at the same time; each needs room beside the one that it takes over from.
        well_for: a new task counts once it has been well for so long; the next wait for that. Left out: 5 s.

    Raises:
        MumianError: INVALID_FIELD.
    """
    most = quantities.WholeNumber(1, COUNT_MAX)
    made = UpdatePolicy(max_parallel=_parsed("max_parallel", max_parallel, most))
    if well_for is not None:
        made.well_for_ms = _parsed("well_for", well_for, quantities.duration_ms_or_none)
    return made


def on_disconnect(
    *,
    lost_after: Quantity | None = None,
    stop_after: Quantity | None = None,
    replace: bool | None = None,
    reconcile: Reconcile | None = None,
) -> OnDisconnect:
    """What becomes of a job's tasks on a site that is cut off; what is left out is as the job's kind has it.

    Args:
        lost_after: silence after which a task is lost, "5m"; "0s": as soon as its site is unreachable.
        stop_after: the site has ended the task by itself when it has been cut off for so long.
        replace: whether a lost task is replaced elsewhere.
        reconcile: which of the two goes on when the site comes back.

    Raises:
        MumianError: INVALID_FIELD.
    """
    made = OnDisconnect(replace=replace)
    if lost_after is not None:
        made.lost_after_s = _parsed("lost_after", lost_after, quantities.duration_s_or_none)
    if stop_after is not None:
        made.stop_after_s = _parsed("stop_after", stop_after, quantities.duration_s)
    if reconcile is not None:
        if reconcile not in RECONCILES:
            raise invalid_field("reconcile", f"({reconcile!r}) is unknown; use {', '.join(RECONCILES)}")
        made.reconcile = RECONCILES[reconcile]
    return made


def task_group(
    name: str = "",
    *,
    command: Sequence[str] | str = (),
    entry_point: str = "",
    image: str = "",
    count: int = 1,
    cpu: Quantity | None = None,
    memory: Quantity | None = None,
    accelerators: Quantity | None = None,
    accelerator_models: Sequence[str] = (),
    archs: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    working_directory: str = "",
    upload: Bundle | None = None,
    outputs: Sequence[str] = (),
    latency: LatencySlo | None = None,
    compute: ComputeTime | Quantity | None = None,
    spread: Mapping[Topology, int] | None = None,
    apart_from: Mapping[str, Topology] | None = None,
    together: Topology | None = None,
    near: Mapping[str, Quantity] | None = None,
    traffic: Mapping[str, Quantity] | None = None,
    max_restarts: int | None = None,
    restart_delay: Quantity | None = None,
    restart_delay_max: Quantity | None = None,
    time_limit: Quantity | None = None,
    port: int | Literal["auto"] | None = None,
    ports: Mapping[str, int | Literal["auto"]] | None = None,
    health: HealthCheck | None = None,
) -> TaskGroup:
    """A template of `count` equal tasks; `command`, `entry_point` or `image` says what each runs.

    Args:
        command: the program and its arguments; a string is run by `sh -c`.
        entry_point: "package.module:function", called without arguments.
        image: a container image, run by the node's podman or docker: the command in it, or its own.
        cpu: cores of each task, 0.5 or "500m". Left out: 1.
        memory: of each task, "512MiB". Left out: 256 MiB.
        secrets: variables whose values are secrets of the tenant, {"DB_PASSWORD": "db-password"}.
        accelerators: 0.5 (a share of one device), or whole devices; left out: none.
        upload: from `Client.upload`: the folder that each task starts in, a copy of its own.
        outputs: files that are kept when a task has ended, ["results/*.csv"]; `Client.fetch` gets them.
        latency: from `mumian.latency`.
        compute: compute time of one request, "5ms" or from `mumian.compute_time`.
        spread: most tasks of the group in one node, switch, rack, site or operator, {"site": 2}.
        apart_from: groups that share no node, switch, rack, site or operator with this one,
            {"world": "site"}.
        together: what all tasks of the group share, "switch", with those of the job's other groups that
            name the same.
        near: round trip to the sites of another group + compute, at most, {"world": "5ms"}.
        traffic: bandwidth that each task reserves from a zone, {"tianhe": "50Mbit/s"}.
        restart_delay: wait before the first restart, "1s"; it doubles with each further one in a row.
        restart_delay_max: the longest that it becomes, "5m".
        time_limit: wall clock of one attempt, "10m".
        port: where each task listens; "auto": a free one, found in MUMIAN_PORT.
        ports: the same for several, by name, {"http": "auto"}; found in MUMIAN_PORT_HTTP.
        health: from `mumian.health`: how a service is asked whether it is ready, and well.

    Raises:
        MumianError: INVALID_FIELD.
    """
    if image and entry_point:
        raise invalid_field("entry_point", "is set beside image; write a command, or leave both out")
    if not image and bool(command) == bool(entry_point):
        both = "both command and entry_point are" if command else "neither command nor entry_point is"
        raise invalid_field("command", f"is unclear: {both} set; set exactly one")
    group = TaskGroup(
        name=_parsed("name", name, names.name) if name else "",
        count=_parsed("count", count, quantities.WholeNumber(1, COUNT_MAX)),
        archs=_texts("archs", archs),
        labels=labels or {},
        latency_slo=latency,
    )
    group.command.argv.extend(argv(command))
    if entry_point:
        group.command.entry_point = _parsed("entry_point", entry_point, names.entry_point)
    group.command.environment.update(environment or {})
    group.command.secrets.update(secrets or {})
    group.command.image = image
    group.command.working_directory = working_directory
    if upload is not None:
        group.command.bundle.CopyFrom(upload)
    group.outputs.extend(_texts("outputs", outputs))
    if cpu is not None:
        group.resources.cpu_milli = _parsed("cpu", cpu, quantities.cpu_milli)
    if memory is not None:
        group.resources.memory_mib = _parsed("memory", memory, quantities.memory_mib)
    if accelerators is not None:
        group.resources.accelerators.milli = _parsed(
            "accelerators", accelerators, quantities.accelerator_milli
        )
        group.resources.accelerators.models.extend(_texts("accelerator_models", accelerator_models))
    elif accelerator_models:
        raise invalid_field("accelerator_models", "is set without accelerators; say how many")
    fill_resources(group.resources, cpu_given=cpu is not None, memory_given=memory is not None)
    if isinstance(compute, ComputeTime):
        group.compute_time.CopyFrom(compute)
    elif compute is not None:
        group.compute_time.default_us = _parsed("compute", compute, quantities.duration_us)
    _couple(group, spread or {}, apart_from or {}, near or {}, traffic or {})
    if together is not None:
        group.together = _topology("together", together)
    if max_restarts is not None:
        group.max_restarts = _parsed("max_restarts", max_restarts, quantities.WholeNumber(0, RESTARTS_MAX))
    if time_limit is not None:
        group.time_limit_ms = _parsed("time_limit", time_limit, quantities.duration_ms)
    if restart_delay is not None:
        group.restart_delay_ms = _parsed("restart_delay", restart_delay, quantities.duration_ms)
    if restart_delay_max is not None:
        group.restart_delay_max_ms = _parsed("restart_delay_max", restart_delay_max, quantities.duration_ms)
    if port is not None:
        group.ports.add(name=PORT_NAME, number=_port("port", port))
        if ports:
            raise invalid_field("ports", "is set beside port; set one")
    for port_name, number in (ports or {}).items():
        name_of_port = _parsed("ports", port_name, names.name)
        group.ports.add(name=name_of_port, number=_port(f"ports[{port_name}]", number))
    if health is not None:
        group.health_check.CopyFrom(health)
    return group


def health(
    *,
    http: str = "",
    tcp: bool = False,
    command: Sequence[str] | str = (),
    port: str = "",
    interval: Quantity | None = None,
    timeout: Quantity | None = None,
    failures: int | None = None,
    grace: Quantity | None = None,
) -> HealthCheck:
    """How a task of a service is asked whether it is ready, and then again and again whether it is well.

    Args:
        http: GET of this path, "/healthz"; 200 to 399 is good.
        tcp: a connection that is accepted is good.
        command: run beside the task; exit status 0 is good. A string is run by `sh -c`.
        port: the one to ask, by its name; left out: the first.
        interval: from one look to the next. Left out: 10 s.
        timeout: an answer that takes longer is a failure. Left out: 2 s.
        failures: so many in a row restart the task. Left out: 3.
        grace: the time that a task has to be ready. Left out: 60 s.

    Raises:
        MumianError: INVALID_FIELD.
    """
    ways = [way for way, given in (("http", http), ("tcp", tcp), ("command", command)) if given]
    if len(ways) != 1:
        told = " and ".join(ways) or "nothing"
        raise invalid_field("health", f"has {told}; set exactly one of http, tcp and command")
    check = HealthCheck(port=port)
    if http:
        check.http_path = http
    elif tcp:
        check.tcp = True
    else:
        check.command.argv.extend(argv(command))
    if interval is not None:
        check.interval_ms = _parsed("interval", interval, quantities.duration_ms)
    if timeout is not None:
        check.timeout_ms = _parsed("timeout", timeout, quantities.duration_ms)
    if failures is not None:
        check.failures = _parsed("failures", failures, quantities.WholeNumber(1, FAILURES_MAX))
    if grace is not None:
        check.grace_ms = _parsed("grace", grace, quantities.duration_ms)
    return check


def _port(field: str, number: int | Literal["auto"]) -> int:
    return 0 if number == "auto" else _parsed(field, number, quantities.WholeNumber(1, PORT_MAX))


def _couple(
    group: TaskGroup,
    spread: Mapping[Topology, int],
    apart_from: Mapping[str, Topology],
    near: Mapping[str, Quantity],
    traffic: Mapping[str, Quantity],
) -> None:
    for topology, most in spread.items():
        group.spreads.add(
            topology=_topology("spread", topology),
            max_tasks=_parsed(f"spread[{topology}]", most, quantities.WholeNumber(1, COUNT_MAX)),
        )
    for other, topology in apart_from.items():
        group.apart_from.add(topology=_topology(f"apart_from[{other}]", topology), task_group=other)
    for other, budget in near.items():
        budget_us = _parsed(f"near[{other}]", budget, quantities.duration_us)
        group.group_latencies.add(task_group=other, budget_us=budget_us)
    for zone, bandwidth in traffic.items():
        bandwidth_kbps = _parsed(f"traffic[{zone}]", bandwidth, quantities.bandwidth_kbps)
        group.zone_traffic.add(zone_id=zone, bandwidth_kbps=bandwidth_kbps)


def _topology(field: str, name: str) -> job_pb2.Topology.ValueType:
    if name not in TOPOLOGIES:
        raise invalid_field(field, f"({name!r}) is no topology; use {', '.join(TOPOLOGIES)}")
    return TOPOLOGIES[name]


def latency(
    *zones: str,
    budget: Quantity,
    client: Quantity | None = None,
    users: Mapping[str, int] | None = None,
    share: Quantity | None = None,
    soft_cny_per_ms_hour: Quantity | None = None,
    patience: Quantity | None = None,
    measured_only: bool = False,
) -> LatencySlo:
    """A promise: network RTT p99 + compute time + client time <= budget, for the users in the zones named.

    Args:
        users: how many users each zone has, in any unit; a zone that is not named weighs 1.
        share: of the users that the promise is about, "95%". Left out: all.
        soft_cny_per_ms_hour: makes the promise soft: it refuses no site, but each millisecond over the
            budget costs so much an hour.
        patience: a service whose promise has been broken for so long moves to where it holds. Left out: 60 s.
        measured_only: a link counts only when it was measured lately; else its estimate plus error does.

    Raises:
        MumianError: INVALID_FIELD.
    """
    budget_us = _parsed("budget", budget, quantities.duration_us)
    slo = LatencySlo(zone_ids=zones, budget_us=budget_us, measured_only=measured_only)
    if client is not None:
        slo.client_us = _parsed("client", client, quantities.duration_us)
    for zone, count in (users or {}).items():
        slo.users[zone] = _parsed(f"users[{zone}]", count, quantities.WholeNumber(0, USERS_MAX))
    if share is not None:
        slo.users_permille = _parsed("share", share, quantities.share_permille)
    if patience is not None:
        slo.patience_ms = _parsed("patience", patience, quantities.duration_ms)
    if soft_cny_per_ms_hour is not None:
        slo.soft_microcny_per_ms_hour = _parsed(
            "soft_cny_per_ms_hour", soft_cny_per_ms_hour, quantities.money_microcny
        )
    return slo


def compute_time(
    default: Quantity | None = None,
    *,
    by_accelerator: Mapping[str, Quantity] | None = None,
    by_arch: Mapping[str, Quantity] | None = None,
) -> ComputeTime:
    """The compute time of one request; the entry that fits the node best counts.

    Raises:
        MumianError: INVALID_FIELD.
    """
    times = ComputeTime()
    if default is not None:
        times.default_us = _parsed("default", default, quantities.duration_us)
    for model, value in (by_accelerator or {}).items():
        times.by_accelerator_model_us[model] = _parsed(
            f"by_accelerator[{model}]", value, quantities.duration_us
        )
    for arch, value in (by_arch or {}).items():
        times.by_arch_us[arch] = _parsed(f"by_arch[{arch}]", value, quantities.duration_us)
    return times


def argv(command: Sequence[str] | str) -> list[str]:
    """The arguments of a command; a string becomes one for the shell."""
    return ["sh", "-c", command] if isinstance(command, str) and command else list(command)


def fill_resources(resources: Resources, *, cpu_given: bool, memory_given: bool) -> None:
    """Give a default to what was left out: to the coordinator 0 would mean that the task needs none."""
    if not cpu_given:
        resources.cpu_milli = CPU_MILLI_DEFAULT
    if not memory_given:
        resources.memory_mib = MEMORY_MIB_DEFAULT


def _parsed(field: str, value: Given, parse: Callable[[Given], Parsed]) -> Parsed:
    try:
        return parse(value)
    except ValueError as error:
        raise invalid_field(field, f"({value}) {error}") from None


def _texts(field: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str):
        raise invalid_field(field, f"({values!r}) must be a list; write [{values!r}]")
    return list(values)
