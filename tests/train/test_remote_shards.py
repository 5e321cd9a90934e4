"""Shards behind a URL and shards with an index: the same records, little memory, errors with their
cause."""

import gc
import http.server
import tarfile
import threading
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tests.train.test_data_files import image, shard
from train.data import remote, tars
from train.data.files import FileRecords
from train.data.remote import expand
from train.data.tars import INDEX, Tar, write_index
from x2vlm.errors import DataError

pytest.importorskip("aiohttp", reason="fsspec reads URLs by aiohttp: pip install 'x2vlm[remote]'")


class RangeServer(http.server.SimpleHTTPRequestHandler):
    """Serves files and ranges of them. `broken` answers that many requests for tars by 503."""

    asked: ClassVar[list[str]] = []
    broken = 0
    ranges = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        type(self).asked.append(self.path)
        if RangeServer.broken and self.path.endswith(".tar"):
            type(self).broken -= 1
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        if "Range" not in self.headers or not path.is_file() or not self.ranges:
            super().do_GET()
            return
        start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        content = path.read_bytes()
        part = content[int(start) : int(end) + 1 if end else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder with two shards, and its URL."""
    for number in range(2):
        members = {}
        for k in range(3):
            members[f"{number}{k}.jpg"] = image()
            members[f"{number}{k}.txt"] = f"picture {k} of {number}".encode()
        shard(tmp_path, members, f"s-{number}.tar")
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(RangeServer, "asked", [])
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: RangeServer(*given, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def said(records) -> list[tuple]:
    return [(record["captions"], record["image"].tobytes()) for record in records]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_url_gives_what_the_file_gives(served, indexed):
    folder, url = served
    local = FileRecords([str(folder / "s-*.tar")])
    if indexed:
        for path in folder.glob("*.tar"):
            write_index(path)
    far = FileRecords([url + "/s-{0..1}.tar"])
    assert said(far) == said(local) and len(far) == 6
    assert far.name(4) == "s-1.tar, 11"
    assert far.fingerprint() == local.fingerprint()


def test_with_an_index_a_shard_is_not_read_through(served):
    folder, url = served
    write_index(folder / "s-0.tar")
    records = FileRecords([f"{url}/s-0.tar"])
    assert RangeServer.asked.count("/s-0.tar") == 0
    records[1]
    assert RangeServer.asked.count("/s-0.tar") == 1


def test_what_is_wrong_with_a_url_is_told(served, monkeypatch):
    folder, url = served
    (folder / "data.jsonl").touch()
    with pytest.raises(DataError, match=rf"{url}/none.tar does not exist"):
        FileRecords([f"{url}/none.tar"])
    with pytest.raises(DataError, match=r"only \.tar shards are read from a URL"):
        FileRecords([f"{url}/data.jsonl"])
    records = FileRecords([f"{url}/s-0.tar"])
    monkeypatch.setattr(RangeServer, "broken", 1)
    assert records[0]["captions"] == ["picture 0 of 0"]  # asked again
    monkeypatch.setattr(RangeServer, "broken", 100)
    with pytest.raises(DataError, match=rf"s-0.tar, .*{url}/s-0.tar cannot be read .*503"):
        records[1]
    monkeypatch.setattr(RangeServer, "broken", 0)
    monkeypatch.setattr(RangeServer, "ranges", False)
    with pytest.raises(DataError, match="sends whole files"):
        records[1]


def test_a_server_that_is_gone(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", ())
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/s.tar cannot be read \(.+\)"):
        FileRecords(["http://127.0.0.1:9/s.tar"])


def test_an_index_of_another_tar_is_refused(served):
    folder, _ = served
    write_index(folder / "s-0.tar").rename(folder / f"s-1.tar{INDEX}")
    (folder / "s-1.tar").write_bytes((folder / "s-1.tar").read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"s-1.tar.index is of another tar"):
        FileRecords([str(folder / "s-1.tar")])


def test_samples_whose_members_are_apart_get_no_index(tmp_path):
    shard(tmp_path, {"a.jpg": image(), "b.jpg": image(), "a.txt": b"x", "b.txt": b"y"})
    with pytest.raises(DataError, match="the members of a do not stand together"):
        write_index(tmp_path / "s.tar")
    assert not list(tmp_path.glob(f"*{INDEX}"))


def test_ranges_are_written_out(tmp_path):
    for number in ("08", "09", "10"):
        (tmp_path / f"a-{number}.tar").touch()
    names = [place.name for place in expand([str(tmp_path / "a-{08..10}.tar")])]
    assert names == ["a-08.tar", "a-09.tar", "a-10.tar"]


def test_a_sample_of_a_shard_takes_eight_bytes(tmp_path):
    count = 2000
    members = {f"{k:06}{suffix}": b"{}" for k in range(count) for suffix in (".json", ".cls")}
    path = Path(shard(tmp_path, members))
    tracemalloc.start()
    tar = Tar(path)
    gc.collect()
    ours = [tracemalloc.Filter(True, module.__file__) for module in (tars, tarfile)]
    held = tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")
    tracemalloc.stop()
    each = sum(part.size for part in held) / count
    assert len(tar) == count and tar.bounds.dtype == np.int64
    assert each < 12
