"""WebVid -> webvid.jsonl of videos with captions.

    python -m train.prepare.webvid --out data/webvid

Put the authors' tables (results_2M_train.csv or results_10M_train.csv) into OUT/raw and the videos
into OUT/videos/<page_dir>/<videoid>.mp4; rows without a video are passed over. The authors withdrew
the data in 2024 (https://github.com/m-bain/webvid), so this is for those who have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from train.prepare.common import arguments, read_table, run, with_text, write_json_lines
from x2vlm.errors import DataError

SOURCE = "https://github.com/m-bain/webvid"
COLUMNS = ("videoid", "page_dir", "name")


def entries(rows: Iterable[dict[str, str]], folder: Path) -> Iterator[dict[str, Any]]:
    for row in rows:
        video = f"videos/{row['page_dir']}/{row['videoid']}.mp4"
        if (folder / video).is_file():
            yield {"video": video, "caption": row["name"].strip()}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    tables = sorted(options.raw.glob("results_*_train.csv"))
    if not tables:
        raise DataError(
            f"There is no results_2M_train.csv or results_10M_train.csv in {options.raw.name}/. "
            f"They come from {SOURCE}.",
            "data/missing",
        )
    rows = (
        row
        for path in tables
        for row in with_text(
            read_table(path, COLUMNS, SOURCE), lambda row: row["name"], path.name, SOURCE
        )
    )
    write_json_lines(options.out / "webvid.jsonl", entries(rows, options.out))


if __name__ == "__main__":
    run(main)
