"""What the browser tests do on the page."""

from __future__ import annotations

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
