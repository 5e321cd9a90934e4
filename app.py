"""Entry for Spaces and `python app.py`: flags -> Predictor -> build_demo -> serve. Nothing here is
for import."""

import argparse
import os
import sys


def load(name: str):
    """The Predictor of a name or path."""
    from x2vlm.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(name, allow_extra=flags.allow_extra)
    if left_out := predictor.info.left_out:
        print(f"Left out of {name}: {', '.join(left_out)}", file=sys.stderr)
    return predictor


parser = argparse.ArgumentParser(
    description="X²-VLM: describe, ask, find, inspect and match, in pictures and video"
)
parser.add_argument(
    "--model",
    default=os.environ.get("X2VLM_MODEL"),
    help="name or path, several with commas; the bundled ones by default",
)
parser.add_argument("--port", type=int, default=None, help="7860 by default")
parser.add_argument("--share", action="store_true", help="a public link through Gradio's servers")
parser.add_argument(
    "--allow-extra",
    action="store_true",
    help="leave out weights of a checkpoint that the model has no place for, and list them",
)
parser.add_argument("--offline", action="store_true", help="never download a checkpoint")
parser.add_argument(
    "--mcp", action="store_true", help="offer the endpoints as MCP tools (needs gradio[mcp])"
)
for name, what in (("workers", "model calls at a time"), ("threads", "torch threads of each call")):
    parser.add_argument(
        f"--{name}",
        type=int,
        default=None,
        help=f"{what}; by default what fits model and machine, see `x2vlm doctor`",
    )
flags = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])
if flags.offline:
    os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is imported

from app import build_demo  # noqa: E402
from app.service.server import is_public, serve  # noqa: E402
from x2vlm.hub import BUNDLED  # noqa: E402

demo = build_demo(
    load,
    tuple(flags.model.split(",")) if flags.model else BUNDLED,
    open_choice=not is_public(flags.share),
    workers=flags.workers,
    threads=flags.threads,
)

if __name__ == "__main__":
    serve(demo, port=flags.port, share=flags.share, mcp=flags.mcp)
