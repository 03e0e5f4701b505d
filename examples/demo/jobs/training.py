"""A training batch: gradient descent of a logistic regression, with momentum, on data that it generates."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAMPLES, FEATURES, STEPS = 50_000, 64, 2_000
SHOW_EVERY = 250
LEARNING_RATE, MOMENTUM, DECAY = 0.002, 0.9, 1e-4


def generated(seed: int) -> tuple[Floats, Floats]:
    """Samples, and labels that a hidden rule gives them but for some noise."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal((SAMPLES, FEATURES))
    rule = random.standard_normal(FEATURES) / np.sqrt(FEATURES)
    labels = (samples @ rule + 0.3 * random.standard_normal(SAMPLES) > 0).astype(float)
    return samples, labels


def descend(samples: Floats, labels: Floats, steps: int = STEPS) -> Iterator[tuple[float, Floats]]:
    """After each step, the loss before it and the weights."""
    weights, speed = np.zeros(samples.shape[1]), np.zeros(samples.shape[1])
    for _ in range(steps):
        margin = samples @ weights
        guess = 1 / (1 + np.exp(-margin))
        loss = float(np.mean(np.logaddexp(0, margin) - labels * margin))
        gradient = samples.T @ (guess - labels) / len(labels) + DECAY * weights
        speed = MOMENTUM * speed - LEARNING_RATE * gradient
        weights = weights + speed
        yield loss, weights


def accuracy(weights: Floats, samples: Floats, labels: Floats) -> float:
    """The share of samples that it tells rightly."""
    return float(np.mean((samples @ weights > 0) == (labels > 0.5)))


def main() -> None:
    """Train on nine tenths, show the loss, and test on the rest."""
    samples, labels = generated(seed=7)
    split = SAMPLES * 9 // 10
    begun_s = time.perf_counter()
    for step, (loss, weights) in enumerate(descend(samples[:split], labels[:split]), 1):  # noqa: B007
        if step == 1 or step % SHOW_EVERY == 0:
            print(f"step {step:5d}  loss {loss:.5f}  {time.perf_counter() - begun_s:5.1f} s")
    held_out = accuracy(weights, samples[split:], labels[split:])
    print(f"trained: {held_out:.1%} of {SAMPLES - split} unseen samples told rightly")
