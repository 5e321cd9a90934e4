"""The Ray engine: rows of its readers, and runs whose workers or driver are killed."""

import io
import json
import os
import random
import signal
import sys
import tarfile
import time

import pytest

from tests.x2vlm.collections.conftest import png
from x2vlm.collections.sources import Columns
from x2vlm.collections.writer import read_records
from x2vlm.errors import DataError

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("ray", reason="the extra `ray` is not installed")

from x2vlm.collections import ray_engine  # noqa: E402 (it needs Ray)


def rows(kind, table, columns=None, done=()):
    where = {"/data/a": "a"}
    read = pyarrow.Table.from_pylist(table)
    return ray_engine.to_rows(read, kind, columns or Columns(), where, set(done)).to_pylist()


def test_files_have_the_name_that_was_given():
    (row,) = rows("file", [{"path": "/data/a", "bytes": b"x"}])
    assert (row["id"], row["bytes"]) == ("a", b"x")


def test_files_of_a_cloud_have_their_address():
    (row,) = rows("cloud", [{"path": "bucket/b.png", "bytes": b"x"}])
    assert row["id"] == "bucket/b.png"


def test_parquet_rows_with_bytes_paths_and_images_of_datasets():
    table = [
        {"path": "/data/a", "row_hash": 7, "image": {"bytes": b"x", "path": None}, "q": "who?"},
        {"path": "/data/a", "row_hash": 8, "image": {"bytes": None, "path": "b.png"}, "q": None},
    ]
    first, second = rows("parquet", table, Columns(text="q"))
    assert (first["id"], first["bytes"], first["texts"]) == ("a#7", b"x", '["who?"]')
    assert "does not have an image and 'q'" in second["error"]


def test_parquet_rows_are_named_by_their_id():
    (row,) = rows("parquet", [{"path": "/data/a", "row_hash": 7, "id": 3, "image": "c.png"}])
    assert (row["id"], row["path"]) == ("a#3", "c.png")


def test_samples_of_shards():
    sample = {"path": "/data/a", "__key__": "x/001", "png": b"x", "json": b'{"q": ["a", "b"]}'}
    (row,) = rows("shard", [sample], Columns(text="q"))
    assert (row["id"], row["bytes"], row["texts"]) == ("a/x/001", b"x", '["a", "b"]')


def test_what_is_done_is_dropped():
    table = [{"path": "/data/a", "bytes": b"x"}, {"path": "/data/b", "bytes": b"y"}]
    assert [row["id"] for row in rows("file", table, done=["a"])] == ["/data/b"]


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    def refuse(**_):
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray_engine.ray, "init", refuse)
    with pytest.raises(DataError, match="no Ray cluster at nowhere:1"):
        ray_engine.connect(1, "nowhere:1")


def shards(folder, count):
    folder.mkdir()
    for number in range(count):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for key in range(3):
                member = tarfile.TarInfo(f"{key}.png")
                member.size = len(png(key))
                tar.addfile(member, io.BytesIO(png(key)))
    return folder


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(start, tmp_path, make_images, run):
    """Two workers over a folder, a table, Parquet and shards; one is killed at the first record."""
    import psutil
    import pyarrow.parquet

    folder, out = make_images(tmp_path / "photos", 150), tmp_path / "out.jsonl"
    table = tmp_path / "list.csv"
    table.write_text("image\nphotos/000.png\nphotos/nowhere.png\n")
    stored = pyarrow.Table.from_pylist([{"id": i, "image": png(i)} for i in range(4)])
    pyarrow.parquet.write_table(stored, tmp_path / "stored.parquet")
    inputs = (folder, table, tmp_path / "stored.parquet", shards(tmp_path / "shards", 2))
    ray = ("--engine", "ray", "--workers", "2")
    process = start("match", *inputs, "--text", "dog", "--out", out, *ray)
    killed, deadline = False, time.monotonic() + 400
    while process.poll() is None and not killed and time.monotonic() < deadline:
        time.sleep(0.02)
        if out.exists() and out.stat().st_size:
            children = psutil.Process(process.pid).children(recursive=True)
            workers = [child for child in children if "MapWorker" in child.name()]
            killed = bool(workers)
            for worker in workers[:1]:
                worker.kill()
    try:
        _, err = process.communicate(timeout=max(1, deadline - time.monotonic()))
    finally:
        process.kill()
    assert killed and process.returncode == 0, err.decode()
    found = list(read_records(out))
    names = [record["id"] for record in found]
    assert len(names) == len(set(names)) == 150 + 2 + 4 + 6
    assert sum("error" in record for record in found) == 1
    run("match", folder, "dog", "--out", tmp_path / "local.jsonl")
    own = {record["id"]: record for record in found}
    for record in read_records(tmp_path / "local.jsonl"):
        match = record["matches"][0]["probability"]
        there = own[record["id"]]["matches"][0]["probability"]
        assert there == pytest.approx(match, abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_and_resume_with_ray(start, tmp_path, make_images):
    folder, out = make_images(tmp_path / "photos", 500), tmp_path / "out.jsonl"
    command = ("match", folder, "dog", "--out", out, "--engine", "ray", "--workers", "2")
    rng = random.Random(5)
    for number in range(1, 11):
        process, deadline = start(*command), time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") >= number * 500 // 11:
                time.sleep(rng.random() * 0.2)
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(*command)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()
    names = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert len(names) == len(set(names)) == 500
