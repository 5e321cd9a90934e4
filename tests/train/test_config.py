"""Runs are checked completely before anything loads: keys, types, ranges, and YAML with one meaning
per text."""

import pytest

from train.config import (
    OptimizerConfig,
    RunConfig,
    build,
    build_task,
    load_run,
    usage,
)
from train.strict_yaml import parse_yaml, read_yaml
from x2vlm.errors import ConfigError

RUN = """
output_dir: out
max_steps: 100
optimizer: {lr: 1e-4, warmup: 0.1}
tasks:
  captions:
    type: captioning
    batch_size: 8
    data: {stickers: {kind: scene}}
"""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def minimal(**changes):
    return {
        "output_dir": "out",
        "max_steps": 3,
        "tasks": {"a": {}},
        "optimizer": {"lr": 1e-4},
        **changes,
    }


def test_file_and_overrides(run_file):
    options = [
        "--optimizer.lr=3e-5",
        "--tasks.captions.batch_size",
        "16",
        "--model.freeze=[vision]",
        "--precision=bf16",
    ]
    run, tasks = load_run(["--config", str(run_file), *options])
    assert run.optimizer == OptimizerConfig(lr=3e-5, warmup=0.1)
    assert (run.precision, run.model.freeze, run.max_steps) == ("bf16", ["vision"], 100)
    assert tasks["captions"].batch_size == 16


def test_settings_stay_plain(run_file):
    run, _ = load_run(["--config", str(run_file)])
    assert run.tasks["captions"] == {
        "type": "captioning",
        "batch_size": 8,
        "data": {"stickers": {"kind": "scene"}},
    }


def test_the_later_of_two_files_wins_key_by_key(run_file, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text("optimizer: {lr: 1}\n")
    run, _ = load_run(["--config", str(run_file), "--config", str(second)])
    assert (run.optimizer.lr, run.optimizer.warmup) == (1.0, 0.1)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "--max_stepz=3",
            "Unknown key 'max_stepz'. Did you mean 'max_steps'? Known keys: accumulation, ",
        ),
        (
            "--optimizer.learning_rate=3",
            "Unknown key 'optimizer.learning_rate'. Known keys: betas, ",
        ),
        (
            "--tasks.captions.batchsize=3",
            "Unknown key 'tasks.captions.batchsize'. Did you mean 'batch_size'?",
        ),
        (
            "--tasks.captions.data.stickers.kinds=x",
            "Unknown key 'tasks.captions.data.stickers.kinds'. Did you mean 'kind'?",
        ),
        (
            "--tasks.captions.type=capshun",
            "Unknown task type 'capshun'. Known types: attributes, captioning, ",
        ),
        (
            "--tasks.captions.losses={box_l1_loss: 0}",
            "tasks.captions: Unknown loss 'box_l1_loss'. Known losses: caption_loss.",
        ),
        (
            "--tasks.captions.losses={caption_loss: -1}",
            "tasks.captions: losses.caption_loss is -1",
        ),
        ("--tasks.other.batch_size=3", "tasks.other has no key 'type'"),
        ("--max_steps.more=3", "'max_steps' is a value, not a block"),
        ("--max_steps", "--max_steps has no value"),
        ("max_steps=3", "is not an option"),
        ("--optimizer=3", "optimizer must be a block of keys, not 3"),
        ("--max_steps=[", "--max_steps, line 1"),
    ],
)
def test_wrong_options_are_named(run_file, option, said):
    with pytest.raises(ConfigError) as error:
        load_run(["--config", str(run_file), option])
    assert said in error.value.message


def test_missing_key():
    with pytest.raises(ConfigError, match=r"The key 'optimizer\.lr' is missing"):
        build(RunConfig, minimal(optimizer={}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("optimizer.lr", value)
            for value in (float("nan"), float("inf"), -1, 0, "fast", True, None, [1])
        ),
        *(("optimizer.betas", value) for value in ([0.9], [0.9, 1.0], "0.9")),
        ("optimizer.warmup", -3),
        ("optimizer.clip", 0),
        *(("max_steps", value) for value in (0, -4, 8.5, True, "many")),
        *(("accumulation", value) for value in (0, 1.5)),
        ("precision", "fp8"),
        ("device", False),
        ("model.freeze", "vision"),
        ("output_dir", 3),
        ("tasks", {}),
        ("tasks", []),
        ("checkpoint.keep", 0),
        ("log.every", 0),
    ],
)
def test_values_out_of_type_or_range_are_named(key, value):
    values = minimal()
    *path, last = key.split(".")
    block = values.setdefault(path[0], {}) if path else values
    block[last] = value
    with pytest.raises(ConfigError) as error:
        build(RunConfig, values)
    assert (
        error.value.message.startswith(f"{key} is ") and "jsonargparse" not in error.value.message
    )


ODD_NUMBERS = [
    "010",
    "-010",
    "010.5",
    "0x10",
    "0b11",
    "0o17",
    "1_000",
    "1:30",
    "'5'",
    "1,000",
    "00",
]


@pytest.mark.parametrize("text", ODD_NUMBERS)
@pytest.mark.parametrize(
    "key",
    [
        "max_steps",
        "optimizer.lr",
        "optimizer.warmup",
        "stop_after_minutes",
        "tasks.captions.batch_size",
        "tasks.captions.losses.caption_loss",
        "tasks.captions.data.stickers.count",
    ],
)
def test_what_is_no_plain_number_is_refused_where_one_belongs(run_file, text, key):
    with pytest.raises(ConfigError) as caught:
        load_run(["--config", str(run_file), f"--{key}={text}"])
    assert key.rpartition(".")[2] in caught.value.message
    assert text.strip("'") in caught.value.message


@pytest.mark.parametrize("text", ["010", "0x10", "1_000", "1:30"])
def test_numbers_of_a_file_are_as_strict(run_file, text):
    run_file.write_text(run_file.read_text().replace("warmup: 0.1", f"betas: [0.9, {text}]"))
    with pytest.raises(ConfigError, match=rf"optimizer.betas is '{text}'.* Numbers are written"):
        load_run(["--config", str(run_file)])


@pytest.mark.parametrize("text", ["010", "0x10", "1_000", "1:30"])
def test_the_same_are_words_where_a_text_belongs(run_file, text):
    options = [f"--output_dir={text}", f"--model.freeze=[{text}]"]
    run, _ = load_run(["--config", str(run_file), *options])
    assert run.output_dir == text
    assert run.model.freeze == [text]


@pytest.mark.parametrize("value", [0, -4, 8.5, True, "8 pairs"])
def test_bad_batch_sizes(value):
    with pytest.raises(ConfigError, match=r"tasks\.a.*batch_size"):
        build_task(
            "a",
            {"type": "captioning", "batch_size": value, "data": {"stickers": {"kind": "scene"}}},
        )


def test_split_rates_need_both():
    with pytest.raises(ConfigError, match="text_lr"):
        OptimizerConfig(lr=1e-4, vision_lr=1e-5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("1e-4", 1e-4),
            ("1E+3", 1e3),
            (".5", 0.5),
            ("1.", 1.0),
            ("-2.5e3", -2500.0),
            (".inf", float("inf")),
        ),
        *(
            ("3", 3),
            ("-3", -3),
            ("true", True),
            ("null", None),
            ("", None),
            ("[a, 1]", ["a", 1]),
        ),
        *(
            (word, word)
            for word in (
                *("no", "on", "010", "00", "-010", "010.5", "08e1", "0x1f", "0b11", "0o17"),
                *("1_000", "1_0.5", "1:30", "1:30.5", "2020-01-01", "${HF_TOKEN}", "1e", "e4"),
            )
        ),
    ],
)
def test_each_yaml_text_has_one_meaning(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        ("a: &x 1\nb: *x", "line 2: aliases"),
        ("a: &x [*x]", "line 1: aliases"),
        ("a:\n\t- b", "line 2"),
        ("a: !!python/object/apply:os.system ['true']", "line 1"),
        ("[" * 3000, "nested too deeply"),
        ("a: [", "line 1"),
        ("1: 2", "the key 1 is not a word"),
        ("\x00", "is not YAML text"),
    ],
)
def test_yaml_that_is_refused(text, said):
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "run.yaml")
    assert said in error.value.message and error.value.message.startswith("run.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold"),
        (b"- a\n- b", "must hold"),
        ("max_steps: é".encode("latin-1"), "not UTF-8"),
        (b"a: " + b"x" * 5_000_000, "larger than"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, content, said):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_yaml(path)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n"])
def test_byte_order_mark_and_line_ends_do_no_harm(tmp_path, content):
    (tmp_path / "run.yaml").write_bytes(content)
    assert read_yaml(tmp_path / "run.yaml") == {"a": 1}


def test_usage_lists_the_keys():
    assert all(
        key in usage() for key in ("--optimizer.lr", "--checkpoint.every", "--resume.allow_changed")
    )
