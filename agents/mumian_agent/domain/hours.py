"""What energy, carbon and rent are by the hour of the day, and what that forecasts."""

from __future__ import annotations

from collections.abc import Sequence

from mumian.api.v1.fleet_pb2 import Forecast, HourForecast

HOURS_OF_DAY = 24
# A forecast is sent with every hello. An agent that stays connected for longer than this says no more
# than its site's flat figures.
FORECAST_DAYS = 14


def forecast_from(now_unix_s: int, hours_of_day: Sequence[HourForecast], utc_offset_h: int) -> Forecast:
    """The days from this hour on, each like the other.

    Args:
        hours_of_day: 24, from midnight at the site.
        utc_offset_h: how far the site's clock is ahead of UTC.
    """
    first_hour = now_unix_s // 3600
    of_day = [
        hours_of_day[(first_hour + utc_offset_h + hour) % HOURS_OF_DAY]
        for hour in range(FORECAST_DAYS * HOURS_OF_DAY)
    ]
    return Forecast(first_hour_unix_s=first_hour * 3600, hours=of_day)
