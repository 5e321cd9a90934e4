"""What the browser tests do on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.i18n import LOCALES

TOP = "element => element.getBoundingClientRect().top + window.scrollY"


def source(page) -> str:
    """The image on the stage."""
    return page.locator("#canvas img").get_attribute("src")


def wait_for_change(page, before: str) -> str:
    page.wait_for_function(
        "before => { const src = document.querySelector('#canvas img').src; return "
        "src.startsWith('data') && src !== before }",
        arg=before,
    )
    return source(page)


def wait_for_size(page, width: int, height: int) -> None:
    """Until an image or video of this size is on the stage, with nothing asked of it."""
    page.wait_for_function(
        f"document.querySelector('#canvas img').alt.includes('{width} × {height}')"
    )


def open_tab(page, name: str) -> None:
    page.locator(f"#tab-{name}-button").click()
    page.locator(f"#tab-{name}").wait_for()


def empty_uploader(page) -> None:
    page.locator("#upload-image .icon-button-wrapper button").first.click()
    page.locator("#upload-image input[type=file]").wait_for(state="attached")


def choose(page, path, kind: str = "image") -> None:
    page.locator(f"#upload-{kind} input[type=file]").set_input_files(str(path))


def upload(page, kind: str, path) -> None:
    """Choose a file in place of the present one, and wait until it is on the stage."""
    before = source(page)
    page.locator(f"#kind input[value={kind}]").check()
    page.locator(f"#upload-{kind}").wait_for()
    if kind == "image" and page.locator("#upload-image .icon-button-wrapper button").count():
        empty_uploader(page)
    choose(page, path, kind)
    wait_for_change(page, before)


def link(page) -> str:
    """The address that *Copy link* gives."""
    if not page.locator("#copy-link").is_visible():
        page.locator("#data button").first.click()
    page.locator("#copy-link").click()
    page.wait_for_function(
        "document.querySelector('#link textarea, #link input')?.value.startsWith('http')"
    )
    return page.locator("#link textarea, #link input").first.input_value()


def wait_for_phrases(page, text: str) -> None:
    """Until the field of Find holds this text."""
    page.wait_for_function(
        "text => document.querySelector('#phrases textarea').value.includes(text)", arg=text
    )


FIELDS = {"find": "phrases", "ask": "question", "inspect": "text", "match": "texts"}


@dataclass
class Visitor:
    """A page, how large it is, and the language that it speaks."""

    page: Any
    size: str
    language: str

    def says(self, key: str, **values: Any) -> str:
        """A text of the page in the visitor's language."""
        return LOCALES[self.language][key].format(**values)

    def bring_example(self) -> Any:
        """One of the two examples, which look and read the same, in place of what is there."""
        page = self.page
        first = page.locator("#upload-image img[src*='scene-2.png']").count()
        page.locator("#examples .pick").nth(0 if first else 1).click()
        name = "scene.png" if first else "scene-2.png"
        page.locator(f"#upload-image img[src*='{name}']").wait_for()
        wait_for_phrases(page, "a unicorn")
        return page

    def field(self, tab: str) -> Any:
        name = FIELDS[tab]
        return self.page.locator(f"#{name} textarea, #{name} input").first

    def write(self, tab: str, text: str) -> None:
        open_tab(self.page, tab)
        self.field(tab).fill(text)
