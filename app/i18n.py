"""The page's texts, one file a language in `locales`. Results of the model are not translated.

Labels go through `gr.I18n`. Our own HTML carries all languages and shows the page's (`theme.css`
picks by `html[lang]`). Sentences of the moment, such as errors and stages of work, are in the
language that the request asks for, which a visitor may switch in the settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

LANGUAGES = ("en", "ko", "zh")
FOLDER = Path(__file__).resolve().parent / "locales"


def load_locale(language: str) -> dict[str, Any]:
    """Key -> text; a list in the file is a text of several lines. `errors` maps codes of errors to
    their sentence; English, and a code without one, has the error's own message."""
    texts = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return {key: "\n".join(text) if isinstance(text, list) else text for key, text in texts.items()}


LOCALES = {language: load_locale(language) for language in LANGUAGES}
ERRORS: dict[str, dict[str, str]] = {
    language: texts.pop("errors", {}) for language, texts in LOCALES.items()
}
# Key -> texts in the order of `LANGUAGES`; a missing one is English until its test has failed.
TEXT: dict[str, tuple[str, ...]] = {
    key: tuple(LOCALES[language].get(key, text) for language in LANGUAGES)
    for key, text in LOCALES["en"].items()
}

PREFIX = "x2_"  # apart from Gradio's own keys
VARIANTS = {"en": ("en",), "ko": ("ko", "ko-KR"), "zh": ("zh", "zh-CN", "zh-TW")}
I18N = gr.I18n(
    **{
        variant: {PREFIX + key: texts[k] for key, texts in TEXT.items()}
        for k, language in enumerate(LANGUAGES)
        for variant in VARIANTS[language]
    }
)


def language(headers: Mapping[str, str] | None = None) -> int:
    """Number of the language that a request's headers ask for, by default those of the present
    event; English without a request."""
    request = LocalContext.request.get(None)
    wanted = (headers or getattr(request, "headers", {})).get("accept-language", "").lower()
    return next((k for k, spoken in enumerate(LANGUAGES) if wanted.startswith(spoken)), 0)


def t(key: str) -> Any:
    """The text of a label, button or tab, which Gradio translates in the browser."""
    if key not in TEXT:
        raise KeyError(key)
    return I18N(PREFIX + key)


def say(key: str, **values: Any) -> str:
    """The text as HTML in all languages; `values` are escaped."""
    texts = (
        template.format(**{k: escape(str(v)) for k, v in values.items()}) for template in TEXT[key]
    )
    return (
        '<span class="l">'
        + "".join(f'<span lang="{lang}">{text}</span>' for lang, text in zip(LANGUAGES, texts))
        + "</span>"
    )


def now(key: str, **values: Any) -> str:
    """The text in the language of the present event, not escaped."""
    return TEXT[key][language()].format(**values)
