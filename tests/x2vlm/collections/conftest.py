"""Folders of small images, and the command on the tiny model."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from x2vlm.cli import main


@pytest.fixture(scope="session")
def make_images():
    """Write `count` images of noise into a folder, `000.png` and so on."""

    def make(folder, count, seed=0):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((48, 32), Image.Resampling.BICUBIC)
            image.save(folder / f"{number:03}.png")
        return folder

    return make


@pytest.fixture
def run(tiny_folder, capsys):
    """Run a command on the tiny model: exit code, standard output, standard error."""

    def call(*arguments):
        code = main([*map(str, arguments), "--model", str(tiny_folder)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def start(tiny_folder):
    """Start the command in a process of its own."""

    def call(*arguments):
        command = [sys.executable, "-m", "x2vlm", *map(str, arguments)]
        return subprocess.Popen(
            [*command, "--model", str(tiny_folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    return call


def png(seed=0):
    """Bytes of an image."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
