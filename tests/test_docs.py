"""The Python of docs/person_search.md runs, with `mini` and three scenes."""

import re

from tests.tree import ROOT
from x2vlm.stickers import make_record, split_seeds


def test_an_image_and_a_change_find_an_image(tmp_path, monkeypatch):
    page = (ROOT / "docs/person_search.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "catalogue").mkdir()
    first = split_seeds("test").start
    for seed in range(first, first + 3):
        make_record(seed, "test")["image"].save(tmp_path / f"catalogue/{seed}.png")
    (tmp_path / f"catalogue/{first}.png").rename(tmp_path / "reference.jpg")
    names: dict = {}
    exec(code.replace("x2vlm_base_1b", "mini"), names)
    found = [tmp_path.joinpath(path).name for path in names["best"]]
    assert sorted(found) == [f"{first + 1}.png", f"{first + 2}.png"]
