"""Choices of the page and of several tabs: models, heat-map methods, fusion layers, heads,
targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from x2vlm.hub import BUNDLED, KNOWN
from x2vlm.options import METHODS, TARGETS

from .i18n import t


def models(names: Sequence[str], open_choice: bool) -> list[tuple[Any, str]]:
    """The models on offer; on one's own machine the official checkpoints besides, with what a
    download costs, unless nothing may be downloaded."""
    offered = [
        (f"{name} · {t(f'model_{name}')}" if name in BUNDLED else name, name) for name in names
    ]
    if not open_choice or os.environ.get("HF_HUB_OFFLINE"):
        return offered
    official = [
        (f"{name} · {known.summary} · {t('downloads')} {known.gigabytes} GB", name)
        for name, known in KNOWN.items()
        if known.downloadable and name not in names
    ]
    return offered + official


def methods() -> list[tuple[Any, str]]:
    """Heat-map methods in the visitor's language."""
    return [(t("by_default"), "default"), *((t(method_key(name)), name) for name in METHODS)]


def method_key(name: str) -> str:
    """The key of a method's name in the texts."""
    return f"method_{name.replace('-', '_')}"


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
