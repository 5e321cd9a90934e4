"""Known checkpoints by name: where they live, and how to get them here once.

A name is `photo` or `mini` (bundled), an official file (downloaded into the Hugging Face cache on
request) or `owner/name` on the Hugging Face Hub. Addresses are never taken from a caller: what can
be fetched stands in `x2vlm.known`.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import importlib.metadata
import os
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import WeakFileLock

from x2vlm.errors import CheckpointError
from x2vlm.known import BUNDLED, KNOWN, KnownCheckpoint, nearest

BASE_URL = "https://lf-robot-opensource.bytetos.com/obj/lab-robot-public/x2vlm_ckpts_2release/"
TIMEOUT_SECONDS = 30
ATTEMPTS = 3
CHUNK_BYTES = 1 << 20
PATIENCE_SECONDS = 4
"""How long to wait for the Hub to answer at all."""
WEIGHT_SUFFIXES = (".th", ".pt", ".pth", ".bin", ".tar", ".safetensors")
Loaded = TypeVar("Loaded")
Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""


def cache_dir() -> Path:
    """Where downloaded files lie: `x2vlm` inside the Hugging Face cache (`HF_HOME`)."""
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser() / "x2vlm"


def bundled_dir(name: str) -> Path | None:
    """A bundled checkpoint: its folder in the `assets` of a clone, or what the wheel installed;
    None where neither is there."""
    clone = Path(__file__).resolve().parent.parent / "assets" / name
    if (clone / "config.json").is_file():
        return clone
    try:
        installed = importlib.metadata.files("x2vlm") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [
        Path(file.locate()) for file in installed if file.match(f"share/x2vlm/{name}/config.json")
    ]
    return found[0].resolve().parent if found and found[0].is_file() else None


def resolve(path_or_name: str | Path, progress: Progress | None = None) -> Path:
    """The local file or folder of a checkpoint, downloaded first if it is a known name.

    Args:
        path_or_name: `photo`, `mini`, an existing file or folder, a name of `KNOWN`, or
            `owner/name` on the Hugging Face Hub.

    Raises:
        CheckpointError: nothing of that name (`ckpt/source`), or it cannot be fetched
            (`ckpt/download`).
    """
    text = str(path_or_name)
    if not text.strip() or len(text) > 1000 or not text.isprintable():
        raise CheckpointError(
            "The checkpoint's name is empty or not a name. Give a path or a known name.",
            "ckpt/source",
        )
    if "://" in text:
        raise CheckpointError(
            "Addresses are not opened. Download the file yourself and give its path, or give one "
            "of the known names.",
            "ckpt/source",
        )
    if text in BUNDLED:  # whatever folder the program is started in
        if folder := bundled_dir(text):
            return folder
        raise CheckpointError(
            f"The bundled model {text} is not part of this installation. Run from a clone, or "
            "install the package again.",
            "ckpt/source",
        )
    try:
        path = Path(path_or_name).expanduser()
        if path.is_file() or path.is_dir():
            return path
    except (OSError, RuntimeError):  # no name that the system takes, or the home of nobody
        raise unknown(text) from None
    if text in KNOWN:
        return download(text, progress)
    repository = (
        re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text)
        and path.suffix.lower() not in WEIGHT_SUFFIXES
    )
    if repository and not isinstance(path_or_name, Path):
        return _from_hugging_face(text)
    raise unknown(text)


def unknown(name: str) -> CheckpointError:
    """The error for a name that leads nowhere, with the nearest known name."""
    stem = re.split(r"[\\/]", name)[-1]
    close = nearest(stem)
    names = [*BUNDLED, *KNOWN]
    listed = f"{', '.join(names[:6])} and {len(names) - 6} more, see the README"
    hint = f" Did you mean {close}?" if close else f" Known names: {listed}."
    shown = re.sub(r"[^\w.\-]", "?", stem)[:60]
    return CheckpointError(
        f"There is no checkpoint {shown!r}: neither a path nor a known name.{hint}", "ckpt/source"
    )


def download(name: str, progress: Progress | None = None) -> Path:
    """An official file, fetched into the cache unless it is there; a download that was cut goes on
    where it stopped.

    The file appears under its own name only when it is complete and checked.

    Args:
        name: a key of `KNOWN`.

    Raises:
        CheckpointError: unknown name (`ckpt/source`), no connection, a web page or a wrong size
            (`ckpt/download`), no room (`ckpt/disk`).
    """
    if name not in KNOWN:
        raise unknown(name)
    known = KNOWN[name]
    target = cache_dir() / known.file
    if target.is_file():
        return target
    if not known.downloadable:
        raise CheckpointError(
            f"{name} has no direct link. Get {known.file} from its authors' page and put it at "
            f"{shown_place(known.file)}.",
            "ckpt/download",
        )
    if _works_offline():
        raise _offline(name, known)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.with_suffix(target.suffix + ".lock")):
            if not target.is_file():
                _fetch(name, known, target, progress or (lambda done, total: None))
    except OSError:
        raise CheckpointError(
            f"{known.file} cannot be written to {shown_place(known.file)}. Free some room or set "
            f"HF_HOME to another disk.",
            "ckpt/disk",
        ) from None
    return target


def _fetch(name: str, known: KnownCheckpoint, target: Path, progress: Progress) -> None:
    partial = target.with_suffix(target.suffix + ".partial")
    for attempt in range(ATTEMPTS):
        try:
            total = _receive(known, partial, progress)
            break
        except urllib.error.HTTPError as error:
            # Nothing comes after what we have: it is the whole file, or of another one.
            if error.code == 416:
                total = _size(partial)
                if error.headers.get("Content-Range") == f"bytes */{total}":
                    break
                _drop(partial)
            elif error.code < 500:
                raise CheckpointError(
                    f"The server has no {known.file} (answer {error.code}). Get it from its "
                    f"authors' page and put it at {shown_place(known.file)}.",
                    "ckpt/download",
                ) from None
        except _NETWORK_ERRORS:
            pass
        if attempt == ATTEMPTS - 1:
            raise _offline(name, known)
    if (known.size or total) != total:
        _drop(partial)
        raise CheckpointError(
            f"{known.file} has {total:,} bytes on the server, not {known.size:,}.", "ckpt/download"
        )
    if known.sha256 and sha256_of(partial) != known.sha256:
        _drop(partial)
        raise CheckpointError(
            f"{known.file} arrived damaged (wrong checksum). Download it again.", "ckpt/download"
        )
    os.replace(partial, target)
    _drop(partial)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _version(partial: Path) -> Path:
    """The file that says which version of the server's file a partial one is of."""
    return partial.with_suffix(".version")


def _drop(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version(partial).unlink(missing_ok=True)


class _Cut(Exception):
    """The connection ended before the file did."""


_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
    _Cut,
)


def _receive(known: KnownCheckpoint, partial: Path, progress: Progress) -> int:
    """Appends what is missing to the partial file, or starts anew if the server's has changed;
    returns the full size."""
    have, version = _size(partial), _version(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and version.is_file() and (validator := version.read_text(encoding="utf-8")):
        headers["If-Range"] = validator
    address = os.environ.get("X2VLM_CHECKPOINT_URL", BASE_URL).rstrip("/") + "/" + known.file
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.headers.get_content_type() == "text/html":
            raise CheckpointError(
                f"The server sent a web page (a login or an error) in place of {known.file}. Get "
                f"the file from its authors' page and put it at {shown_place(known.file)}.",
                "ckpt/download",
            )
        if response.status != 206:
            have = 0
        # A server may leave the length out and just end.
        missing = int(response.headers.get("Content-Length") or 0)
        total = have + missing if missing else None
        if missing > shutil.disk_usage(partial.parent).free:
            raise CheckpointError(
                f"{known.file} needs {missing / 2**30:.1f} GiB and the disk has less. Free some "
                f"room, or set HF_HOME.",
                "ckpt/disk",
            )
        if not have:
            _drop(partial)
            # A weak ETag does not vouch for every byte.
            strong = not response.headers.get("ETag", "W/").startswith("W/")
            validator = response.headers.get("ETag" if strong else "Last-Modified") or ""
            version.write_text(validator, encoding="utf-8")
        with partial.open("ab") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if total:
                    progress(have, total)
            file.flush()
            os.fsync(file.fileno())
    if total and have != total:
        raise _Cut
    return have


_BESIDE = (
    "config.json",
    "tokenizer*",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "predictor.json",
    "model.safetensors.sha256",
)
_WEIGHTS = (("model*.safetensors", "model.safetensors.index.json"), ("pytorch_model*", "*.th"))
"""Weights in a repository: torch files are fetched where it has no safetensors."""


def from_hub(load: Callable[..., Loaded], name: str) -> Loaded:
    """What a function of a Hugging Face library loads by a name: from its cache alone where the Hub
    does not answer, so that the library does not try again and again and write about it.

    Args:
        load: takes the name and `local_files_only`.

    Raises:
        OSError, ValueError or a like error of the library where it cannot be had.
    """
    return load(name, local_files_only=not reachable())


def reachable() -> bool:
    """Whether the Hub answers within `PATIENCE_SECONDS`; an answer holds for a minute."""
    if _works_offline():
        return False
    return _answers(huggingface_hub.constants.ENDPOINT, int(time.monotonic() // 60))


def _works_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


@functools.lru_cache(maxsize=1)
def _answers(address: str, minute: int) -> bool:
    """In a thread, because looking up a host knows no time limit."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS):
                answered.set()
        except urllib.error.HTTPError as error:
            if error.code < 500:
                answered.set()
        except (*_NETWORK_ERRORS, OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return answered.is_set()


def _from_hugging_face(name: str) -> Path:
    """A repository that `push_to_hub` or another library wrote, from the cache or the Hub."""
    try:
        for patterns in _WEIGHTS:
            snapshot = functools.partial(
                huggingface_hub.snapshot_download, allow_patterns=[*_BESIDE, *patterns]
            )
            folder = Path(from_hub(snapshot, name))
            if any(path for pattern in patterns for path in folder.glob(pattern)):
                break
        return folder
    # hf_xet, which fetches the large files, raises RuntimeError.
    except (
        HTTPError,
        OSError,
        ValueError,
        RuntimeError,
    ):
        raise CheckpointError(
            f"{name} is neither here nor reachable on the Hugging Face Hub. Check the name and the "
            f"connection, or give a path.",
            "ckpt/source",
        ) from None


def sha256_of(*paths: Path) -> str:
    """Hex digest of a file, or of several, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def _offline(name: str, known: KnownCheckpoint) -> CheckpointError:
    return CheckpointError(
        f"{name} is not on this machine and cannot be downloaded now (no connection, or it was "
        f"cut; what has arrived is kept). Try again, or put the file {known.file} at "
        f"{shown_place(known.file)}.",
        "ckpt/download",
    )


def shown_place(file: str) -> str:
    """Where a file of the cache belongs, without naming the machine's folders."""
    return f"{'$HF_HOME' if os.environ.get('HF_HOME') else '~/.cache/huggingface'}/x2vlm/{file}"
