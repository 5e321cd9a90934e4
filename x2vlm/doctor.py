"""What is installed, what is cached, and what may cause trouble: the findings of `x2vlm doctor`."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from pathlib import Path
from typing import Any

from x2vlm.serving import SMALL_MODEL, plan_concurrency

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "huggingface_hub",
    "numpy",
    "pillow",
    "av",
    "grad-cam",
    "gradio",
)
OPENCV_BUILDS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def examine() -> dict[str, Any]:
    """Findings as plain JSON values; `warnings` are sentences for the user."""
    import torch

    from x2vlm import hub

    opencv = {name: version for name in OPENCV_BUILDS if (version := _version(name))}
    warnings = []
    if len(opencv) > 1:
        warnings.append(
            f"Several OpenCV builds overwrite each other: {', '.join(opencv)}. Keep "
            f"opencv-python-headless alone."
        )
    if not opencv:
        warnings.append("OpenCV is missing; image-gradcam needs opencv-python-headless.")
    bundled = {name: hub.bundled_dir(name) is not None for name in hub.BUNDLED}
    warnings += [
        f"The bundled checkpoint {name} is not here; give --model a name or a path."
        for name, here in bundled.items()
        if not here
    ]
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {
        "x2vlm": _version("x2vlm"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "opencv": opencv,
        "ffmpeg": shutil.which("ffmpeg") is not None,
        "device": "cuda" if gpus else "cpu",
        "gpus": gpus,
        "serving": {
            f"{size} models": str(plan_concurrency(parameters, "cuda" if gpus else "cpu"))
            for size, parameters in (("small", 0), ("large", SMALL_MODEL))
        },
        "cpu": {
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
        "bundled": bundled,
        "cached_checkpoints": [
            name for name, known in hub.KNOWN.items() if (hub.cache_dir() / known.file).is_file()
        ],
        "warnings": warnings,
    }


def verified(folder: str) -> dict[str, Any]:
    """The SHA-256 of a folder's weights, once it is found to be the recorded one.

    Raises:
        CheckpointError: see `x2vlm.checkpoint.digest.verify`.
    """
    from x2vlm.checkpoint.digest import verify

    return {"sha256": verify(Path(folder)), "warnings": []}


def told(findings: dict[str, Any]) -> str:
    """The findings as lines to read."""
    lines = []
    for name, value in findings.items():
        if name == "warnings":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item or 'missing'}" for key, item in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        lines.append(f"{name.replace('_', ' ')}: {value or 'none'}")
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in findings["warnings"])])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
