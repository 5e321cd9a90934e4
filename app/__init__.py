"""The Gradio skin over `x2vlm.Predictor`: one stage, many lenses."""

import atexit
import os
import shutil
import tempfile

if not os.environ.get(
    "GRADIO_TEMP_DIR"
):  # Gradio's default, which it takes when it is imported, is shared by all apps
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="x2vlm-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

from .demo import build_demo

__all__ = ["build_demo"]
