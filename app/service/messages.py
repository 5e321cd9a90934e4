"""Errors in the visitor's language: one general sentence per code. The English text has the
details and stands in for a language that lacks the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from x2vlm.errors import X2VLMError

from ..i18n import ERRORS, LANGUAGES, language
from .gradio_patches import current_headers

CRASHED = X2VLMError(
    "Something broke on the server and was logged; nothing of yours is lost. Try again.",
    "job/crashed",
)
FROM_PAGE = "x-from-page"
CODE = re.compile(r" \[[a-z]+/[\w-]+\]$")  # at the end of a message for callers of the API


def message(error: X2VLMError, headers: Mapping[str, str] | None = None) -> str:
    """What the visitor reads, in the language of the request (by default the present event's): the
    sentence, and for callers of the API the code in brackets.

    The page's own requests have the header `X-From-Page`.
    """
    headers = current_headers() if headers is None else headers
    sentence = ERRORS[LANGUAGES[language(headers)]].get(error.code, error.message)
    return sentence if FROM_PAGE in headers else f"{sentence} [{error.code}]"


def complaint(
    rule: Callable[[Any], Any] | None, value: Any, headers: Mapping[str, str] | None = None
) -> str:
    """What a rule has against a value, in the language of the request; nothing where it has
    nothing."""
    try:
        if rule is not None:
            rule(value)
    except X2VLMError as error:
        return message(error, headers)
    return ""
