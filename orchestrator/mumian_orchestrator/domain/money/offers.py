"""An operator's price list: what it asks for cores, memory, accelerators and egress, when, and how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from mumian.api.v1.fleet_pb2 import Forecast, Node, Site

from mumian_orchestrator.domain.fields import FieldError, Fields
from mumian_orchestrator.domain.money.document import cny, day, identifier

# A core and a GiB, for an hour, and a GiB that leaves the site; all else is an accelerator's model.
CPU, MEMORY, EGRESS = "cpu", "memory", "egress"
_HOUR_S = 3600
# What is not let, or is written otherwise: taken for a model, it would never be charged, and nobody told.
_NO_MODELS = frozenset({CPU, MEMORY, EGRESS, "storage", "disk", "network", "bandwidth", "security", "energy"})


@dataclass(frozen=True, slots=True)
class Offer:
    """One line of a price list."""

    operator_id: str
    site_id: str  # empty: at each of its sites
    what: str
    microcny: int  # for an hour; of egress: for a GiB
    first_day: date
    last_day: date
    first_hour: int  # of the day; from this one
    end_hour: int  # up to, and without, this one; it may be the next day's
    devices: int | None  # how many the platform may use at each site; None: all that there are

    def holds_at(self, moment: datetime) -> bool:
        """Whether it is in force at a local time."""
        hour = moment.hour
        if self.first_hour < self.end_hour:
            in_hours = self.first_hour <= hour < self.end_hour
        else:
            in_hours = hour >= self.first_hour or hour < self.end_hour
        return in_hours and self.first_day <= moment.date() <= self.last_day


def in_force(offers: Sequence[Offer], site: Site, moment: datetime) -> dict[str, Offer]:
    """By what is offered at a site; where several hold, the first in the list."""
    found: dict[str, Offer] = {}
    for offer in offers:
        is_here = offer.operator_id == site.operator_id and offer.site_id in ("", site.id)
        if is_here and offer.holds_at(moment):
            found.setdefault(offer.what, offer)
    return found


def priced(site: Site, offers: Mapping[str, Offer], now_unix_s: int) -> Site:
    """The site at the prices offered: each is the price at every hour of the offer.

    What is not offered stays at the site's own prices and its hours' part of the rent. A forecast has one
    such part for all: where some of the rent is offered and some is not, what is not has the part of the hour
    that it is now.
    """
    if not offers:
        return site
    made = Site()
    made.CopyFrom(site)
    prices, own = made.prices, site.prices
    if EGRESS in offers:
        prices.egress_gib_microcny = offers[EGRESS].microcny
    rented = offers.keys() - {EGRESS}
    if not rented:
        return made
    permille = _rent_permille(site.forecast, now_unix_s)
    by_hour = {CPU: own.cpu_core_hour_microcny, MEMORY: own.memory_gib_hour_microcny}
    by_hour.update(own.accelerator_hour_microcny)
    now = {what: microcny * permille // 1000 for what, microcny in by_hour.items()}
    now.update((what, offers[what].microcny) for what in rented)
    prices.cpu_core_hour_microcny, prices.memory_gib_hour_microcny = now.pop(CPU), now.pop(MEMORY)
    prices.accelerator_hour_microcny.update(now)
    for hour in made.forecast.hours:
        hour.rent_permille = 0  # all of it
    return made


def _rent_permille(forecast: Forecast, now_unix_s: int) -> int:
    """What part of the rent counts in this hour."""
    number = (now_unix_s - forecast.first_hour_unix_s) // _HOUR_S
    is_known = 0 <= number < len(forecast.hours)
    return (forecast.hours[number].rent_permille if is_known else 0) or 1000


def limited(nodes: Sequence[Node], offers: dict[str, Offer]) -> list[Node]:
    """The nodes with no more accelerators than are offered, those of the first nodes by id.

    Of a node with several models nothing is taken away: its devices are numbered through.
    """
    left = {what: offer.devices for what, offer in offers.items() if offer.devices is not None}
    if not left:
        return list(nodes)
    shown = []
    for node in sorted(nodes, key=lambda node: node.id):
        model = node.accelerators[0].model if len(node.accelerators) == 1 else None
        if model in left:
            kept = min(node.accelerators[0].count, left[model])
            left[model] -= kept
            copy = Node()
            copy.CopyFrom(node)
            copy.accelerators[0].count = kept
            node = copy
        shown.append(node)
    return shown


def read_offers(fields: Fields) -> tuple[Offer, ...]:
    """From the fields of a document of kind `offers`.

    Raises:
        FieldError: something in it is wrong.
    """
    operator_id = identifier(fields, "operator")

    def offer(each: Fields) -> Offer:
        what = each.text("what")
        if what.lower() in _NO_MODELS and what not in (CPU, MEMORY, EGRESS):
            raise FieldError(
                f"{each.at('what')} ({what!r}) has no price; give {CPU}, {MEMORY}, {EGRESS} or an "
                "accelerator's model"
            )
        first_hour, end_hour = _hours(each)
        made = Offer(
            operator_id=operator_id,
            site_id=identifier(each, "site", ""),
            what=what,
            microcny=cny(each, "cny_per_gib" if what == EGRESS else "cny_per_hour"),
            first_day=day(each, "from"),
            last_day=day(each, "until"),
            first_hour=first_hour,
            end_hour=end_hour,
            devices=each.whole("devices") if each.has("devices") else None,
        )
        if made.devices is not None and what in (CPU, MEMORY, EGRESS):
            raise FieldError(f"{each.at('devices')} is for accelerators only; leave it out for {what}")
        if made.last_day < made.first_day:
            raise FieldError(f"{each.at('until')} ({made.last_day}) is before {each.at('from')}")
        return made

    offers = fields.items("prices", offer)
    fields.end()
    return offers


def _hours(fields: Fields) -> tuple[int, int]:
    value = fields.text("hours", "0-24")
    first, _, end = value.partition("-")
    if not (first.isdecimal() and end.isdecimal()) or int(first) > 23 or not 0 < int(end) <= 24:
        raise FieldError(f"{fields.at('hours')} ({value!r}) must be hours of the day such as 8-20 or 22-6")
    if int(first) == int(end):
        raise FieldError(f"{fields.at('hours')} ({value!r}) is no time at all; use 0-24 for all day")
    return int(first), int(end)
