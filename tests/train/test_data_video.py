"""Videos of training: in evaluation the frames that inference chooses, with the same pixels."""

import json
import pickle

import numpy as np
import pytest
import torch

from tests.bad_inputs import number_of, video
from tests.train.test_tasks import prepared, processor  # noqa: F401 (fixture)
from train.data.files import FileRecords
from train.data.records import DataConfig
from train.data.video import FileFrames, take
from x2vlm.errors import DataError
from x2vlm.media import open_video
from x2vlm.processing import to_pixels


@pytest.fixture(scope="module")
def data() -> bytes:
    return video(90, gop=12)


@pytest.fixture
def film(tmp_path, data):
    (tmp_path / "film.mp4").write_bytes(data)
    entries = [{"video": "film.mp4", "caption": text} for text in ("a dog", "a heart")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return {"files": [str(tmp_path / "a.jsonl")], "format": "video_text"}


def test_frames_of_a_file_are_known_by_number(film, tmp_path):
    frames = FileRecords(film["files"], format="video_text")[0]["frames"]
    assert len(frames) == 90
    assert [number_of(frame) for frame in take(frames, [3, 77, 3, 0])] == [3, 77, 3, 0]
    assert number_of(frames[-1]) == 89
    with pytest.raises(IndexError):
        frames[90]


def test_frames_travel_between_processes_as_a_path(film):
    frames = FileRecords(film["files"], format="video_text")[0]["frames"]
    assert len(pickle.dumps(frames)) < 1000
    assert number_of(pickle.loads(pickle.dumps(frames))[5]) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_the_frames_of_inference(film, data, processor, workers):  # noqa: F811
    task = prepared("retrieval", processor, data=film)
    records = task.open_test(DataConfig(**film), workers=workers)
    ((record,),) = records.batches(4)
    opened = open_video(data, processor.config.num_frames)
    seen = torch.stack([to_pixels(frame, task.image_size) for frame in opened.frames])
    assert record["captions"] == ["a dog", "a heart"]
    assert len(record["frames"]) == processor.config.num_frames
    assert torch.equal(task.views(record), seen)


def test_training_draws_frames_of_the_whole_video(film, processor):  # noqa: F811
    task = prepared("retrieval", processor, data=film)
    draws = [task.sample(0, np.random.default_rng(seed))["visual"] for seed in range(2)]
    assert draws[0].shape[0] == processor.config.num_frames
    assert not torch.equal(*draws)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"x" * 900, "no known kind"),
        (video(3)[:200], "damaged|no video"),
    ],
)
def test_files_that_are_no_videos(tmp_path, content, said):
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(DataError, match=rf"film\.mp4: .*({said})"):
        FileFrames(tmp_path / "film.mp4")
