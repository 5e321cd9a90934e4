"""An endpoint of Gradio alone, which takes the same upload as ours and answers with its size: what
a call costs without us. `python -m benchmarks.bare_gradio --port PORT`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gradio as gr


def size(media: gr.FileData) -> dict[str, Any]:
    """Bytes of an uploaded file."""
    return {"bytes": Path(media["path"]).stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.api(size, api_name="size")
    demo.launch(server_port=parser.parse_args().port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main()
