"""Keeps the file tree of README.md true: `python -m tests.tree` lists what is missing or stale, `--write` repairs it.

The tree is the code block after the line `<!-- tree -->`, one path and one phrase a line. Written repairs keep the phrases
that are there and take those of new files from the first line of their docstring.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
COMPLETE = ("", "x2vlm", "x2vlm/modeling", "app", "train")  # folders whose every entry must stand in the tree
UNLISTED = {"__init__.py", "__main__.py", ".gitignore", ".gitattributes"}
NO_PHRASE = "?"

_BLOCK = re.compile(r"(?<=<!-- tree -->\n```text\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"((?:│   |    )*)[├└]── (\S+)(?:\s+(.*))?$")


def repository_files(root: Path) -> list[PurePosixPath]:
    """Files that belong to the repository, relative to `root`: Git's answer, or all but caches where there is no Git."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if "__pycache__" not in path.parts]
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


def expected(root: Path) -> dict[str, str]:
    """Path -> suggested phrase of everything that must stand in the tree."""
    paths: dict[str, str] = {}
    for file in repository_files(root):
        for path in (file, *file.parents[:-1]):
            folder = "" if path.parent == PurePosixPath(".") else str(path.parent)
            if folder in COMPLETE and path.name not in UNLISTED:
                paths[str(path)] = _phrase(root / path)
    return paths


def problems(root: Path) -> tuple[dict[str, str], list[str]]:
    """Entries that the tree lacks (with a suggested phrase), and entries that are stale or say nothing."""
    tree = parse((root / "README.md").read_text(encoding="utf-8"))
    missing = {path: phrase for path, phrase in expected(root).items() if path not in tree}
    stale = [path for path, phrase in tree.items() if not (root / path).exists() or phrase == NO_PHRASE]
    return missing, stale


def repair(root: Path) -> None:
    """Rewrite the tree in README.md: stale lines dropped, new ones added after their neighbours."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    tree = {path: phrase for path, phrase in parse(text).items() if (root / path).exists()}
    missing, _ = problems(root)
    readme.write_text(_BLOCK.sub(lambda _: _render(root, tree | missing), text), encoding="utf-8")


def _render(root: Path, tree: dict[str, str]) -> str:
    rows: list[tuple[str, str]] = []

    def visit(folder: str, indent: str) -> None:
        children = [path for path in tree if path.rpartition("/")[0] == folder]
        for path in children:
            last = path == children[-1]
            slash = "/" if (root / path).is_dir() else ""
            rows.append((f"{indent}{'└' if last else '├'}── {path.rpartition('/')[2]}{slash}", tree[path]))
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
    missing, stale = problems(ROOT)
    print(*[f"add     {path}  {phrase}" for path, phrase in missing.items()], sep="\n")
    print(*[f"repair  {path}  (gone, or without a phrase)" for path in stale], sep="\n")
    sys.exit(bool(missing or stale))
