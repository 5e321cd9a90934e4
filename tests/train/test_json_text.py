"""A fault of JSON costs the entry that it stands in, and is named."""

import json

import pytest

from train.data.files import FileRecords
from train.data.json_text import parse_json, read_json_list
from x2vlm.errors import DataError

DEEP = "[" * 100_000 + "]" * 100_000
UNREADABLE = {
    "NaN is no JSON number": '{"text": "x", "score": NaN}',
    "-Infinity is no JSON number": '{"text": "x", "scores": [1, {"a": -Infinity}]}',
    "NaN": "NaN",
    "is nested too deeply": f'{{"text": "a ] in \\" a string", "deep": {DEEP}}}',
    "a number with too many digits": f'{{"text": "x", "score": {"9" * 5000}}}',
}


@pytest.mark.parametrize(("said", "entry"), UNREADABLE.items(), ids=list(UNREADABLE))
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_it_costs_one_record(tmp_path, name, said, entry):
    entries = ['{"text": "one"}', entry, '{"text": "three"}']
    text = "\n".join(entries) if name == "a.jsonl" else f"[{', '.join(entries)}]\n"
    (tmp_path / name).write_text(text)
    records = FileRecords([str(tmp_path / name)], format="text")
    assert [records[index]["captions"] for index in (0, 2)] == [["one"], ["three"]]
    place = "line 2" if name == "a.jsonl" else "entry 2"
    with pytest.raises(DataError, match=rf"{name}, {place}: .*{said}"):
        records[1]


def test_values_between_faults_are_those_of_json(tmp_path):
    values = [1, -2.5, 'a, ] \\ " b', None, True, {"a": [1, {"b": []}]}, []]
    entries = [*map(json.dumps, values), "NaN", *map(json.dumps, values)]
    (tmp_path / "a.json").write_text(" [ " + " ,\n".join(entries) + " ] \n")
    found = read_json_list(tmp_path / "a.json")
    assert found[:7] == found[8:] == values
    assert isinstance(found[7], DataError)


@pytest.mark.parametrize(
    "text", ["[1, NaN", "[NaN, 1]]", "[NaN 1]", "[NaN,]", f"[{DEEP}", "[NaN, {]", "", "[NaN, 'x']"]
)
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a.json, line 1: the text is not JSON"):
        read_json_list(tmp_path / "a.json")


def test_a_text_alone():
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    with pytest.raises(DataError, match="nested too deeply"):
        parse_json(DEEP)
