"""Every refusal that a user can meet: one or two sentences (what, why, how to fix it) and a stable
code for programs.

`str(error)` ends with the code in brackets, for example `scan.png: 13000 x 13000 = 169 Mpixel; the
limit is 50. Make it smaller and send it again. [image/pixels]`. Messages never carry absolute
paths, addresses or another library's text.
"""


class X2VLMError(Exception):
    """Base of all our errors.

    Args:
        message: what is wrong, why, and how to fix it, in one or two sentences.
        code: stable `area/reason` code, for example `image/format`.
    """

    def __init__(self, message: str, code: str):
        super().__init__(f"{message} [{code}]")
        self.message = message
        self.code = code

    def __reduce__(self):
        return type(self), (self.message, self.code)


class MediaError(X2VLMError):
    """An image or video that cannot be used; codes `image/*` and `video/*`."""


class TextError(X2VLMError):
    """A text that cannot be used; codes `text/*`."""


class ParameterError(X2VLMError, ValueError):
    """A number, box or option outside its range; codes `param/*` and `box/*`."""


class CheckpointError(X2VLMError):
    """A weights file or model name that cannot be used; codes `ckpt/*`."""


class ConfigError(X2VLMError, ValueError):
    """A configuration that cannot be used; codes `config/*`."""


class DataError(X2VLMError):
    """A training file or sample that cannot be used; codes `data/*`."""


class Cancelled(X2VLMError):
    """The caller asked to stop; code `job/cancelled`."""
