"""The site's power now: of each side, the first meter that can be believed, and else a model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from mumian.api.v1 import fleet_pb2
from mumian.api.v1.fleet_pb2 import MeterReading, Pue

from mumian_agent.domain.measured_pue import MeasuredPue
from mumian_agent.domain.meter_watch import MeterWatch
from mumian_agent.runtime.power.meter import AskedMeter, Meter, MeterError

log = logging.getLogger(__name__)

MODEL = "model"
_ANSWER_WITHIN_S = 1.0
# A change of PUE makes the coordinator consider anew what waits: not for less than one percent.
_PUE_CHANGE_PERMILLE = 10


class _Side:
    """The meters of one side, best first."""

    def __init__(self, side: fleet_pb2.MeterSide.ValueType, meters: Sequence[Meter]) -> None:
        self._side = side
        self._meters = [(AskedMeter(meter), MeterWatch(), MeterReading(side=side)) for meter in meters]

    def ask(self) -> None:
        """Begin to ask all, also those that were not believed: they may be well again."""
        for meter, _, _ in self._meters:
            meter.ask()

    def readings(self, load_permille: int) -> list[MeterReading]:
        """One of each meter; in use is the first that has answered and can be believed."""
        deadline_s = time.monotonic() + _ANSWER_WITHIN_S
        found: list[MeterReading] = []
        for meter, watch, reading in self._meters:
            before = watch.fault
            try:
                power_mw = meter.answer(max(0.0, deadline_s - time.monotonic()))
                watch.read(power_mw, load_permille, time.monotonic())
                if not watch.fault:
                    reading.power_mw = power_mw
                    reading.sample_time.FromNanoseconds(time.time_ns())
            except MeterError as error:
                watch.failed(str(error))
            if watch.fault and not before:
                log.warning("power meter %s %s; the next source is used", meter.name, watch.fault)
            elif before and not watch.fault:
                log.warning("power meter %s is well again", meter.name)
            reading.name, reading.fault = meter.name, watch.fault
            reading.in_use = not watch.fault and not any(each.in_use for each in found)
            found.append(reading)
        return found


class SitePower:
    """Both sides and what they say of the PUE."""

    def __init__(
        self, it: Sequence[Meter], facility: Sequence[Meter], declared: Pue, pue_window_s: float
    ) -> None:
        """`declared` holds where nothing is measured."""
        self._it = _Side(fleet_pb2.METER_SIDE_IT, it)
        self._facility = _Side(fleet_pb2.METER_SIDE_FACILITY, facility)
        self._declared, self._measured = declared, MeasuredPue(pue_window_s)
        self._pue = Pue()
        self._pue.CopyFrom(declared)

    def read(self, load_permille: int, other_nodes_mw: int | None = 0) -> list[MeterReading]:
        """The readings of all meters; blocks for a second where one does not answer.

        `other_nodes_mw`: what the site's further nodes take by meters of their own; None: one has none, and
        the PUE cannot be measured.
        """
        self._it.ask()
        self._facility.ask()
        it, facility = self._it.readings(load_permille), self._facility.readings(load_permille)
        it_now, facility_now = in_use(it), in_use(facility)
        if it_now and facility_now and other_nodes_mw is not None:
            it_mw = it_now.power_mw + other_nodes_mw
            self._measured.add(time.monotonic(), it_mw, facility_now.power_mw)
        else:
            self._measured.forget(time.monotonic())
        return [*it, *facility]

    def pue(self) -> Pue:
        """Average and marginal, each measured where that can be, else as declared."""
        average, marginal = self._measured.average_permille(), self._measured.marginal_permille()
        self._pue.average_permille, self._pue.source = _steady(
            average, self._declared.average_permille, self._declared.source, self._pue.average_permille
        )
        self._pue.marginal_permille, self._pue.marginal_source = _steady(
            marginal, self._declared.marginal_permille, self._declared.source, self._pue.marginal_permille
        )
        return self._pue


def in_use(readings: Sequence[MeterReading]) -> MeterReading | None:
    """The reading that counts; None when no meter can be believed."""
    return next((each for each in readings if each.in_use), None)


def _steady(
    measured: int | None, declared: int, declared_source: fleet_pb2.FigureSource.ValueType, before: int
) -> tuple[int, fleet_pb2.FigureSource.ValueType]:
    if measured is None:
        return declared, declared_source
    kept = before if abs(measured - before) < _PUE_CHANGE_PERMILLE else measured
    return kept, fleet_pb2.FIGURE_SOURCE_MEASURED
