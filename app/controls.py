"""Choices that several tabs offer: heat-map methods, fusion layers, heads, targets."""

from __future__ import annotations

from typing import Any

from x2vlm.options import METHODS, TARGETS

from .i18n import t


def methods() -> list[tuple[Any, str]]:
    """Heat-map methods in the visitor's language."""
    names = [(t(f"method_{name.replace('-', '_')}"), name) for name in METHODS]
    return [(t("by_default"), "default"), *names]


def targets() -> list[tuple[Any, str]]:
    """What can be explained."""
    names = [(t(f"target_{name}"), name) for name in TARGETS]
    return [(t("by_default"), "default"), *names]


def layers(count: int) -> list[tuple[Any, str]]:
    """Fusion layers of a model, from 0."""
    numbers = [(str(k), str(k)) for k in range(count)]
    return [(t("by_default"), "default"), (t("mean_of_all"), "mean"), *numbers]


def heads(count: int) -> list[tuple[Any, str]]:
    """Attention heads of a fusion layer, from 0."""
    numbers = [(str(k), str(k)) for k in range(count)]
    return [(t("mean_of_all"), "default"), (t("hottest_head"), "max"), *numbers]
