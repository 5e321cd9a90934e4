"""Reads tensors from files that may be hostile, damaged or simply the wrong thing. Nothing in a
file is ever executed.

The first bytes decide what a file is, its name never does. Torch files go through torch's
allow-list unpickler (`weights_only=True`), and a refusal is final: there is no second, laxer
attempt.
"""

from __future__ import annotations

import io
import re
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from x2vlm.checkpoint.content import Weights, shown, unwrap
from x2vlm.errors import CheckpointError

MAX_BYTES = 20 * 2**30
MAX_MEMBERS = 20_000
MAX_PICKLE_BYTES = 16 * 2**20
MAX_SAFETENSORS_HEADER = 100 * 2**20
_SUFFIXES = (".th", ".pt", ".pth", ".bin", ".safetensors")
_TRAINING_STATE = "training_state"
"""Start of the name of the optimiser's file that the official code writes beside a model."""
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class _Inert:
    """Stands for a value beside the weights that is read over: its class is never imported."""

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


INERT = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
"""What training scripts save beside the weights: their arguments, and numbers that NumPy made."""
_allowing = threading.Lock()  # torch keeps one list of allowed names for all threads


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of `read_weights`."""
    return read_weights(path).tensors


def read_weights(path: Path) -> Weights:
    """All tensors of a weights file, on the CPU, memory-mapped where the format allows it.

    Args:
        path: a torch file (`.th`, `.pt`, `.pth`, `.bin`; the state dict itself or wrapped in
            `{'model': ...}`), a safetensors file, or a tar file that holds one of them. Files named
            `.tar` that are torch files inside are common.

    Raises:
        CheckpointError: anything else; codes `ckpt/source`, `ckpt/format`, `ckpt/unsafe`,
            `ckpt/damaged`, `ckpt/content`.
    """
    name = path.name
    try:
        if not path.is_file():
            raise CheckpointError(
                f"There is no weights file {shown(name)}. Check the path.", "ckpt/source"
            )
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(
                f"{shown(name)} has {size / 2**30:.0f} GiB; the limit is {MAX_BYTES >> 30} GiB.",
                "ckpt/format",
            )
        with path.open("rb") as stream:
            return unwrap(_read(path, stream, name, size), name)
    except (OSError, ValueError):
        raise CheckpointError(
            f"{shown(name)} cannot be read. Check the path and its permissions.", "ckpt/source"
        ) from None


def _read(path: Path | None, stream: IO[bytes], name: str, size: int) -> Any:
    """Dispatches on the first bytes. `path` is None for a member of a tar, which cannot be
    memory-mapped."""
    head = stream.read(600)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(stream, name, size)
        return _torch_load(path or stream, name, mmap=path is not None)
    if head.startswith(_LEGACY_TORCH):
        return _torch_load(path or stream, name, mmap=False)
    if _is_safetensors(head):
        return _read_safetensors(path, stream, name)
    if head.startswith(b"\x80") or re.match(rb"c[\w.]+\n[\w.]+\n", head):
        raise CheckpointError(
            f"{shown(name)} is a bare pickle{_named_global(head)}, not a weights file: a pickle "
            "can run programs, so it is not opened. Ask for the file in safetensors form.",
            "ckpt/unsafe",
        )
    if path is not None and head[257:262] == b"ustar":
        return _read_tar(stream, name, size)
    raise _not_a_checkpoint(head, name)


def _is_safetensors(head: bytes) -> bool:
    """Whether the file begins with the length of a header and the header: eight bytes, then JSON.

    Its first byte alone tells nothing: a header of 0x80 bytes looks like the start of a pickle.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER


def _not_a_checkpoint(head: bytes, name: str) -> CheckpointError:
    name, start = shown(name), head.lstrip().lower()
    if not head:
        return CheckpointError(
            f"{name} is empty: the copy or download did not finish. Get it again.", "ckpt/damaged"
        )
    if start.startswith(b"version https://git-lfs"):
        return CheckpointError(
            f"{name} is a Git LFS pointer, not the weights themselves. Run `git lfs pull` in its "
            f"repository.",
            "ckpt/format",
        )
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return CheckpointError(
            f"{name} is a web page, perhaps a login form saved in place of the file. Download the "
            f"file itself.",
            "ckpt/format",
        )
    if head.startswith(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
    ):
        return CheckpointError(
            f"{name} is a compressed archive. Unpack it and give the weights file inside.",
            "ckpt/format",
        )
    kind = (
        "a text file"
        if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)
        else "of no known form"
    )
    return CheckpointError(
        f"{name} is {kind}, not weights. Give a torch file (.th, .pt, .pth), a .safetensors file "
        f"or a converted folder.",
        "ckpt/format",
    )


def _check_zip(stream: IO[bytes], name: str, size: int) -> None:
    """The archive must be what torch writes: few members, each once, stored, true to its checksum.
    One parser, no gap."""
    damaged = CheckpointError(
        f"{shown(name)} is cut off or damaged. Copy or download it again.", "ckpt/damaged"
    )
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            pickles = [
                member for member in members if member.filename.rpartition("/")[2] == "data.pkl"
            ]
            if len(members) > MAX_MEMBERS:
                raise _suspicious(
                    name,
                    f"holds {len(members):,} members; a checkpoint has at most {MAX_MEMBERS:,}",
                )
            if len(set(names)) < len(names) or len(pickles) > 1:
                raise _suspicious(name, "holds the same member twice")
            if any(
                member.compress_type != zipfile.ZIP_STORED
                or member.compress_size != member.file_size
                for member in members
            ):
                raise _suspicious(name, "is compressed inside, which torch never does")
            if sum(member.file_size for member in members) > size:
                raise _suspicious(name, "claims more bytes than it has")
            if any(member.startswith("/") or ".." in member.split("/") for member in names):
                raise _suspicious(name, "holds member names that point outside")
            if not pickles or any(member.endswith("/constants.pkl") for member in names):
                raise CheckpointError(
                    f"{shown(name)} is a zip archive but not a torch weights file. Unpack it and "
                    f"give the weights inside.",
                    "ckpt/format",
                )
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise _suspicious(name, "has an index far larger than any checkpoint's")
            if archive.testzip() is not None:
                raise damaged
    except CheckpointError:
        raise
    except Exception:
        raise damaged from None
    stream.seek(0)


def _suspicious(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(name)} {what}. It is not opened; get the file from its original source.",
        "ckpt/unsafe",
    )


def _named_global(text: bytes | str) -> str:
    """' that calls posix.system', or nothing where no name can be told."""
    if isinstance(text, bytes):
        found = re.search(rb"c([\w.]{1,40})\n([\w.]{1,40})\n", text) or re.search(
            rb"\x8c.([\w.]{1,40})\x94?\x8c.([\w.]{1,40})\x94?\x93", text, re.DOTALL
        )
        return f" that calls {found[1].decode()}.{found[2].decode()}" if found else ""
    found = re.search(r"GLOBAL ([\w.]{1,80})", text)
    return f" that calls {found[1]}" if found else ""


def _torch_load(source: Path | IO[bytes], name: str, mmap: bool) -> Any:
    try:
        with _allowing, torch.serialization.safe_globals([(_Inert, name) for name in INERT]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        what = _named_global(str(error))
        if what or "nsupported" in str(error):
            raise CheckpointError(
                f"{shown(name)} holds a pickle{what}, which weights never need: it could run "
                "programs, so it is not opened. If you trust its author, ask for the file in "
                "safetensors form.",
                "ckpt/unsafe",
            ) from None
        raise CheckpointError(
            f"{shown(name)} is damaged, or not a weights file. Copy or download it again.",
            "ckpt/damaged",
        ) from None


def _read_safetensors(path: Path | None, stream: IO[bytes], name: str) -> dict[str, Tensor]:
    try:
        if path is None:
            return safetensors.torch.load(stream.read())
        with safe_open(path, "pt") as file:
            names = file.keys()  # a safetensors file is no mapping
            return {name: file.get_tensor(name) for name in names}
    except Exception:
        raise CheckpointError(
            f"{shown(name)} is a damaged safetensors file. Copy or download it again.",
            "ckpt/damaged",
        ) from None


def _read_tar(stream: IO[bytes], name: str, size: int) -> Any:
    """Reads the one weights file of an uncompressed tar in place; nothing is unpacked to disk."""
    damaged = CheckpointError(
        f"{shown(name)} is cut off or damaged. Copy or download it again.", "ckpt/damaged"
    )
    found = []
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive, 1):
                parts = member.name.split("/")
                if (
                    count > MAX_MEMBERS
                    or not (member.isfile() or member.isdir())
                    or ".." in parts
                    or parts[0] == ""
                ):
                    raise _suspicious(
                        name, f"holds {shown(member.name, 40)}, which no archive of weights needs"
                    )
                if member.offset_data + member.size > size:
                    raise damaged
                if parts[-1].endswith(_SUFFIXES):
                    found.append(member)
            found = [
                member
                for member in found
                if not member.name.rpartition("/")[2].startswith(_TRAINING_STATE)
            ] or found
            if len(found) != 1:
                listed = ", ".join(shown(member.name, 40) for member in found[:5]) or "none"
                raise CheckpointError(
                    f"{shown(name)} should hold one weights file, it holds {len(found)} "
                    f"({listed}). Unpack it and give the weights file.",
                    "ckpt/format",
                )
            with archive.extractfile(found[0]) as inner:
                return _read(None, io.BufferedReader(inner), shown(found[0].name), found[0].size)
    except CheckpointError:
        raise
    except Exception:
        raise damaged from None
