"""Workers and threads for a model and a machine."""

from __future__ import annotations

import threading

import pytest
import torch

from x2vlm import serving
from x2vlm.errors import ParameterError
from x2vlm.serving import SMALL_MODEL, Concurrency, plan_concurrency, set_threads, usable_cores

SMALL, LARGE = SMALL_MODEL - 1, SMALL_MODEL


@pytest.fixture
def cores(monkeypatch):
    """A machine of eight cores, with nothing in the environment."""
    monkeypatch.setattr(serving, "usable_cores", lambda: 8)
    monkeypatch.delenv("X2VLM_WORKERS", raising=False)
    monkeypatch.delenv("X2VLM_THREADS", raising=False)


@pytest.mark.parametrize(
    "parameters, device, chosen, expected",
    [
        (SMALL, "cpu", {}, (8, 1)),
        (LARGE, "cpu", {}, (1, 8)),
        (SMALL, "cuda:0", {}, (1, 8)),
        (SMALL, "cpu", {"workers": 1}, (1, 8)),
        (SMALL, "cpu", {"workers": 3}, (3, 2)),
        (SMALL, "cpu", {"workers": 16}, (16, 1)),
        (LARGE, "cpu", {"threads": 2}, (4, 2)),
        (LARGE, "cpu", {"threads": 16}, (1, 16)),
        (LARGE, "cuda", {"threads": 2}, (1, 2)),
        (LARGE, "cpu", {"workers": 2, "threads": 3}, (2, 3)),
    ],
)
def test_plan(cores, parameters, device, chosen, expected):
    assert plan_concurrency(parameters, device, **chosen) == Concurrency(*expected)


def test_environment_chooses_and_an_argument_wins(cores, monkeypatch):
    monkeypatch.setenv("X2VLM_WORKERS", "4")
    monkeypatch.setenv("X2VLM_THREADS", "2")
    assert plan_concurrency(SMALL) == Concurrency(4, 2)
    assert plan_concurrency(SMALL, workers=1) == Concurrency(1, 2)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_environment_is_checked(cores, monkeypatch, value):
    monkeypatch.setenv("X2VLM_WORKERS", value)
    with pytest.raises(ParameterError, match="X2VLM_WORKERS") as error:
        plan_concurrency(SMALL)
    assert error.value.code == "param/range"


@pytest.mark.parametrize("quota, expected", [("max 100000", 8), ("200000 100000", 2), ("1 100", 1)])
def test_a_containers_quota_counts(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(serving.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(serving, "QUOTA_FILE", tmp_path / "cpu.max")
    assert usable_cores() == 8
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores() == expected


def test_threads_are_those_of_the_calling_thread():
    before, found = torch.get_num_threads(), []

    def ask(threads: int) -> None:
        set_threads(threads)
        torch.ones(1000) @ torch.ones(1000)
        found.append(torch.get_num_threads())

    for threads in (2, 1, 3):
        worker = threading.Thread(target=ask, args=(threads,))
        worker.start()
        worker.join()
    assert found == [2, 1, 3]
    assert torch.get_num_threads() in (before, 3)
    set_threads(before)
