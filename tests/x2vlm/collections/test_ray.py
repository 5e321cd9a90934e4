"""The Ray engine: rows of its readers, and runs whose workers or driver are killed."""

import io
import os
import random
import signal
import socket
import subprocess
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


def matches(records):
    """Item -> match of its text, None for an error."""
    return {
        record["id"]: record["matches"][0]["probability"] if "matches" in record else None
        for record in records
    }


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
    assert len(found) == 150 + 2 + 4 + 6
    assert sum("error" in record for record in found) == 1
    own = matches(found)
    assert len(own) == len(found)
    run("match", folder, "dog", "--out", tmp_path / "local.jsonl")
    for name, match in matches(read_records(tmp_path / "local.jsonl")).items():
        assert own[name] == pytest.approx(match, abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_and_resume_with_ray(start, tmp_path, make_images, run):
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
    found = list(read_records(out))
    own = matches(found)
    assert len(own) == len(found) == 500
    run("match", folder, "dog", "--out", tmp_path / "whole.jsonl")
    whole = matches(read_records(tmp_path / "whole.jsonl"))
    assert own.keys() == whole.keys()
    for name, match in whole.items():
        assert own[name] == pytest.approx(match, abs=1e-4), name


@pytest.fixture
def storage(monkeypatch):
    """A server of the S3 protocol on this machine, with a bucket `photos` of six images."""
    pytest.importorskip("moto.server", reason="it needs pip install 'moto[server]'")
    from pyarrow.fs import FileSystem

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    settings = {
        "ENDPOINT_URL": "http://{}:{}".format(*place),
        "REGION": "us-east-1",
        "DEFAULT_REGION": "us-east-1",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    command = [sys.executable, "-m", "moto.server", "-p", str(place[1])]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as knock:
                if knock.connect_ex(place) == 0:
                    break
            time.sleep(0.1)
        files, _ = FileSystem.from_uri("s3://photos?allow_bucket_creation=true")
        files.create_dir("photos")
        for number in range(6):
            with files.open_output_stream(f"photos/some/{number}.png") as file:
                file.write(png(number))
        yield "s3://photos/some/"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_images_of_a_bucket(start, tmp_path, storage):
    out = tmp_path / "out.jsonl"
    options = ("--text", "dog", "--out", out, "--engine", "ray", "--workers", "1")
    for _ in range(2):  # the second run finds all records there
        process = start("match", storage, *options)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err.decode()
        names = sorted(record["id"] for record in read_records(out))
        assert names == [f"photos/some/{number}.png" for number in range(6)]
