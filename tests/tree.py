"""Keeps the file tree of README.md true: `python -m tests.tree` lists what is missing or stale,
`--write` repairs it.

The tree is the code block after the line `<!-- tree -->`, one path and one phrase a line. Written
repairs keep the phrases that are there and take those of new files from the first line of their
docstring.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
COMPLETE = ("",)  # folders whose every folder must stand in the tree
UNLISTED = {".ci", ".github"}
NO_PHRASE = "?"

_CACHES = {"__pycache__", ".venv"}

_BLOCK = re.compile(r"(?<=<!-- tree -->\n```text\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"((?:│   |    )*)[├└]── (\S+)(?:\s+(.*))?$")


def repository_files(root: Path) -> list[PurePosixPath]:
    """Files that belong to the repository, relative to `root`: Git's answer, or all but caches
    where there is no Git."""
    if (root / ".git").exists():
        command = [
            "git",
            "-C",
            str(root),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(
            "\0"
        )
    else:
        names = [
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if not _CACHES.intersection(path.parts)
        ]
    return sorted({PurePosixPath(name) for name in names if name and (root / name).is_file()})


def parse(readme: str) -> dict[str, str]:
    """Path -> phrase of the tree in a README; folders without the closing slash."""
    tree: dict[str, str] = {}
    folders: list[str] = []
    for line in _BLOCK.search(readme)[0].splitlines():
        if found := _LINE.match(line):
            indent, name, phrase = found.groups()
            folders[len(indent) // 4 :] = [name.rstrip("/")]
            tree["/".join(folders)] = phrase or NO_PHRASE
    return tree


def existing(root: Path) -> list[str]:
    """Files and folders of the repository, relative to `root`; a folder without files does not
    count."""
    files = repository_files(root)
    return sorted({str(path) for file in files for path in (file, *file.parents[:-1])})


def problems(root: Path) -> tuple[dict[str, str], list[str]]:
    """Entries that the tree lacks (path -> suggested phrase), and entries that are gone or say
    nothing."""
    tree, paths = parse((root / "README.md").read_text(encoding="utf-8")), existing(root)
    must = [
        path
        for path in paths
        if (root / path).is_dir()
        and path.rpartition("/")[0] in COMPLETE
        and path.rpartition("/")[2] not in UNLISTED
    ]
    missing = {path: _phrase(root / path) for path in must if path not in tree}
    return missing, [
        path for path, phrase in tree.items() if path not in paths or phrase == NO_PHRASE
    ]


def advice(root: Path) -> list[str]:
    """What to change in the tree, a line each; empty when it is true."""
    missing, stale = problems(root)
    added = [f"add     {path}  {phrase}" for path, phrase in missing.items()]
    return added + [f"repair  {path}  (gone, or without a phrase)" for path in stale]


def repair(root: Path) -> None:
    """Rewrite the tree in README.md: lines of what is gone are dropped, new ones added at the end
    of their folder."""
    readme, paths = root / "README.md", existing(root)
    text = readme.read_text(encoding="utf-8")
    kept = {path: phrase for path, phrase in parse(text).items() if path in paths}
    missing, _ = problems(root)
    readme.write_text(_BLOCK.sub(lambda _: _render(root, kept | missing), text), encoding="utf-8")


def _render(root: Path, tree: dict[str, str]) -> str:
    rows: list[tuple[str, str]] = []

    def visit(folder: str, indent: str) -> None:
        children = [path for path in tree if path.rpartition("/")[0] == folder]
        for path in children:
            last = path == children[-1]
            slash = "/" if (root / path).is_dir() else ""
            rows.append(
                (f"{indent}{'└' if last else '├'}── {path.rpartition('/')[2]}{slash}", tree[path])
            )
            visit(path, indent + ("    " if last else "│   "))

    visit("", "")
    width = max(len(left) for left, _ in rows) + 2
    return "".join(f"{left:{width}}{phrase}\n" for left, phrase in rows)


def _phrase(path: Path) -> str:
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix != ".py" or not source.is_file():
        return NO_PHRASE
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or NO_PHRASE
    return docstring.splitlines()[0].partition(". ")[0].rstrip(".:")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        repair(ROOT)
    for line in advice(ROOT):
        print(line)
    sys.exit(bool(advice(ROOT)))
