"""What is done to a simulated city, by name. Each fault returns how to make it good again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mumian_orchestrator.services.failpoints import Failpoint

if TYPE_CHECKING:
    from tests.sim.city import City

Heal = Callable[[], None]
Fault = Callable[["City", random.Random], Heal]
HOUR_S = 3600.0


def _kill_leader(city: City, chance: random.Random) -> Heal:
    leader = city.leader()
    leader.kill()
    return leader.start


def _kill_follower(city: City, chance: random.Random) -> Heal:
    follower = chance.choice([each for each in city.coordinators if each is not city.leader()])
    follower.kill()
    return follower.start


def _kill_all(city: City, chance: random.Random) -> Heal:
    def heal() -> None:
        for coordinator in city.coordinators:
            coordinator.start()

    for coordinator in city.coordinators:
        coordinator.kill()
    return heal


def _die_at(failpoint: Failpoint) -> Fault:
    def fault(city: City, chance: random.Random) -> Heal:
        """Not the first time that it comes by: the first is always the same."""
        city.arm(failpoint, chance.randrange(4))
        return city.restart_the_dead

    return fault


def _sleep(city: City, chance: random.Random) -> Heal:
    leader = city.leader()
    leader.sleep()
    return leader.wake


def _hand_over(city: City, chance: random.Random) -> Heal:
    leader = city.leader()
    leader.hand_over()
    return leader.start


def _store(**weather: float) -> Fault:
    """For all coordinators."""

    def fault(city: City, chance: random.Random) -> Heal:
        for name, value in weather.items():
            setattr(city.weather, name, value)

        def heal() -> None:
            for name in weather:
                setattr(city.weather, name, 0.0)

        return heal

    return fault


def _leader_from_store(**weather: float) -> Fault:
    """For the leader alone: its lease runs out, and another leads."""

    def fault(city: City, chance: random.Random) -> Heal:
        leader = city.leader()
        for name, value in weather.items():
            setattr(leader.weather, name, value)

        def heal() -> None:
            for name in weather:
                setattr(leader.weather, name, 0.0)

        return heal

    return fault


def _store_full(city: City, chance: random.Random) -> Heal:
    city.cluster.is_full = True
    return lambda: setattr(city.cluster, "is_full", False)


def _compaction(city: City, chance: random.Random) -> Heal:
    """A watch breaks, and the history from which it would go on is gone."""
    city.mirror.weather.requests_lost = 1.0

    def heal() -> None:
        city.cluster.compact(city.cluster.revision)
        city.mirror.weather.requests_lost = 0.0

    return heal


def _site_cut(there: bool, back: bool) -> Fault:
    """One site and all coordinators do not hear one another, or only one side does."""

    def fault(city: City, chance: random.Random) -> Heal:
        site_id = chance.choice(list(city.sites))
        if there:
            city.close_roads([site_id], city.names())
        if back:
            city.close_roads(city.names(), [site_id])
        return lambda: city.open_roads([site_id], city.names())

    return fault


def _all_sites_cut(city: City, chance: random.Random) -> Heal:
    city.close_roads(list(city.sites), city.names())
    city.close_roads(city.names(), list(city.sites))
    return lambda: city.open_roads(list(city.sites), city.names())


def _leader_from_sites(city: City, chance: random.Random) -> Heal:
    """It leads on, and no site hears it."""
    leader = city.leader().name
    city.close_roads([leader], list(city.sites))
    city.close_roads(list(city.sites), [leader])
    return lambda: city.open_roads(list(city.sites), [leader])


def _tenants_cut(city: City, chance: random.Random) -> Heal:
    """Some of their calls get lost, on either way, and some arrive twice."""
    leader = city.leader().name
    tenant = chance.choice(city.tenants)
    begin, end = chance.choice(((tenant.name, leader), (leader, tenant.name)))
    city.close_roads([begin], [end])
    return lambda: city.open_roads([begin], [end])


def _repeats(city: City, chance: random.Random) -> Heal:
    def repeat(share: float) -> None:
        for tenant in city.tenants:
            tenant.repeats = share

    repeat(0.5)
    return lambda: repeat(0.0)


def _reports(**share: float) -> Fault:
    """Of all sites: some come again, some in another order."""

    def fault(city: City, chance: random.Random) -> Heal:
        roads = [city.roads.road(site_id, name) for site_id in city.sites for name in city.names()]
        for road in roads:
            for name, value in share.items():
                setattr(road, name, value)

        def heal() -> None:
            for road in roads:
                road.replayed = road.shuffled = 0.0

        return heal

    return fault


def _kill_agent(city: City, chance: random.Random) -> Heal:
    site = chance.choice(list(city.sites.values()))
    site.kill()
    return site.start


def _node_down(city: City, chance: random.Random) -> Heal:
    site = chance.choice(list(city.sites.values()))
    site.go_down()
    return site.start


def _leader_clock(city: City, chance: random.Random) -> Heal:
    """Hours off, and set again."""
    leader = city.leader()
    leader.clock.offset_s = chance.choice((-2, -1, 1, 2)) * HOUR_S
    return lambda: setattr(leader.clock, "offset_s", 0.0)


def _site_clock(city: City, chance: random.Random) -> Heal:
    site = chance.choice(list(city.sites.values()))
    site.clock.offset_s = chance.choice((-2, -1, 1, 2)) * HOUR_S
    return lambda: setattr(site.clock, "offset_s", 0.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault, and how long it lasts."""

    strike: Fault
    lasts_s: tuple[float, float]


FAULTS: dict[str, Kind] = {
    "kill-leader": Kind(_kill_leader, (0.2, 10)),
    "kill-follower": Kind(_kill_follower, (0.2, 10)),
    "kill-all": Kind(_kill_all, (0.2, 15)),
    **{f"die-{failpoint}": Kind(_die_at(failpoint), (2, 10)) for failpoint in Failpoint},
    "sleep": Kind(_sleep, (0.5, 15)),
    "hand-over": Kind(_hand_over, (1, 3)),
    "store-away": Kind(_store(requests_lost=1.0), (0.5, 10)),
    "store-mute": Kind(_store(answers_lost=1.0), (0.5, 10)),
    "store-lossy": Kind(_store(requests_lost=0.1, answers_lost=0.1, late=0.2), (5, 30)),
    "store-slow": Kind(_store(slow_s=0.3), (2, 15)),
    "store-full": Kind(_store_full, (1, 15)),
    "leader-without-store": Kind(_leader_from_store(requests_lost=1.0), (2, 12)),
    "leader-unheard-by-store": Kind(_leader_from_store(answers_lost=1.0), (2, 12)),
    "compaction": Kind(_compaction, (1, 5)),
    "site-mute": Kind(_site_cut(there=True, back=False), (2, 45)),
    "site-deaf": Kind(_site_cut(there=False, back=True), (2, 45)),
    "site-cut": Kind(_site_cut(there=True, back=True), (2, 45)),
    "all-sites-cut": Kind(_all_sites_cut, (2, 45)),
    "leader-without-sites": Kind(_leader_from_sites, (2, 30)),
    "tenant-cut": Kind(_tenants_cut, (2, 10)),
    "requests-twice": Kind(_repeats, (5, 30)),
    "reports-replayed": Kind(_reports(replayed=0.3), (5, 30)),
    "reports-shuffled": Kind(_reports(shuffled=0.3, replayed=0.1), (5, 30)),
    "kill-agent": Kind(_kill_agent, (0.2, 20)),
    "node-down": Kind(_node_down, (0.5, 30)),
    "leader-clock": Kind(_leader_clock, (3, 20)),
    "site-clock": Kind(_site_clock, (3, 20)),
}
