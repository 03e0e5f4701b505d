"""The months and years of budgets. They are those of China Standard Time, which knows no summer time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

CHINA = timezone(timedelta(hours=8))
_PERIOD = re.compile(r"(20[0-9]{2})(?:-(0[1-9]|1[0-2]))?")


def month_of(unix_ms: int) -> str:
    """Such as "2026-11"."""
    moment = moment_of(unix_ms)
    return f"{moment.year}-{moment.month:02d}"


def year_of(period: str) -> str:
    """The year of a month, or of itself."""
    return period[:4]


def date_of(unix_ms: int) -> date:
    """The day."""
    return moment_of(unix_ms).date()


def moment_of(unix_ms: int) -> datetime:
    """The time of day, with its day."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).astimezone(CHINA)


def start_ms(period: str) -> int:
    """When a month or a year begins, in unix milliseconds."""
    return int(datetime(int(period[:4]), int(period[5:7] or 1), 1, tzinfo=CHINA).timestamp()) * 1000


def end_ms(period: str) -> int:
    """When the next one begins."""
    year, month = int(period[:4]), int(period[5:7] or 12)
    following = f"{year + 1}-01" if month == 12 else f"{year}-{month + 1:02d}"
    return start_ms(following)


def is_period(text: str) -> bool:
    """Whether it is a year or a month of this century."""
    return _PERIOD.fullmatch(text) is not None
