"""Collection: a small folder or a zip of images, searched by a text or described."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import gradio as gr
from PIL import Image

from x2vlm.errors import MediaError, X2VLMError
from x2vlm.results import Caption

from .. import html, inputs, limits
from ..export import csv_text
from ..i18n import t
from ..service.admission import uploaded
from ..service.gradio_patches import results_folder
from ..service.messages import CODE, message
from ..tab import Action, Asker, Shown, Tab, Values

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MEGABYTES = 20  # of one image in a zip


@dataclass(frozen=True)
class Row:
    """What is known of one image of the collection; `error` says why it could not be read."""

    name: str
    path: str
    caption: str = ""
    match: float | None = None
    similarity: float | None = None
    error: str = ""
    thumbnail: str = ""

    def told(self, small: Image.Image | None, found: Any) -> Row:
        """The row with one more result, or with why there is none."""
        if isinstance(found, X2VLMError):
            return dataclasses.replace(self, error=CODE.sub("", message(found)))
        said: dict[str, Any] = {"thumbnail": html.image_source(small, "JPEG")}
        first = found[0]
        if isinstance(first, Caption):
            said["caption"] = first.text
        else:
            said |= {"match": first.probability, "similarity": first.similarity}
        return dataclasses.replace(self, **said)

    def fit(self) -> float:
        """Match, or similarity where there is none; images that could not be read come last."""
        if self.error:
            return -2.0
        return self.match if self.match is not None else self.similarity or 0.0

    def to_dict(self) -> dict[str, Any]:
        """For the downloads, without the server's path and without pixels."""
        names = ("name", "caption", "match", "similarity", "error")
        return {name: getattr(self, name) for name in names}


class Collection(Tab):
    """Many images at once; the stage stays as it is."""

    name = "collection"
    asks = False
    tours = False
    defaults: ClassVar = {"files": None, "query": "", "rows": None}

    def build(self, values: Values) -> None:
        self.fields["files"] = gr.Files(
            label=t("collection_files"),
            file_types=[".zip", "image"],
            height=140,
            elem_id="collection-files",
        )
        self.fields["query"] = gr.Textbox(
            label=t("collection_query"), max_length=limits.LETTERS, elem_id="collection-query"
        )
        with gr.Row(elem_classes="go"):
            self.search = gr.Button(
                t("run_collection"), variant="primary", elem_id="run-collection"
            )
            self.describe = gr.Button(t("describe_all"), elem_id="describe-all")
        self.card = gr.HTML(html.note("empty_collection", "empty"), elem_id="card-collection")
        self.rows = gr.State(time_to_live=limits.TEMP_SECONDS)
        self.fields["rows"] = self.rows
        self.downloads = gr.Files(
            visible=False, interactive=False, label=t("files"), elem_id="collection-downloads"
        )

    def actions(self) -> tuple[Action, ...]:
        shows = (self.card, self.rows, self.downloads)
        return (
            Action(self.search.click, self.run_search, shows),
            Action(self.describe.click, self.run_describe, shows),
        )

    def show(self, state: Any) -> Shown:
        return {}

    def run_search(self, ask: Asker, values: Values) -> Shown:
        """Every image's match with the query, best first."""
        query = inputs.text(values["query"])
        rows = self.each(ask, values, "match", [query])
        return self.present(sorted(rows, key=Row.fit, reverse=True))

    def run_describe(self, ask: Asker, values: Values) -> Shown:
        """A caption for every image."""
        return self.present(self.each(ask, values, "caption"))

    def each(self, ask: Asker, values: Values, task: str, *args: Any) -> list[Row]:
        """A task for every image; one that cannot be read is kept with its error."""
        rows = gathered(values["files"], values["rows"])
        found = ask.of_files([row.path for row in rows], task, *args)
        return [row.told(*one) for row, one in zip(rows, found, strict=True)]

    def present(self, rows: list[Row]) -> Shown:
        """The rows on the page and for download."""
        return {
            self.card: listing(rows),
            self.rows: rows,
            self.downloads: gr.update(value=written(rows), visible=True),
        }


def gathered(files: Sequence[str] | None, known: Sequence[Row] | None) -> list[Row]:
    """The images of uploaded files and of zips among them, with what is known of them already.

    Raises:
        MediaError: there is none (`image/empty`), or more than `limits.COLLECTION` (`image/bytes`).
    """
    paths = [Path(uploaded(file)) for file in files or ()]
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    for archive in paths:
        if archive.suffix.lower() == ".zip":
            images += unpacked(archive)
    if not images:
        raise MediaError(
            "No images given. Upload images, or a zip with images in it.", "image/empty"
        )
    if len(images) > limits.COLLECTION:
        raise MediaError(
            f"{len(images)} images given; the limit is {limits.COLLECTION}. Send them in several "
            f"parts.",
            "image/bytes",
        )
    before = {row.path: row for row in known or ()}
    rows = [Row(path.name, str(path)) for path in images]
    return [before.get(row.path, row) for row in rows]


def unpacked(archive: Path) -> list[Path]:
    """The images of a zip as files, unpacked once; their folders are dropped.

    Raises:
        MediaError: not a zip (`image/format`), too many images or too large ones (`image/bytes`).
    """
    folder = archive.with_name(archive.name + ".images")
    if folder.is_dir():
        return sorted(folder.iterdir())
    try:
        with zipfile.ZipFile(archive) as file:
            members = [
                member
                for member in file.infolist()
                if PurePosixPath(member.filename).suffix.lower() in SUFFIXES
                and "__MACOSX" not in member.filename
            ]
            sizes = [member.file_size / 2**20 for member in members]
            if (
                len(sizes) > limits.COLLECTION
                or max(sizes, default=0) > MEGABYTES
                or sum(sizes) > limits.COLLECTION_MEGABYTES
            ):
                raise MediaError(
                    f"A zip may hold {limits.COLLECTION} images of {MEGABYTES} MB each and "
                    f"{limits.COLLECTION_MEGABYTES} MB together. Make it smaller.",
                    "image/bytes",
                )
            folder.mkdir()
            for k, member in enumerate(members):
                name = PurePosixPath(member.filename.replace("\\", "/")).name
                (folder / f"{k:03d}-{name[-80:]}").write_bytes(
                    file.open(member).read(MEGABYTES * 2**20)
                )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        raise MediaError(
            "The zip cannot be read. Pack the images anew, without a password.", "image/format"
        ) from None
    return sorted(folder.iterdir())


def listing(rows: Sequence[Row]) -> str:
    """A table of small images, best match first where there is one."""
    cells = [
        [
            small(row),
            escape(row.name),
            html.bar(row.match) if row.match is not None else html.number(row.similarity),
            escape(row.error or row.caption),
        ]
        for row in rows
    ]
    return html.table(["", "file", "match", "caption"], cells, "collection")


def small(row: Row) -> str:
    """The small image of a row that could be read."""
    if row.error or not row.thumbnail:
        return "–"
    return f'<img src="{row.thumbnail}" alt="{escape(row.name)}" loading="lazy">'


def written(rows: Sequence[Row]) -> list[str]:
    """CSV and JSONL files of the rows."""
    folder = Path(tempfile.mkdtemp(dir=results_folder()))
    values = [row.to_dict() for row in rows]
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    made = {"collection.csv": csv_text(values), "collection.jsonl": lines}
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8-sig" if name.endswith("csv") else "utf-8")
    return [str(folder / name) for name in made]
