"""The load report: what happened to every tensor of a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """Every key of the file is in one of `matched`, `renamed`, `ignored`, `unexpected`; every fresh
    parameter in `missing`.

    Attributes:
        matched: names that file and model share.
        renamed: official key -> our name.
        resized: our name -> (shape in the file, shape in the model).
        ignored: key -> why it is not used.
        missing: parameters that the file does not have; they keep their fresh initialisation.
        unexpected: keys that no rule knows.
        heads: heads that were loaded.
        missing_heads: heads that were asked for and are not in the file.
        notes: what else the reader should know.
    """

    matched: tuple[str, ...]
    renamed: dict[str, str]
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    ignored: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    heads: tuple[str, ...]
    missing_heads: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """A few lines to read: counts first, then every case that deserves a look."""
        lines = [
            f"{len(self.matched)} matched, {len(self.renamed)} renamed, {len(self.resized)} "
            f"resized, {len(self.ignored)} ignored, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected",
            f"heads: {', '.join(self.heads) or 'none'}",
        ]
        if self.missing_heads:
            lines.append(f"heads without weights (fresh): {', '.join(self.missing_heads)}")
        sizes = sorted({(old, new) for old, new in self.resized.values()})
        lines += [
            f"resized {_shape(old)} to {_shape(new)}: {self._count(old, new)} tensors"
            for old, new in sizes
        ]
        for reason in sorted(set(self.ignored.values())):
            keys = [key for key, why in self.ignored.items() if why == reason]
            lines.append(f"ignored ({reason}): {_listed(keys)}")
        lines += [f"missing, fresh: {_listed(self.missing)}"] if self.missing else []
        lines += [f"unexpected: {_listed(self.unexpected)}"] if self.unexpected else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _count(self, old: tuple[int, ...], new: tuple[int, ...]) -> int:
        return sum(pair == (old, new) for pair in self.resized.values())


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _listed(keys: tuple[str, ...] | list[str], limit: int = 4) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
