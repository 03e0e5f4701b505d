"""Tenants' secrets: kept encrypted, handed to the tasks that name them, shown to nobody."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec, TaskGroup
from mumian.api.v1.secret_pb2 import Secret
from mumian.storage.v1.secret_pb2 import SealedSecret, StoredSecret

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES
from mumian_orchestrator.domain.names import NAME_ADVICE, is_name
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.secret_box import SealBrokenError, SecretBox
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.job_table import JobTable

log = logging.getLogger(__name__)

_SECRETS = "secrets/"
VALUE_BYTES_MAX = 32 * 1024  # Linux takes 128 KiB a variable, and all together have to fit as well
OF_TENANT_MAX = 200


class Secrets:
    """All secrets, by tenant and name, as they are stored; a value is open only on its way to a task."""

    def __init__(self, box: SecretBox | None, table: JobTable, commit_log: CommitLog, clock: Clock) -> None:
        """`box`: None where nobody has given the coordinator a key; then there are no secrets."""
        self._box, self._table = box, table
        self._commit_log, self._clock = commit_log, clock
        self._stored: dict[tuple[str, str], StoredSecret] = {}

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take what is stored."""
        for key, value in stored.items():
            if key.startswith(_SECRETS):
                tenant_id, _, name = key.removeprefix(_SECRETS).partition("/")
                self._stored[tenant_id, name] = StoredSecret.FromString(value)

    async def put(self, tenant_id: str, name: str, value: bytes, by: str) -> Secret:
        """Make a secret, or give it a new value.

        Args:
            by: who does it, as the list is to name them.

        Raises:
            RequestRefusedError: SECRETS_OFF or INVALID_FIELD.
        """
        if self._box is None:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_SECRETS_OFF,
                "this coordinator has no key to encrypt secrets with; its operator sets secrets_key",
            )
        known = self._stored.get((tenant_id, name))
        self._check(tenant_id, name, value, is_new=known is None)
        now = self._clock.now()
        secret = Secret(
            name=name, create_time=known.secret.create_time if known else now, update_time=now, updated_by=by
        )
        content = SealedSecret(tenant_id=tenant_id, name=name, value=value)
        stored = StoredSecret(secret=secret, sealed=self._box.seal(content.SerializeToString()))
        durable = self._commit_log.append([Write(_key(tenant_id, name), stored.SerializeToString())])
        self._stored[tenant_id, name] = stored
        await durable
        return secret

    def of(self, tenant_id: str) -> Sequence[Secret]:
        """The tenant's, in order of name."""
        return [self._stored[key].secret for key in sorted(self._stored) if key[0] == tenant_id]

    async def delete(self, tenant_id: str, name: str) -> None:
        """Forget a secret.

        Raises:
            RequestRefusedError: SECRET_NOT_FOUND, or SECRET_IN_USE by a job that has not ended.
        """
        if (tenant_id, name) not in self._stored:
            raise _not_found([FieldFault("name", _missing(name))])
        users = [job.id for job in self._table.jobs() if job.tenant_id == tenant_id and _names(job, name)]
        if users:
            more = f" and {len(users) - 1} more jobs" if len(users) > 1 else ""
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_SECRET_IN_USE,
                f"secret ({name}) is named by {users[0]}{more}; cancel what names it, then delete it",
            )
        durable = self._commit_log.append([Write(_key(tenant_id, name), None)])
        del self._stored[tenant_id, name]
        await durable

    def require(self, tenant_id: str, spec: JobSpec) -> None:
        """Refuse a job that names what the tenant has no secret of.

        Raises:
            RequestRefusedError: SECRET_NOT_FOUND.
        """
        faults = [
            FieldFault(f"task_groups[{number}].command.secrets[{variable}]", _missing(name))
            for number, group in enumerate(spec.task_groups)
            if group.command.secrets
            for variable, name in sorted(group.command.secrets.items())
            if (tenant_id, name) not in self._stored
        ]
        if faults:
            raise _not_found(faults)

    def opened(self, tenant_id: str, group: TaskGroup) -> Mapping[str, str]:
        """The values that a task of the group finds in its environment, by variable; but those that cannot be
        had, of which its site tells.
        """
        return {
            variable: value
            for variable, name in group.command.secrets.items()
            if (value := self._open(tenant_id, name)) is not None
        }

    def _open(self, tenant_id: str, name: str) -> str | None:
        stored = self._stored.get((tenant_id, name))
        if stored is None or self._box is None:
            return None
        try:
            content = SealedSecret.FromString(self._box.open(stored.sealed))
        except SealBrokenError as error:
            log.error("secret %s of tenant %s: %s; give all coordinators its key", name, tenant_id, error)
            return None
        if (content.tenant_id, content.name) != (tenant_id, name):
            log.error("secret %s of tenant %s holds another: the store was written by hand", name, tenant_id)
            return None
        return content.value.decode()

    def _check(self, tenant_id: str, name: str, value: bytes, *, is_new: bool) -> None:
        faults = []
        if not is_name(name):
            faults.append(FieldFault("name", f"({name!r}) {NAME_ADVICE}"))
        elif is_new and len(self.of(tenant_id)) >= OF_TENANT_MAX:
            faults.append(
                FieldFault("name", f"({name}) would be one of more than {OF_TENANT_MAX}; delete some")
            )
        # What is wrong with a value is told without it.
        if not value or len(value) > VALUE_BYTES_MAX:
            faults.append(FieldFault("value", f"({len(value)} bytes) must have 1 to {VALUE_BYTES_MAX} bytes"))
        elif b"\0" in value or not _is_text(value):
            faults.append(
                FieldFault("value", "must be UTF-8 without zero bytes; encode other bytes as base64")
            )
        if faults:
            raise invalid(faults)


def _key(tenant_id: str, name: str) -> str:
    return f"{_SECRETS}{tenant_id}/{name}"


def _names(job: Job, name: str) -> bool:
    if job.state in TERMINAL_JOB_STATES:
        return False
    specs = (job.spec, job.rollout.spec) if job.HasField("rollout") else (job.spec,)
    return any(name in group.command.secrets.values() for spec in specs for group in spec.task_groups)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _missing(name: str) -> str:
    return f"({name}) is no secret of yours; `mumian secret set {name}` makes it"


def _not_found(faults: Sequence[FieldFault]) -> RequestRefusedError:
    message = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
    return RequestRefusedError(error_pb2.ERROR_REASON_SECRET_NOT_FOUND, message, faults)
