"""The wheel holds x2vlm alone, and what it installs answers in an environment of its own."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.tree import ROOT, repository_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the repository's files, so that the tree stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for file in repository_files(ROOT):
        if file.parts[0] in {"x2vlm", "train", "app", "assets"} or len(file.parts) == 1:
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).symlink_to(ROOT / file)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = subprocess.run([*pip, "--wheel-dir", out, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of an environment that holds the wheel; other packages are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    folder = next(home.glob("lib/python*/site-packages"))
    (folder / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_wheel_holds_no_other_package(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.startswith("x2vlm-")} == {"x2vlm"}


def test_installed_command_answers_with_the_bundled_model(installed, tmp_path):
    command = [installed / "bin" / "x2vlm", "caption", ROOT / "assets/examples/scene.png"]
    done = subprocess.run(
        [*command, "--model", "mini"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3


def test_installed_demo_says_where_the_app_is(installed, tmp_path):
    command = [installed / "bin" / "x2vlm", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "python app.py" in done.stderr
