"""People's own data: every layout that it comes in, and what is said of unusable data."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.files import FileRecords
from train.prepare import own
from train.prepare.own import FORMATS, OwnData
from x2vlm.errors import DataError

COUNT = 12
CAPTIONS = [f"un chat numéro {number}" for number in range(COUNT)]


def encoded(number: int, size=(32, 24)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images `0.png` to `11.png` below `home/pics`."""
    home = tmp_path / "home"
    (home / "pics").mkdir(parents=True)
    for number in range(COUNT):
        (home / "pics" / f"{number}.png").write_bytes(encoded(number))
    return home


def write_csv(path: Path, rows: list[list], delimiter=",", encoding="utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def table(home: Path) -> Path:
    rows = [[f"{number}.png", caption] for number, caption in enumerate(CAPTIONS)]
    return write_csv(home / "pairs.csv", [["image", "caption"], *rows])


def excel(home: Path) -> Path:
    rows = [[caption, f"{number}.png"] for number, caption in enumerate(CAPTIONS)]
    return write_csv(home / "pairs.csv", [["Légende", "Photo"], *rows], ";", "cp1252")


def json_lines(home: Path) -> Path:
    lines = [
        {"file_name": f"pics/{number}.png", "text": [caption]}
        for number, caption in enumerate(CAPTIONS)
    ]
    (home / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home / "pairs.jsonl"


def text_files(home: Path) -> Path:
    for number, caption in enumerate(CAPTIONS):
        (home / "pics" / f"{number}.txt").write_text(caption + "\n", "utf-8")
    return home


def metadata(home: Path) -> Path:
    for part, numbers in (("train", range(8)), ("validation", (8, 9)), ("test", (10, 11))):
        (home / part).mkdir()
        for number in numbers:
            (home / "pics" / f"{number}.png").rename(home / part / f"{number}.png")
        rows = [[f"{part}/{number}.png", CAPTIONS[number]] for number in numbers]
        write_csv(home / part / "metadata.csv", [["file_name", "text"], *rows])
    return home


def coco_captions(home: Path) -> Path:
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(COUNT)],
        "annotations": [{"image_id": n, "caption": text} for n, text in enumerate(CAPTIONS)],
    }
    (home / "captions.json").write_text(json.dumps(content))
    return home / "captions.json"


def arrow_table():
    pyarrow = pytest.importorskip("pyarrow")
    images = [{"bytes": encoded(number), "path": None} for number in range(COUNT)]
    return pyarrow.table({"image": images, "caption": [[caption] for caption in CAPTIONS]})


def parquet(home: Path) -> Path:
    found = arrow_table()
    import pyarrow.parquet

    pyarrow.parquet.write_table(found, home / "train-00000-of-00001.parquet")
    return home / "train-00000-of-00001.parquet"


def saved_dataset(home: Path) -> Path:
    """As `save_to_disk` of Hugging Face datasets writes it."""
    found = arrow_table()
    import pyarrow

    (home / "saved").mkdir()
    with (
        pyarrow.OSFile(str(home / "saved" / "data-00000-of-00001.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, found.schema) as writer,
    ):
        writer.write_table(found)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (home / "saved" / "state.json").write_text(json.dumps(state))
    return home / "saved"


LAYOUTS = (
    table,
    excel,
    json_lines,
    text_files,
    metadata,
    coco_captions,
    parquet,
    saved_dataset,
)


def written(data: Path, task: str, out: Path, **options) -> dict[str, list]:
    """The records of each part."""
    found = OwnData(data, task, out, **options).write()
    return {
        part: list(FileRecords([str(out / f"{part}.jsonl")], found.media, FORMATS[task]))
        for part in own.PARTS
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_pairs(layout, folder, tmp_path):
    parts = written(layout(folder), "caption", tmp_path / "out")
    records = [record for part in parts.values() for record in part]
    assert sorted(text for record in records for text in record["captions"]) == sorted(CAPTIONS)
    assert all(record["image"].size == (32, 24) for record in records)
    assert all(parts.values())


def test_classes_are_folders(folder, tmp_path):
    for number in range(COUNT):
        kind = folder / "pics" / ("white_cat" if number % 2 else "dog")
        kind.mkdir(exist_ok=True)
        (folder / "pics" / f"{number}.png").rename(kind / f"{number}.png")
    parts = written(folder / "pics", "retrieval", tmp_path / "out")
    texts = [record["captions"][0] for part in parts.values() for record in part]
    assert sorted(texts) == ["dog"] * 6 + ["white cat"] * 6


def test_rows_of_one_image_are_one_entry(folder, tmp_path):
    """Flat captions, and a copy of a file under another name."""
    (folder / "pics" / "copy.png").write_bytes(encoded(0))
    rows = [[f"{n}.png", f"{text} {again}"] for n, text in enumerate(CAPTIONS) for again in "ab"]
    data = write_csv(folder / "flat.csv", [["image", "caption"], *rows, ["copy.png", "the copy"]])
    parts = written(data, "caption", tmp_path / "out")
    counts = sorted(len(record["captions"]) for part in parts.values() for record in part)
    assert counts == [2] * 11 + [3]


def test_parts_follow_the_content(folder, tmp_path):
    """More images change no image's part."""
    before = written(table(folder), "caption", tmp_path / "before")
    for number in range(COUNT, 3 * COUNT):
        (folder / "pics" / f"{number}.png").write_bytes(encoded(number))
    rows = [[f"{number}.png", f"picture {number}"] for number in range(3 * COUNT)]
    data = write_csv(folder / "more.csv", [["image", "caption"], *rows])
    after = written(data, "caption", tmp_path / "after")
    held_out = {record["image_id"] for record in before["test"]}
    assert held_out <= {record["image_id"] for record in after["test"]}


def test_an_image_of_two_parts_is_not_trained_on(folder, tmp_path, capsys):
    parts = ["train"] * 9 + ["val", "test", "test"]
    rows = [[f"{n}.png", CAPTIONS[n], part] for n, part in enumerate(parts)]
    data = write_csv(
        folder / "parts.csv", [["image", "caption", "split"], *rows, ["0.png", "again", "test"]]
    )
    assert {part: len(found) for part, found in written(data, "caption", tmp_path).items()} == {
        "train": 8,
        "val": 1,
        "test": 3,
    }
    assert "1 images stand in several parts" in capsys.readouterr().out


def test_questions(folder, tmp_path):
    rows = [[f"{n}.png", "how many?", str(n)] for n in range(COUNT)]
    data = write_csv(folder / "qa.csv", [["img", "question", "answer"], *rows])
    parts = written(data, "ask", tmp_path)
    asked = [record["questions"][0] for part in parts.values() for record in part]
    assert sorted(int(next(iter(question["answers"]))) for question in asked) == list(range(COUNT))


@pytest.mark.parametrize(
    ("header", "box"),
    [(["x", "y", "w", "h"], (4, 3, 16, 12)), (["x1", "y1", "x2", "y2"], (4, 3, 20, 15))],
)
def test_boxes_of_tables(header, box, folder, tmp_path):
    rows = [[f"{n}.png", "the dog", *box] for n in range(COUNT)]
    data = write_csv(folder / "boxes.csv", [["image", "phrase", *header], *rows])
    (region,) = written(data, "ground", tmp_path)["train"][0]["regions"]
    assert region["text"] == "the dog"
    assert region["box"] == pytest.approx((12 / 32, 9 / 24, 16 / 32, 12 / 24))


def test_boxes_of_coco(folder, tmp_path, capsys):
    """Two dogs in one image: the word names neither."""
    boxes = [{"image_id": n, "category_id": 7, "bbox": [1, 2, 8, 9]} for n in range(COUNT)]
    boxes += [{"image_id": 0, "category_id": 7, "bbox": [9, 2, 8, 9]}]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(COUNT)],
        "annotations": boxes,
        "categories": [{"id": 7, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    parts = written(folder / "instances.json", "ground", tmp_path)
    assert sum(map(len, parts.values())) == COUNT - 1
    assert "2 of 13 boxes are left out" in capsys.readouterr().out


def bad_third(home):
    rows = [[f"{n}.png", CAPTIONS[n] if n % 3 else ""] for n in range(COUNT)]
    return write_csv(home / "pairs.csv", [["image", "caption"], *rows])


def no_column(home):
    return write_csv(home / "pairs.csv", [["image", "prix", "poids"], ["0.png", "3", "4"]])


def missing_images(home):
    return write_csv(home / "pairs.csv", [["image", "caption"], ["gone/0.png", "a"]])


def damaged_image(home):
    (home / "pics" / "3.png").write_bytes(encoded(3)[:200])
    return table(home)


def addresses(home):
    return write_csv(home / "pairs.csv", [["image", "caption"], ["https://a.org/1.jpg", "a"]])


def numbers(home):
    lines = [{"image": f"{n}.png", "label": n} for n in range(COUNT)]
    (home / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home / "pairs.jsonl"


def too_few(home):
    return write_csv(home / "pairs.csv", [["image", "caption"], ["0.png", "a"]])


def other_json(home):
    (home / "pairs.json").write_text('{"data": []}')
    return home / "pairs.json"


def texts_missing(home):
    return home / "pics"


BAD = [
    (bad_third, r"pairs.csv: 4 of 12 rows: no caption \(pairs.csv, line 2, .*--max-bad 0.34"),
    (no_column, "columns image, prix, poids; none is known as the caption. Name it: --columns"),
    (missing_images, "names the image gone/0.png, which is neither beside it.*--images FOLDER"),
    (damaged_image, r"1 of 12 rows: the picture is damaged.* \(pairs.csv, line 5\)"),
    (addresses, "the image is an address; download it first"),
    (numbers, "the caption is the number 0"),
    (too_few, "1 images that can be used; at least 10"),
    (other_json, "keys data; expected is a list of objects, or COCO's form"),
    (lambda home: home / "nothing", "nothing does not exist"),
    (lambda home: home / "pics" / "0.png", "of no known layout"),
]


@pytest.mark.parametrize(("layout", "said"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_data_that_cannot_be_used_are_named(layout, said, folder, tmp_path):
    with pytest.raises(DataError, match=said):
        written(layout(folder), "caption", tmp_path / "out")


def test_images_without_texts_are_told_how(folder, tmp_path):
    with pytest.raises(DataError, match=r"0.png has no text. Put 0.txt beside it"):
        written(folder / "pics", "caption", tmp_path / "out")


def test_boxes_are_in_pixels_of_the_upright_image(folder, tmp_path):
    """Photos of a phone that was held upright: 32 x 24 stored, 24 x 32 seen."""
    for number in range(COUNT):
        image = Image.open(io.BytesIO(encoded(number)))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(folder / "pics" / f"{number}.png", exif=exif)
    rows = [[f"{n}.png", "a dog", "[2, 2, 20, 28]"] for n in range(COUNT)]
    data = write_csv(folder / "boxes.csv", [["image", "phrase", "bbox"], *rows])
    records = written(data, "ground", tmp_path / "out")["train"]
    assert records[0]["regions"][0]["box"] == [0.5, 0.5, 20 / 24, 28 / 32]


def test_fractions_are_refused(folder, tmp_path):
    rows = [[f"{n}.png", "a dog", "[0.1, 0.1, 0.5, 0.5]"] for n in range(COUNT)]
    data = write_csv(folder / "boxes.csv", [["image", "phrase", "bbox"], *rows])
    with pytest.raises(DataError, match="in fractions of the sides"):
        written(data, "ground", tmp_path)


def test_columns_of_ones_own(folder, tmp_path, capsys):
    rows = [[f"{n}.png", 3, CAPTIONS[n]] for n in range(COUNT)]
    data = write_csv(folder / "pairs.csv", [["foto", "prix", "beschreibung"], *rows])
    options = [str(data), "--task", "caption", "--out", str(tmp_path / "out"), "--columns"]
    assert own.main([*options, "image=foto", "caption=beschreibung"]) == 0
    assert own.main([*options, "bild=foto"]) == 2
    assert "'bild' is not WORD=COLUMN" in capsys.readouterr().err
