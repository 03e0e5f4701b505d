"""The published documents: stored as they were written, and what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.api.v1.money_pb2 import MoneyDocument

from mumian_orchestrator.domain.errors import FieldFault, invalid
from mumian_orchestrator.domain.fields import FieldError
from mumian_orchestrator.domain.money import offers as price_lists
from mumian_orchestrator.domain.money.document import kind_of, name_of, read
from mumian_orchestrator.domain.money.offers import Offer, read_offers
from mumian_orchestrator.domain.money.pue_policy import PuePolicy, read_pue_policy
from mumian_orchestrator.domain.money.registry import Registry, read_registry
from mumian_orchestrator.domain.money.vouchers import Policy, read_policies
from mumian_orchestrator.domain.periods import moment_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import LOG, Write
from mumian_orchestrator.services.commit_log import CommitLog

_DOCUMENTS = "money/documents/"
DOCUMENTS_MAX = 1000


class MoneyDocuments:
    """What the city and the operators have published last. Older versions stay in the log."""

    def __init__(self, commit_log: CommitLog, clock: Clock) -> None:
        self._log, self._clock = commit_log, clock
        self._documents: dict[str, MoneyDocument] = {}
        self._offers: dict[str, tuple[Offer, ...]] = {}
        self.registry, self.pue = Registry(), PuePolicy()
        self.policies: tuple[Policy, ...] = ()

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored."""
        for key, value in stored.items():
            if key.startswith(_DOCUMENTS):
                document = MoneyDocument.FromString(value)
                self._documents[document.name] = document
                self._understand(document.name, document.text)

    def all(self) -> list[MoneyDocument]:
        """In order of name."""
        return [self._documents[name] for name in sorted(self._documents)]

    def apply(self, text: str) -> tuple[MoneyDocument, asyncio.Future[None]]:
        """Replace the document of the same name; it holds at once, and durably when the future is done.

        Raises:
            RequestRefusedError: INVALID_FIELD, and nothing has changed.
        """
        try:
            name = name_of(text)
            known = self._documents.get(name)
            if known is None and len(self._documents) >= DOCUMENTS_MAX:
                raise FieldError(f"there are {DOCUMENTS_MAX} documents already; replace one of them")
            if known is not None and known.text == text:
                return known, self._log.append([])
            self._understand(name, text)
        except FieldError as error:
            raise invalid([FieldFault("text", f"cannot be used: {error}")]) from None
        document = MoneyDocument(name=name, version=known.version + 1 if known else 1, text=text)
        document.apply_time.CopyFrom(self._clock.now())
        self._documents[name] = document
        value = document.SerializeToString()
        durable = self._log.append(
            [
                Write(f"{_DOCUMENTS}{name}", value),
                Write(f"{LOG}money/documents/{name}/{document.version:09d}", value),
            ]
        )
        return document, durable

    def _understand(self, name: str, text: str) -> None:
        fields = read(text)
        kind = kind_of(fields)
        if kind == "registry":
            self.registry = read_registry(fields)
        elif kind == "vouchers":
            self.policies = read_policies(fields)
        elif kind == "pue":
            self.pue = read_pue_policy(fields)
        else:
            self._offers[name] = read_offers(fields)

    # Price lists.

    def in_force(self, site: Site) -> dict[str, Offer]:
        """What its operator offers at a site now, by what it is."""
        offers = self._offers.get(f"offers/{site.operator_id}")
        if not offers:
            return {}
        return price_lists.in_force(offers, site, moment_of(self._clock.now().ToMilliseconds()))

    def priced(self, site: Site) -> Site:
        """The site at the prices that are offered now."""
        return price_lists.priced(site, self.in_force(site), self._clock.now().seconds)

    def limited(self, site: Site, nodes: Sequence[Node]) -> list[Node]:
        """Its nodes with as many accelerators as are offered now."""
        return price_lists.limited(nodes, self.in_force(site))
