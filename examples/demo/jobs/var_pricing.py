"""A finance service: value at risk of a portfolio by Monte Carlo, every option repriced in every scenario."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.demo.jobs.http_service import Answer, BadRequestError, serve

Floats = NDArray[np.float64]

SCENARIOS_VARIABLE = "VAR_SCENARIOS"
HORIZON_YEARS = 10 / 252
CONFIDENCE = 0.99
RATE = 0.02
# Eight underlyings: price, volatility a year, and one correlation between all of them.
SPOTS = np.array([52.0, 18.4, 140.2, 75.5, 33.3, 210.0, 9.8, 61.7])
VOLATILITIES = np.array([0.22, 0.35, 0.28, 0.19, 0.41, 0.25, 0.48, 0.30])
CORRELATION = 0.4


@dataclass(frozen=True, slots=True)
class Portfolio:
    """For each underlying: shares held, calls held on it, and their strike as a share of its price."""

    shares: Floats
    calls: Floats
    strike_ratios: Floats
    expiry_years: float = 0.25

    @classmethod
    def parse(cls, body: bytes) -> Portfolio:
        """The portfolio of a request.

        Raises:
            BadRequestError: it is not one.
        """
        try:
            raw = json.loads(body)
            shares, calls, ratios = (
                np.array(raw[name], dtype=np.float64) for name in ("shares", "calls", "strike_ratios")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequestError(
                f"the portfolio has no shares, calls and strike_ratios: {error!r}"
            ) from None
        if any(column.shape != SPOTS.shape for column in (shares, calls, ratios)) or not (ratios > 0).all():
            raise BadRequestError(f"each list must have {SPOTS.size} numbers, strike_ratios above 0")
        return cls(shares, calls, ratios)


@dataclass(frozen=True, slots=True)
class Risk:
    """What may be lost over the horizon."""

    value: float
    value_at_risk: float
    expected_shortfall: float


def value_at_risk(portfolio: Portfolio, random: np.random.Generator, scenarios: int) -> Risk:
    """Correlated Student-t moves of all underlyings, and the loss in each scenario by full revaluation."""
    before = float(_values(portfolio, SPOTS[None, :], portfolio.expiry_years)[0])
    spots = SPOTS * np.exp(_log_moves(random, scenarios))
    losses = before - _values(portfolio, spots, portfolio.expiry_years - HORIZON_YEARS)
    tail = int(scenarios * (1 - CONFIDENCE))
    worst = np.partition(losses, scenarios - tail - 1)[scenarios - tail - 1 :]
    return Risk(before, float(worst[0]), float(worst[1:].mean()))


def _log_moves(random: np.random.Generator, scenarios: int) -> Floats:
    freedom = 6
    common = random.standard_normal((scenarios, 1))
    own = random.standard_normal((scenarios, SPOTS.size))
    normal = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    # Scaled so that fat tails do not also mean a larger variance.
    stress = np.sqrt((freedom - 2) / random.chisquare(freedom, (scenarios, 1)))
    sigma = VOLATILITIES * np.sqrt(HORIZON_YEARS)
    moves: Floats = normal * stress * sigma - sigma**2 / 2
    return moves


def _values(portfolio: Portfolio, spots: Floats, expiry_years: float) -> Floats:
    calls = _black_scholes_calls(spots, portfolio.strike_ratios * SPOTS, expiry_years)
    values: Floats = spots @ portfolio.shares + calls @ portfolio.calls
    return values


def _black_scholes_calls(spots: Floats, strikes: Floats, years: float) -> Floats:
    deviation = VOLATILITIES * np.sqrt(years)
    d1 = (np.log(spots / strikes) + RATE * years) / deviation + deviation / 2
    sure = strikes * np.exp(-RATE * years)
    values: Floats = spots * _normal_cdf(d1) - sure * _normal_cdf(d1 - deviation)
    return values


def _normal_cdf(x: Floats) -> Floats:
    """Abramowitz and Stegun 26.2.17, within 7.5e-8."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * poly
    probability: Floats = np.where(x >= 0, 1 - upper, upper)
    return probability


def main() -> None:
    """Serve: POST a portfolio, get its risk."""
    random, scenarios = np.random.default_rng(), int(os.environ[SCENARIOS_VARIABLE])

    def answer(_: str, body: bytes) -> Answer:
        risk = value_at_risk(Portfolio.parse(body), random, scenarios)
        figures = {
            "value": risk.value,
            "value_at_risk": risk.value_at_risk,
            "expected_shortfall": risk.expected_shortfall,
        }
        return Answer(json.dumps(figures).encode(), "application/json")

    serve(answer)
