"""Timing on a noisy machine: competitors take turns, and what counts is the median of each round's
ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def take_turns(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every action in every round, A B A B, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios within rounds: what slows the machine for a while slows both."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def read_bandwidth(megabytes: int = 400) -> float:
    """Bytes per second at which a matrix times a vector streams the matrix; the best of five."""
    matrix = torch.ones(megabytes * 250, 1000)
    return matrix.nbytes / min(take_turns({"read": lambda: matrix @ matrix[0]}, 5)["read"])


def matrix_rate(dtype: torch.dtype, rows: int, width: int) -> float:
    """Operations per second of (rows x width) @ (width x 4 width), the largest product of a layer;
    the best of five."""
    a, b = torch.randn(rows, width).to(dtype), torch.randn(4 * width, width).to(dtype)
    return (
        8
        * rows
        * width**2
        / min(take_turns({"product": lambda: torch.nn.functional.linear(a, b)}, 5)["product"])
    )
