"""The house rules, read off the source: who may import whom, how long things get, what never stands
in the repository.

Each check is a function of a root folder that returns findings, one line each, so that planted
violations can test it.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tree import ROOT, repository_files

MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 70  # without the docstring


@dataclass(frozen=True)
class Rule:
    """No module under `where` (a file or folder) imports a module under one of `never`, but for
    those in `allowed`."""

    where: tuple[str, ...]
    never: tuple[str, ...]
    allowed: tuple[str, ...] = ()


RULES = (
    Rule(("x2vlm",), ("app", "train", "gradio", "accelerate")),
    Rule(("app", "app.py"), ("torch", "train")),
    Rule(("train",), ("app", "gradio")),
    Rule(("x2vlm/config.py",), ("x2vlm",), allowed=("x2vlm.errors",)),
    Rule(("x2vlm/losses.py", "x2vlm/inference/generation.py"), ("x2vlm.modeling", "PIL")),
    Rule(
        ("x2vlm/modeling",),
        (
            "x2vlm.processing",
            "x2vlm.checkpoint",
            "x2vlm.media",
            "x2vlm.inference.explain",
            "x2vlm.stickers",
        ),
    ),
    Rule(("x2vlm/stickers",), ("torch", "x2vlm.modeling")),
    Rule(("train/data", "train/metrics"), ("x2vlm.modeling",)),
    Rule(("train/trainer.py",), ("train.tasks",), allowed=("train.tasks.base",)),
)
# The predictor is the only top: nothing beneath it knows it.
TOP = Rule(("x2vlm",), ("x2vlm.inference.predictor", "x2vlm.cli"))
ABOVE_TOP = {
    "x2vlm/__init__.py",
    "x2vlm/__main__.py",
    "x2vlm/cli.py",
    "x2vlm/inference/predictor.py",
}

# Optional packages that a host brings along; imported only where they are found.
BROUGHT_BY_HOST = {"spaces"}
OUR_PACKAGES = {"app", "benchmarks", "tests", "train", "x2vlm"}

FORBIDDEN_TEXT = re.compile(
    r"/wor[k]/|/roo[t]/|pypi\.or[g]/simple|pythonhosted\.or[g]|/opt/pyp[i]|--(?:extra-)?index-ur[l]|--find-link[s]"
)


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    name: str  # dotted, `from a.b import c` is a.b.c
    at_top: bool

    def is_under(self, prefixes: tuple[str, ...]) -> bool:
        return any(self.name == prefix or self.name.startswith(prefix + ".") for prefix in prefixes)


def python_files(root: Path) -> list[str]:
    return [str(path) for path in repository_files(root) if path.suffix == ".py"]


def parse(root: Path, file: str) -> ast.Module:
    return ast.parse((root / file).read_text(encoding="utf-8"), filename=file)


def imports(root: Path, file: str) -> Iterator[Import]:
    module = parse(root, file)
    package = list(Path(file).parent.parts)
    for node in ast.walk(module):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join(base + ([node.module] if node.module else []))
            names = [f"{source}.{alias.name}" for alias in node.names]
        for name in names:
            yield Import(file, node.lineno, name, at_top=node in module.body)


def forbidden_imports(root: Path) -> list[str]:
    findings = []
    for file in python_files(root):
        rules = [
            rule
            for rule in RULES
            if any(file == where or file.startswith(where + "/") for where in rule.where)
        ]
        if file.startswith("x2vlm/") and file not in ABOVE_TOP:
            rules.append(TOP)
        for found in imports(root, file):
            if any(
                found.is_under(rule.never) and not found.is_under(rule.allowed) for rule in rules
            ):
                findings.append(f"{file}:{found.line} imports {found.name}")
    return findings


def undeclared_imports(root: Path) -> list[str]:
    """Third-party imports that pyproject.toml does not declare; those of x2vlm must load without
    any extra."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = names_of(project["dependencies"])
    every = core.union(*map(names_of, project["optional-dependencies"].values()))
    owners = packages_distributions()

    findings = []
    for file in python_files(root):
        for found in imports(root, file):
            package = found.name.partition(".")[0]
            if package in sys.stdlib_module_names | OUR_PACKAGES | BROUGHT_BY_HOST:
                continue
            declared = core if found.at_top and file.startswith("x2vlm/") else every
            if not declared.intersection(
                canonicalize_name(owner) for owner in owners.get(package, [package])
            ):
                findings.append(
                    f"{file}:{found.line} imports {package}, which pyproject.toml does not declare "
                    f"for it"
                )
    return findings


def names_of(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def oversized(root: Path) -> list[str]:
    findings = []
    for file in python_files(root):
        if not file.startswith("x2vlm/"):
            continue
        lines = len((root / file).read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            findings.append(f"{file} has {lines} lines, more than {MAX_FILE_LINES}")
        for node in ast.walk(parse(root, file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
                if length > MAX_FUNCTION_LINES:
                    findings.append(
                        f"{file}:{node.lineno} {node.name} has {length} lines, more than "
                        f"{MAX_FUNCTION_LINES}"
                    )
    return findings


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0


def machine_traces(root: Path) -> list[str]:
    findings = []
    for file in repository_files(root):
        try:
            text = (root / file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if found := FORBIDDEN_TEXT.search(line):
                findings.append(f"{file}:{number} names {found[0]}")
    return findings


def lint(root: Path) -> list[str]:
    """What Ruff finds: prints, bare excepts, unfinished or commented-out code, missing docstrings,
    style."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    return [] if result.returncode == 0 else result.stdout.splitlines()


Check = Callable[[Path], list[str]]


@pytest.mark.parametrize(
    "check", [forbidden_imports, undeclared_imports, oversized, machine_traces, lint]
)
def test_repository_keeps_the_rule(check: Check):
    findings = check(ROOT)
    assert not findings, "\n".join(findings)


PLANTED = [
    (forbidden_imports, "x2vlm/boxes.py", "from app import build_demo"),
    (forbidden_imports, "x2vlm/boxes.py", "def late():\n    import train.trainer"),
    (forbidden_imports, "x2vlm/hub.py", "from .inference.predictor import Predictor"),
    (forbidden_imports, "x2vlm/config.py", "from . import boxes"),
    (forbidden_imports, "x2vlm/losses.py", "from x2vlm.modeling.layers import Attention"),
    (forbidden_imports, "x2vlm/modeling/heads.py", "from ..checkpoint import load"),
    (forbidden_imports, "x2vlm/stickers/render.py", "import torch.nn"),
    (forbidden_imports, "app/handlers.py", "from torch import nn"),
    (forbidden_imports, "app.py", "import train"),
    (forbidden_imports, "train/log.py", "import gradio"),
    (forbidden_imports, "train/data/shards.py", "from x2vlm.modeling import X2VLM"),
    (forbidden_imports, "train/metrics/recall.py", "import x2vlm.modeling"),
    (forbidden_imports, "train/trainer.py", "from train.tasks import captioning"),
    (undeclared_imports, "train/data/words.py", "import nltk"),
    (undeclared_imports, "x2vlm/media.py", "import decord"),
    (oversized, "x2vlm/long.py", "x = 1\n" * 421),
    (oversized, "x2vlm/long.py", "def long():\n" + "    x = 1\n" * 70),
    (machine_traces, "train/configs/run.yaml", "data: /roo" + "t/data"),
    (machine_traces, "requirements.txt", "--index-ur" + "l https://example.org"),
    (lint, "x2vlm/boxes.py", '"""Boxes."""\n\nprint(1)'),
    (lint, "x2vlm/boxes.py", '"""Boxes."""\n\n\ndef area(box):\n    return box'),
    (lint, "x2vlm/boxes.py", "area = 1"),
    (lint, "train/log.py", '"""Logs."""\n\n# TO' + "DO: write them"),
    (lint, "train/log.py", '"""Logs."""\n\n# write' + "(1)"),
    (lint, "app/demo.py", '"""Demo."""\n\ntry:\n    x = 1\nexcept:\n    pass'),
]


@pytest.mark.parametrize(("check", "file", "source"), PLANTED)
def test_check_sees_a_planted_violation(check: Check, file: str, source: str, tmp_path: Path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert check(tmp_path) == []
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source + "\n", encoding="utf-8")
    assert [line for line in check(tmp_path) if line.startswith(file)]


LAWFUL = [
    ("x2vlm/cli.py", "from x2vlm.inference.predictor import Predictor"),
    ("x2vlm/config.py", "from x2vlm.errors import ConfigError"),
    ("x2vlm/media.py", "def trusted():\n    import decord"),
    ("train/trainer.py", "from train.tasks.base import Task"),
    ("train/pretrain.py", "import accelerate\nfrom x2vlm.modeling import X2VLM"),
    ("app/demo.py", "import gradio\nfrom x2vlm import Predictor"),
]


@pytest.mark.parametrize(("file", "source"), LAWFUL)
def test_checks_let_the_lawful_pass(file: str, source: str, tmp_path: Path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source + "\n", encoding="utf-8")
    assert forbidden_imports(tmp_path) + undeclared_imports(tmp_path) == []


def test_requirements_agree_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(
        project["dependencies"] + project["optional-dependencies"]["demo"]
    )


def test_every_requirement_is_bounded_on_both_sides():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for text in group:
            operators = {clause.operator for clause in Requirement(text).specifier}
            assert operators & {">=", "~=", "=="} and operators & {"<", "~=", "=="}, (
                f"{text} is not bounded"
            )


def test_package_imports_without_the_app_and_the_training_packages():
    blocked = ("gradio", "accelerate", "jsonargparse", "tensorboard", "train", "app")
    program = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport x2vlm"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
