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

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60  # without the docstring
PACKAGES = ("x2vlm", "train", "app")


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
    Rule(("x2vlm/modeling",), ("x2vlm.processing", "x2vlm.media", "x2vlm.stickers")),
    Rule(("x2vlm/checkpoint",), ("x2vlm.modeling",)),
    Rule(("x2vlm/stickers",), ("torch",)),
    Rule(("train/data", "train/metrics"), ("x2vlm.modeling", "x2vlm.inference")),
    Rule(("train/trainer.py",), ("train.tasks",), allowed=("train.tasks.base",)),
)
# x2vlm from the ground up: no file imports one of a later layer.
LAYERS = (
    ("x2vlm/errors.py",),
    (
        "x2vlm/config.py",
        "x2vlm/presets.py",
        "x2vlm/boxes.py",
        "x2vlm/checks.py",
        "x2vlm/results.py",
        "x2vlm/options.py",
        "x2vlm/texts.py",
        "x2vlm/detokenize.py",
    ),
    (
        "x2vlm/batch_norm.py",
        "x2vlm/losses.py",
        "x2vlm/metrics.py",
        "x2vlm/caption_metrics.py",
        "x2vlm/media",
        "x2vlm/stickers",
        "x2vlm/processing.py",
        "x2vlm/settings.py",
        "x2vlm/known.py",
        "x2vlm/hub.py",
        "x2vlm/serving.py",
        "x2vlm/visualize.py",
    ),
    ("x2vlm/checkpoint",),
    ("x2vlm/modeling",),
    ("x2vlm/inference",),
    ("x2vlm/collections",),
    ("x2vlm/inspection", "x2vlm/hf"),
    ("x2vlm/doctor.py", "x2vlm/cli", "x2vlm/__main__.py"),
)

# Loaded by those alone who installed its extra.
NEEDS_EXTRA = ("x2vlm/collections/ray_engine.py",)
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
        for found in imports(root, file):
            if any(
                found.is_under(rule.never) and not found.is_under(rule.allowed) for rule in rules
            ):
                findings.append(f"{file}:{found.line} imports {found.name}")
    return findings


def target(root: Path, name: str) -> str | None:
    """The file of the repository that an import reads, None for other packages."""
    parts = name.split(".")
    for end in (len(parts), len(parts) - 1):
        path = "/".join(parts[:end])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if path and (root / file).is_file():
                return file
    return None


def layer(file: str) -> int | None:
    """Number of the layer that a file of x2vlm belongs to; None for `x2vlm/__init__.py`, which
    loads its names when they are first used."""
    for number, places in enumerate(LAYERS):
        if any(file == place or file.startswith(place + "/") for place in places):
            return number
    return None


def climbing_imports(root: Path) -> list[str]:
    findings = []
    for file in python_files(root):
        if not file.startswith("x2vlm/") or file == "x2vlm/__init__.py":
            continue
        if layer(file) is None:
            findings.append(f"{file} has no place in LAYERS")
            continue
        for found in imports(root, file):
            read = target(root, found.name)
            if read and (layer(read) or 0) > layer(file):
                findings.append(f"{file}:{found.line} imports {found.name} of a later layer")
    return findings


def circles(root: Path) -> list[str]:
    """Groups of files that import each other; imports inside functions and under TYPE_CHECKING
    count."""
    graph = {
        file: {read for found in imports(root, file) if (read := target(root, found.name))} - {file}
        for file in python_files(root)
        if file.startswith(tuple(f"{package}/" for package in PACKAGES))
    }
    reached = {file: reachable(graph, file) for file in graph}
    groups = {
        frozenset(other for other in reached[file] if file in reached.get(other, ()))
        for file in graph
    }
    return [" <-> ".join(sorted(group)) for group in groups if group]


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for file in graph.get(waiting.pop(), ()):
            if file not in found:
                found.add(file)
                waiting.append(file)
    return found


def tabs_that_import_tabs(root: Path) -> list[str]:
    return [
        f"{file}:{found.line} imports {found.name}, another tab"
        for file in python_files(root)
        if file.startswith("app/tabs/") and not file.endswith("__init__.py")
        for found in imports(root, file)
        if (target(root, found.name) or "").startswith("app/tabs/")
    ]


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
            always = found.at_top and file.startswith("x2vlm/") and file not in NEEDS_EXTRA
            declared = core if always else every
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
        if not file.startswith(tuple(f"{package}/" for package in PACKAGES)):
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


CHECKS: tuple[Check, ...] = (
    forbidden_imports,
    climbing_imports,
    circles,
    tabs_that_import_tabs,
    undeclared_imports,
    oversized,
    machine_traces,
    lint,
)


@pytest.mark.parametrize("check", CHECKS)
def test_repository_keeps_the_rule(check: Check):
    findings = check(ROOT)
    assert not findings, "\n".join(findings)


PLANTED = [
    (forbidden_imports, "x2vlm/boxes.py", "from app import build_demo"),
    (forbidden_imports, "x2vlm/boxes.py", "def late():\n    import train.trainer"),
    (forbidden_imports, "x2vlm/modeling/heads.py", "from ..processing import Processor"),
    (forbidden_imports, "x2vlm/checkpoint/load.py", "from x2vlm.modeling import build"),
    (climbing_imports, "x2vlm/nowhere.py", "x = 1"),
    (forbidden_imports, "x2vlm/stickers/render.py", "import torch.nn"),
    (forbidden_imports, "app/handlers.py", "from torch import nn"),
    (forbidden_imports, "app.py", "import train"),
    (forbidden_imports, "train/log.py", "import gradio"),
    (forbidden_imports, "train/data/shards.py", "from x2vlm.modeling import X2VLM"),
    (forbidden_imports, "train/metrics/recall.py", "import x2vlm.modeling"),
    (forbidden_imports, "train/trainer.py", "from train.tasks import captioning"),
    (undeclared_imports, "train/data/words.py", "import nltk"),
    (undeclared_imports, "x2vlm/media.py", "import imageio"),
    (oversized, "x2vlm/long.py", "x = 1\n" * 401),
    (oversized, "x2vlm/long.py", "def long():\n" + "    x = 1\n" * 60),
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


PLANTED_PAIRS = [
    (climbing_imports, "x2vlm/boxes.py", "import x2vlm.cli", "x2vlm/cli/__init__.py", ""),
    (circles, "train/a.py", "from train import b", "train/b.py", "def late():\n    import train.a"),
    (
        circles,
        "app/a.py",
        "from .b import B",
        "app/b.py",
        "if TYPE_CHECKING:\n    from app import a",
    ),
    (tabs_that_import_tabs, "app/tabs/ask.py", "from . import find", "app/tabs/find.py", ""),
]


@pytest.mark.parametrize(("check", "file", "source", "other", "other_source"), PLANTED_PAIRS)
def test_check_sees_a_planted_pair(check, file, source, other, other_source, tmp_path: Path):
    for name, text in ((file, source), (other, other_source)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    assert len(check(tmp_path)) == 1


LAWFUL = [
    ("x2vlm/cli/command.py", "from x2vlm.inference.predictor import Predictor"),
    ("x2vlm/config.py", "from x2vlm.errors import ConfigError"),
    ("x2vlm/media.py", "def lazily():\n    import av"),
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
