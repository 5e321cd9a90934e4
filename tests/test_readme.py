"""README.md is true: its tree, its commands, its front matter, and its snippets, which are run."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import metadata_load
from packaging.requirements import Requirement

from tests import tree
from x2vlm import hub

ROOT = tree.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A block after `<!-- run: PATH -->` is run where PATH exists.
SNIPPETS = re.findall(
    r"^<!-- run: (\S+) -->\n```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
)
COMMANDS = "\n".join(re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))


def snippets(language: str) -> list:
    marked = [(path, text) for path, found, text in SNIPPETS if found == language]
    return [
        pytest.param(
            text, marks=pytest.mark.skipif(not (ROOT / path).exists(), reason=f"{path} is not here")
        )
        for path, text in marked
    ]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder in which the repository's assets can be named as in the README and outputs do
    no harm."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tree_names_what_is_there():
    advice = tree.advice(ROOT)
    assert not advice, "\n".join(
        ["README's file tree differs; `python -m tests.tree --write` repairs it:", *advice]
    )


def test_tree_check_sees_a_missing_and_a_stale_entry_and_repairs_them(tmp_path):
    (tmp_path / "x2vlm").mkdir()
    (tmp_path / "x2vlm" / "__init__.py").write_text('"""The package."""\n')
    (tmp_path / "README.md").write_text(
        "<!-- tree -->\n```text\n├── README.md  this page\n└── gone.py    no longer "
        "here\n```\nafter\n"
    )
    missing, stale = tree.problems(tmp_path)
    assert missing == {"x2vlm": "The package"}
    assert stale == ["gone.py"]

    tree.repair(tmp_path)
    assert tree.problems(tmp_path) == ({}, [])
    assert (tmp_path / "README.md").read_text().splitlines()[2:5] == [
        "├── README.md  this page",
        "└── x2vlm/     The package",
        "```",
    ]


def test_front_matter_is_what_spaces_reads():
    card = metadata_load(ROOT / "README.md")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gradio = Requirement(project["optional-dependencies"]["demo"][0])
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}

    assert card["sdk"] == "gradio" and gradio.specifier.contains(card["sdk_version"])
    assert card["python_version"] in {"3.11", "3.12", "3.13"}
    assert card["license"] == project["license"].lower()
    assert {card["colorFrom"], card["colorTo"]} <= colors
    assert len(card["short_description"]) <= 60
    assert card["title"] and card["emoji"] and card["tags"]
    assert (ROOT / card["app_file"]).is_file()


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"^make ([\w-]+)", COMMANDS, re.MULTILINE)))
)
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "module",
    sorted(set(re.findall(r"python -m (\w[\w.]*\w)", README)) - set(sys.stdlib_module_names)),
)
def test_modules_can_be_run(module):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"--config (\S+)", COMMANDS))))
def test_configurations_exist(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"\]\((?!https?:|#)([^)]+)\)|src=\"(?!https?:)([^\"]+)\"", README))),
)
def test_links_lead_somewhere(path):
    assert (ROOT / "".join(path)).exists()


@pytest.mark.parametrize("text", snippets("python"))
def test_python_snippet_runs(text, workplace, capsys):
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip(), "the snippet shows nothing"


@pytest.mark.parametrize("text", snippets("bash"))
def test_command_lines_run(text, workplace, monkeypatch, capsys):
    from x2vlm.cli import main

    commands = [shlex.split(line, comments=True) for line in text.splitlines()]
    for command in filter(None, commands):
        assert command[0] == "x2vlm", f"only x2vlm commands are run here: {shlex.join(command)}"
        monkeypatch.setattr(sys, "argv", command)
        try:
            status = main()
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        assert not status, f"{shlex.join(command)} ended with {status}:\n{captured.err}"
        assert captured.out.strip(), f"{shlex.join(command)} printed nothing"


def test_five_lines_of_python_and_the_command_line_are_among_the_snippets():
    languages = [language for _, language, _ in SNIPPETS]
    assert languages.count("python") == 1 and languages.count("bash") == 1


def test_every_checkpoint_with_a_link_is_in_the_table():
    listed = set(re.findall(r"`(\w+)`", README))
    missing = {name for name, known in hub.KNOWN.items() if known.downloadable} - listed
    assert not missing


def test_contributing_names_places_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:app|x2vlm|train|tests)/[^`]*)`", text)
    gone = [
        place for place in named if not any(ROOT.glob(re.sub(r"<[^>]*>", "*", place.rstrip("/"))))
    ]
    assert named and not gone
