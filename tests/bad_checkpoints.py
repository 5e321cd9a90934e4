"""Hostile and damaged weights files, made here; every one must be refused with a code, and none may
run anything.

`hostile(canary)` gives files whose payload would create the file `canary`; `malformed()` the rest.
Both: name -> bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save


def good(**more) -> dict[str, torch.Tensor]:
    return {"vision_proj.weight": torch.ones(4, 4), "vision_proj.bias": torch.zeros(4), **more}


def torch_file(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_pickle(payload: bytes, members: tuple[str, ...] = ("archive/data.pkl",)) -> bytes:
    """A torch file whose index is `payload`."""
    source = zipfile.ZipFile(io.BytesIO(torch_file(good())))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate that we want
        for member in source.infolist():
            if not member.filename.endswith("data.pkl"):
                archive.writestr(member.filename, source.read(member))
        for name in members[:-1]:
            archive.writestr(name, pickle.dumps({}, 2))
        archive.writestr(members[-1], payload)
    return buffer.getvalue()


def hostile(canary: Path) -> dict[str, bytes]:
    import os
    import subprocess
    import timeit

    code = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}"
    line = str(canary).encode()
    calls = {
        "os": Call(os.system, shell),
        "exec": Call(exec, code),
        "eval": Call(eval, code),
        "open": Call(open, str(canary), "w"),
        "getattr": Call(getattr(os, "system"), shell),  # noqa: B009
        "subprocess": Call(subprocess.call, ["touch", str(canary)]),
        "timeit": Call(timeit.timeit, code, "pass", timeit.default_timer, 1),
        "codeop": Call(__import__("codeop").compile_command, code),
    }
    files = {
        f"{name}.th": torch_file({"model": good(), "config": call}) for name, call in calls.items()
    }
    stack_global = (
        b"\x80\x04"
        + _text(b"posix")
        + _text(b"system")
        + b"\x93"
        + _text(shell.encode())
        + b"\x85R."  # calls posix.system
    )
    chain = (
        b"c__builtin__\ngetattr\n(cos\n__dict__\nVget\ntR(Vsystem\ntR(V" + shell.encode() + b"\ntR."
    )
    numpy_call = b"cnumpy.testing._private.utils\nrunstring\n(V" + code.encode() + b"\n}tR."
    return files | {
        "stack_global.th": with_pickle(stack_global),
        "posix.th": with_pickle(b"cposix\nsystem\n(V" + shell.encode() + b"\ntR."),
        "chain.th": with_pickle(chain),
        "numpy.th": with_pickle(numpy_call),
        "bare.pth": pickle.dumps(Call(os.system, shell)),
        "bare0.pth": b"cposix\nsystem\n(S'" + shell.encode() + b"'\ntR.",
        "legacy.th": torch_file(
            {"model": Call(os.system, shell)}, _use_new_zipfile_serialization=False
        ),
        "broken_after.th": with_pickle(b"cposix\nsystem\n(V" + line + b"\ntR")[:-30],
        "named.safetensors": pickle.dumps(Call(os.system, shell), 4),
        "legacy.tar": tar(
            {"pickle": pickle.dumps(Call(os.system, shell), 2), "storages": b"", "tensors": b""}
        ),
        "twice.th": with_pickle(
            torch_file({})[:0] + pickle.dumps(Call(os.system, shell), 2), ("archive/data.pkl",) * 2
        ),
    }


def _text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def tar(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = (
                (len(data) if kind == tarfile.REGTYPE else 0),
                kind,
                link,
            )
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def deflated(payload: int = 1 << 24) -> bytes:
    """A torch file whose storages are compressed zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", b"\0" * payload)
    return buffer.getvalue()


def crowded(count: int = 60_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        for index in range(count):
            archive.writestr(f"archive/data/{index}", b"")
    return buffer.getvalue()


def claims(elements: int) -> bytes:
    """A tensor of `elements` numbers over 16 bytes of storage, contiguous or with stride 0."""
    tensor = torch.zeros(4).as_strided((1,), (0,)).expand(elements)
    return torch_file({"model": {"vision_proj.weight": tensor}})


def nested(depth: int) -> bytes:
    """`depth` lists in each other, in place of the configuration."""
    return b"\x80\x02}(X\x06\x00\x00\x00config" + b"]" * depth + b"a" * (depth - 1) + b"u."


def exploding(levels: int = 130) -> bytes:
    """Lists of two references each to the one below: 2 ** 130 leaves when walked, a few hundred
    bytes when stored."""
    value: list = []
    for _ in range(levels):
        value = [value, value]
    return torch_file({"model": good(), "config": value, "state": value})


def safetensors(header: dict | bytes, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(**changes) -> dict:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


MALFORMED_SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "no_header": lambda: b"\x08\0\0\0\0\0\0\0",
    "cut_header": lambda: safetensors(_entry())[:20],
    "huge_header": lambda: struct.pack("<Q", 1 << 60) + b"{}",
    "header_past_end": lambda: struct.pack("<Q", 5000) + b"{" + b" " * 100,
    "not_json": lambda: safetensors(b"{not json}"),
    "list": lambda: safetensors(b"[1, 2, 3]"),
    "overlap": lambda: safetensors(
        _entry() | {"b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}, b"\0" * 24
    ),
    "hole": lambda: safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}),
    "past_end": lambda: safetensors(_entry(shape=[400], data_offsets=[0, 1600])),
    "negative": lambda: safetensors(_entry(shape=[-4])),
    "wrong_size": lambda: safetensors(_entry(shape=[5])),
    "unknown_dtype": lambda: safetensors(_entry(dtype="F33")),
    "huge_shape": lambda: safetensors(_entry(shape=[1 << 40, 1 << 40])),
    "cut_data": lambda: save(good())[:-9],
    "long_data": lambda: save(good()) + b"more",
}


def malformed() -> dict[str, bytes]:
    """Name -> bytes of everything that is damaged, the wrong thing, or too much."""
    archive = torch_file({"model": good()})
    flipped = bytearray(archive)
    flipped[archive.index(struct.pack("<f", 1.0)) + 1] ^= 0x10
    inside = {"x/model.th": torch_file({"model": good()})}
    files = {
        "empty.th": b"",
        "cut.th": archive[: len(archive) // 2],
        "cut_tail.th": archive[:-40],
        "flipped.th": bytes(flipped),
        "page.th": b"\n<!DOCTYPE html><html><body>Log in</body></html>",
        "pointer.th": b"version https://git-lfs.github.com/spec/v1\noid sha256:07eced\nsize 1019\n",
        "text.th": b"these are no weights\n" * 20,
        "json.pt": b'{"model": {}}',
        "noise.pt": bytes(range(7, 256)) * 9,
        "zip.th": _zip({"readme.txt": b"hello"}),
        "script.pt": _zip(
            {
                "archive/data.pkl": pickle.dumps({}, 2),
                "archive/constants.pkl": b"",
                "archive/code/a.py": b"1",
            }
        ),
        "deflated.th": deflated(),
        "crowded.th": crowded(),
        "stride0.th": claims(1 << 40),
        "terabytes.th": with_pickle(_claimed_pickle(1 << 40)),
        "nested.th": with_pickle(nested(200_000)),
        "exploding.th": exploding(),
        "list.th": torch_file([torch.ones(2)]),
        "number.th": torch_file(3),
        "no_tensors.th": torch_file({"model": {}}),
        "only_words.th": torch_file({"model": {"a": "b"}}),
        "optimizer.th": torch_file({"optimizer": {"state": {}, "param_groups": []}, "epoch": 3}),
        "int8.th": torch_file({"model": good(extra=torch.ones(3, dtype=torch.int8))}),
        "sparse.th": torch_file({"model": good(extra=torch.eye(3).to_sparse())}),
        "hostile_key.th": torch_file(
            {"model": {"../../etc/passwd\n\x1b[31m" + "A" * 5000: torch.ones(1)}}
        ),
        "number_key.th": torch_file({"model": {3: torch.ones(1)}}),
        "other_model.th": torch_file(
            {"model": {"conv1.weight": torch.ones(4, 3, 7, 7), "fc.bias": torch.zeros(10)}}
        ),
        "gzip.tar.gz": gzip.compress(b"\0" * (1 << 20)),
        "two.tar": tar({"a.th": b"x", "b.th": b"y"}),
        "none.tar": tar({"readme.txt": b"x"}),
        "dotdot.tar": tar({"../model.th": inside["x/model.th"]}),
        "absolute.tar": tar({"/tmp/model.th": inside["x/model.th"]}),
        "symlink.tar": tar({"model.th": b""}, tarfile.SYMTYPE, "/etc/passwd"),
        "hardlink.tar": tar({"model.th": b""}, tarfile.LNKTYPE, "/etc/passwd"),
        "device.tar": tar({"model.th": b""}, tarfile.CHRTYPE),
        "fifo.tar": tar({"model.th": b""}, tarfile.FIFOTYPE),
        "cut.tar": tar(inside)[:1200],
        "inner_text.tar": tar({"model.th": b"no weights"}),
    }
    return files | {f"{name}.safetensors": make() for name, make in MALFORMED_SAFETENSORS.items()}


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _claimed_pickle(elements: int) -> bytes:
    """The index of a real file, with the size of its first storage and tensor replaced by a lie."""
    source = zipfile.ZipFile(io.BytesIO(torch_file({"vision_proj.weight": torch.ones(16)})))
    index = next(source.read(name) for name in source.namelist() if name.endswith("data.pkl"))
    return index.replace(b"K\x10", b"\x8a\x06" + elements.to_bytes(6, sys.byteorder))
