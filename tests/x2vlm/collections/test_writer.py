"""Results stay valid whatever happens: kills, a second run, a full disk, another command."""

import errno
import json

import pytest

from x2vlm.collections.writer import open_writer, read_records
from x2vlm.errors import DataError

RUN = {"task": "caption", "texts": [], "model": "abc"}


@pytest.fixture(params=["out.jsonl", "out.parquet"])
def out(request, tmp_path):
    if request.param.endswith("parquet"):
        pytest.importorskip("pyarrow")
    return tmp_path / request.param


def rows(*numbers):
    return [{"id": str(number), "captions": [f"näme {number}"]} for number in numbers]


def test_records_come_back(out):
    with open_writer(out, RUN) as writer:
        writer.write(rows(1, 2))
        writer.write([{"id": "3", "error": {"message": "bad", "code": "image/format"}}])
        assert (len(writer.done), writer.failed) == (3, 1)
    assert list(read_records(out))[:2] == rows(1, 2)


def test_a_run_goes_on(out):
    for numbers in ((1, 2), (2, 3)):
        with open_writer(out, RUN) as writer:
            writer.write(rows(*numbers))
    assert [record["id"] for record in read_records(out)] == ["1", "2", "3"]
    with open_writer(out, RUN) as writer:
        assert writer.done == {"1", "2", "3"}


def test_the_second_run_is_refused(out):
    with open_writer(out, RUN), pytest.raises(DataError, match="Another run is writing"):
        open_writer(out, RUN)
    open_writer(out, RUN).__exit__()


def test_another_command_is_refused(out):
    with open_writer(out, RUN) as writer:
        writer.write(rows(1))
    with pytest.raises(DataError, match="its model differed"):
        open_writer(out, RUN | {"model": "xyz"})
    assert len(list(read_records(out))) == 1


def test_half_a_line_is_cut_off(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_writer(out, RUN) as writer:
        writer.write(rows(1, 2))
    whole = out.read_bytes()
    for end in range(len(whole) // 2 + 1, len(whole)):
        out.write_bytes(whole[:end])
        with open_writer(out, RUN) as writer:
            writer.write(rows(1, 2))
        assert out.read_bytes() == whole


def test_a_file_of_someone_else_is_left_alone(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text('{"mine": 1}\n')
    with pytest.raises(DataError):
        open_writer(out, RUN)
    assert out.read_text() == '{"mine": 1}\n'


def test_a_full_disk_leaves_whole_records(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_writer(out, RUN) as writer:
        writer.write(rows(1))
        file, room = writer._file, [30]

        class Full:
            """Takes 30 bytes more."""

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                if not room[0]:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = min(room[0], len(data))
                room[0] -= part
                return file.write(data[:part])

        writer._file = Full()
        with pytest.raises(DataError, match="stays valid: make room"):
            writer.write(rows(2, 3))
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["1"]
    with open_writer(out, RUN) as writer:
        writer.write(rows(2, 3))
    assert [record["id"] for record in read_records(out)] == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["out.txt", "none/out.jsonl"])
def test_outputs_that_cannot_be(tmp_path, name):
    with pytest.raises(DataError):
        open_writer(tmp_path / name, RUN)
