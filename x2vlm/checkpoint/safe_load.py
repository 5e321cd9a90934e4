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
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from x2vlm.errors import CheckpointError

MAX_BYTES = 20 * 2**30
MAX_MEMBERS = 20_000
MAX_PICKLE_BYTES = 16 * 2**20
MAX_NAME_LENGTH = 200
MAX_SAFETENSORS_HEADER = 100 * 2**20
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
)
WRAPPERS = ("model", "module", "state_dict")
"""Keys under which the state dict may sit: X2-VLM and X-VLM write `model`, BEiT also `module`."""

_SUFFIXES = (".th", ".pt", ".pth", ".bin", ".safetensors")
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, on the CPU, memory-mapped where the format allows it.

    Args:
        path: a torch file (`.th`, `.pt`, `.pth`, `.bin`; the state dict itself or wrapped in
            `{'model': ...}`), a safetensors file, or a tar file that holds one of them. Files named
            `.tar` that are torch files inside are common.

    Returns:
        Name to tensor, as stored: buffers included, dtypes unchanged.

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
            return check_tensors(unwrap(_read(path, stream, name, size), name), name)
    except (OSError, ValueError):
        raise CheckpointError(
            f"{shown(name)} cannot be read. Check the path and its permissions.", "ckpt/source"
        ) from None


def shown(name: str, limit: int = 80) -> str:
    """A name from outside, fit for a message: printable and short."""
    return re.sub(r"[^\w.\-+ ]", "?", name)[:limit]


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
    if head.startswith(b"\x80") or re.match(rb"c[\w.]+\n[\w.]+\n", head):
        raise CheckpointError(
            f"{shown(name)} is a bare pickle{_named_global(head)}, not a weights file: a pickle "
            "can run programs, so it is not opened. Ask for the file in safetensors form.",
            "ckpt/unsafe",
        )
    if (
        len(head) > 8
        and head[8:9] == b"{"
        and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER
    ):
        return _read_safetensors(path, stream, name)
    if path is not None and head[257:262] == b"ustar":
        return _read_tar(stream, name, size)
    raise _not_a_checkpoint(head, name)


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


def unwrap(content: Any, name: str) -> Mapping[str, Tensor]:
    """The state dict inside what the file held; optimiser files and other things are refused."""
    name = shown(name)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name} holds a {type(content).__name__}, not a table of named weights.",
            "ckpt/content",
        )
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return content[key]
    if "optimizer" in content or "param_groups" in content:
        raise CheckpointError(
            f"{name} holds the state of a training run's optimiser, not weights. Give the "
            f"model_state file beside it.",
            "ckpt/content",
        )
    return content


def check_tensors(content: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Every entry must be a plain dense tensor whose memory really exists (`ckpt/content`
    otherwise). Values come later."""
    name = shown(name)
    for key, value in content.items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME_LENGTH:
            raise CheckpointError(
                f"{name} holds an entry whose name is no parameter's name.", "ckpt/content"
            )
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} holds a {type(value).__name__} under {shown(key)}, where a tensor "
                f"belongs.",
                "ckpt/content",
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
            raise CheckpointError(
                f"{name}: {shown(key)} has type {str(value.dtype)[6:]}; weights are fp16, bf16 or "
                f"fp32.",
                "ckpt/content",
            )
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise CheckpointError(
                f"{name}: {shown(key)} claims more numbers than the file holds.", "ckpt/content"
            )
    if not content:
        raise CheckpointError(f"{name} holds no weights at all.", "ckpt/content")
    return {key: value.detach() for key, value in content.items()}
