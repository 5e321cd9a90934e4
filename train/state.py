"""Checkpoints that survive kills, full disks and damage, and the folder of a run.

A checkpoint is a folder `step-00001000` with `model.pt`, `optimizer.pt` and `manifest.json` (sizes,
SHA-256, settings, position in the data). It is written as `*.tmp.<pid>`, flushed to disk, then
renamed, by the main process alone; older ones go only after the new one was read back and verified.
The newest that verifies wins at the start; damaged ones are named and left alone.

Random numbers need no saving: every step seeds its generators from (seed, step, process), see
`train.step.seed_step`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from train.config import CheckpointConfig, EvaluateConfig, RunConfig
from train.manifest import Manifest, read_manifest, seal, verify
from x2vlm.errors import CheckpointError, ConfigError

HEADROOM = 2.5
"""Free space asked for at the start, in checkpoints."""

DEAD_WORKER = "DataLoader worker (pid"
"""Begins what torch raises in the training process, wherever that is, when a data worker dies."""

FREE_SETTINGS = tuple(
    [
        "output_dir",
        "num_workers",
        "stop_after_minutes",
        "device",
        "log.",
        "evaluate.",
        "checkpoint.",
        "resume.",
    ]
)
"""Settings that may differ when a run goes on: they do not change what is learnt."""


class RunFolder:
    """The checkpoints of one run, locked against a second run.

    Use as a context manager on the main process. Raises `CheckpointError` (`train/lock`) when
    another run holds the folder.
    """

    def __init__(self, path: Path, config: CheckpointConfig, evaluate: EvaluateConfig):
        self.path, self.config, self.evaluate = path, config, evaluate
        self._lock = None

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "run.lock", "a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"output_dir {self.path} cannot be written: {error.strerror}.", "config/value"
            ) from error
        self._lock.seek(0)
        holder = self._lock.read().strip()
        try:
            # The lock ends with the process, so it is never stale.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise CheckpointError(
                f"Another run ({holder}) writes into {self.path}. Wait for it, stop it, or choose "
                "another output_dir.",
                "train/lock",
            ) from error
        if holder:
            print(f"The last run in {self.path} ({holder}) did not end by itself; this goes on.")
        self._lock.truncate(0)
        self._lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()
        for leftover in self.path.glob("*.tmp.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._lock.truncate(0)
        self._lock.close()

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first; not verified."""
        return sorted(self.path.glob("step-" + "[0-9]" * 8))

    def newest(self) -> tuple[Path, Manifest] | None:
        """The newest checkpoint that verifies; damaged ones on the way are named on the terminal.
        None: nothing was saved.

        Raises:
            CheckpointError: there are checkpoints and every one is damaged (`ckpt/damaged`).
        """
        damage = []
        for path in reversed(self.checkpoints()):
            try:
                return path, verify(path)
            except CheckpointError as error:
                damage.append(error.message)
                print(f"Skipping a damaged checkpoint: {error.message}")
        if damage:
            raise CheckpointError(
                f"Every checkpoint in {self.path} is damaged. Restore one, or move them away to "
                f"begin anew.",
                "ckpt/damaged",
            )
        return None

    def check_space(self, needed: int) -> None:
        """Raises `CheckpointError` (`ckpt/disk`) unless `needed` bytes are free."""
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise CheckpointError(
                f"The disk of {self.path} has {free / 1e6:,.0f} MB free and {needed / 1e6:,.0f} MB "
                "are needed. Free some space, or choose another output_dir.",
                "ckpt/disk",
            )

    def save(self, states: dict[str, Any], **about: Any) -> Path:
        """Writes the checkpoint of a step, verifies it, then removes those no longer kept.

        Args:
            states: file stem -> state dict of CPU tensors.
            about: the fields of `Manifest` but `files` and `versions`.

        Raises:
            CheckpointError: a state holds NaN or infinity (`train/nonfinite`) or the disk is full
                (`ckpt/disk`); checkpoints on disk are as before.
        """
        for stem, state in states.items():
            require_finite(state, stem)
        path = self.path / f"step-{about['step']:08d}"
        with self._atomic(path) as folder:
            files = {
                f"{stem}.pt": _write(folder / f"{stem}.pt", partial(torch.save, state))
                for stem, state in states.items()
            }
            manifest = Manifest(**about, versions=versions(), files=files)
            _write(folder / "manifest.json", lambda f: f.write(seal(manifest)))
        verify(path)
        self._prune(path)
        return path

    @contextlib.contextmanager
    def _atomic(self, path: Path) -> Iterator[Path]:
        """A temporary folder that takes the place of `path` when the block ends well, and vanishes
        when it does not."""
        temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
            _sync(temporary)
            if path.exists():  # a damaged one of the same step
                path.rename(path.with_name(f"{path.name}.tmp.old.{os.getpid()}"))
            temporary.rename(path)
            _sync(path.parent)
        # torch's writer turns a full disk into a RuntimeError.
        except (
            OSError,
            RuntimeError,
        ) as error:
            if DEAD_WORKER in str(error):
                raise
            size = sum(file.stat().st_size for file in temporary.glob("*"))
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(path.parent).free
            raise CheckpointError(
                f"{path} could not be written after {size / 1e6:,.1f} MB ({free / 1e6:,.1f} MB are "
                "free now). Earlier checkpoints are untouched; free some space and run the same "
                "command again.",
                "ckpt/disk",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            for old in path.parent.glob(f"{path.name}.tmp.old.*"):
                shutil.rmtree(old, ignore_errors=True)

    def _prune(self, newest: Path) -> None:
        """Keeps `keep` checkpoints up to the one just written, and the best by the evaluation
        metric. Later ones are bad."""
        kept = [path for path in self.checkpoints() if path.name <= newest.name]
        best = self.best()
        for path in kept[: -self.config.keep]:
            if path != best:
                _discard(path)

    def best_beside(self, step: int) -> Path | None:
        """The best checkpoint, verified, whose weights are to stand in `best` beside those of
        `step` in `final`; None if they are the same.

        Then a `best` that an earlier end of the run left is overtaken and removed: call it when
        `final` is complete.
        """
        best = self.best()
        if best is not None and step_of(best) == step:
            _discard(self.path / "best")
            return None
        if best is not None:
            verify(best)
        return best

    def best(self) -> Path | None:
        """The checkpoint with the best finite value of `evaluate.metric`; the newer one of
        equals."""
        sign = 1 if self.evaluate.goal == "max" else -1
        scored = []
        for path in self.checkpoints():
            with contextlib.suppress(CheckpointError):
                value = read_manifest(path).metrics.get(self.evaluate.metric, math.nan)
                if math.isfinite(value):
                    scored.append((sign * value, path))
        return max(scored)[1] if scored else None


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def load_state(path: Path, stem: str) -> dict[str, Any]:
    """One state dict of a verified checkpoint, on the CPU."""
    return torch.load(path / f"{stem}.pt", map_location="cpu", weights_only=True)


def check_settings(manifest: Manifest, settings: dict[str, Any], allow_changed: str) -> None:
    """Compares the settings of a run with those of the checkpoint it would go on from.

    Raises:
        ConfigError: they differ beyond `allow_changed` (`config/changed`); the message lists the
            differences.
    """
    allowed = [word.strip() for word in allow_changed.split(",") if word.strip()]
    then, now = (
        {k: v for k, v in s.items() if not k.startswith(FREE_SETTINGS)}
        for s in (manifest.settings, settings)
    )
    # An option that the older version did not know changes nothing while it is off.
    changed = [
        key
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and (key in then or now[key])
    ]
    refused = [
        key
        for key in changed
        if not any(word in ("all", key) or key.startswith(f"{word}.") for word in allowed)
    ]
    if refused:
        differences = "; ".join(f"{key}: {then.get(key)!r} -> {now.get(key)!r}" for key in refused)
        raise ConfigError(
            f"The run in this folder had other settings: {differences}. Go back to them, choose "
            f"another output_dir, or allow it with --resume.allow_changed={','.join(refused)}.",
            "config/changed",
        )
    for key in changed:
        print(f"Going on with a changed setting: {key}: {then.get(key)!r} -> {now.get(key)!r}")


def run_settings(run: RunConfig, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Everything that decides what a run learns, flat: `optimizer.lr`, `data.<task>`, ..."""
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        return flatten({**asdict(run), "data": fingerprints, "code": version("x2vlm")})
    return flatten({**asdict(run), "data": fingerprints})


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` to `{"a.b": 1}`, with tuples as lists, as JSON gives them back."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def require_finite(state: Any, where: str) -> None:
    """Raises `CheckpointError` (`train/nonfinite`) that names the first tensor with NaN or
    infinity."""
    if isinstance(state, dict):
        for key, value in state.items():
            require_finite(value, f"{where}.{key}")
    elif (
        isinstance(state, torch.Tensor)
        and state.is_floating_point()
        and not bool(state.isfinite().all())
    ):
        raise CheckpointError(
            f"{where} holds NaN or infinity; such a state is not saved.", "train/nonfinite"
        )


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


class _HashingFile:
    """A binary file that counts and hashes what is written, so that a slip on the way to the disk
    shows."""

    def __init__(self, file):
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write(path: Path, fill: Callable[[Any], Any]) -> dict[str, Any]:
    with open(path, "wb") as file:
        hashing = _HashingFile(file)
        fill(hashing)
        file.flush()
        os.fsync(file.fileno())
    return {"size": hashing.size, "sha256": hashing.digest.hexdigest()}


def _discard(path: Path) -> None:
    """Removes a folder, if it is there; under its name it is whole or gone at any time."""
    old = path.with_name(f"{path.name}.tmp.old")
    if path.is_dir():
        path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
