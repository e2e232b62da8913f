"""The map of the source, docs/reference-source.md, made from the first line of every module's docstring.

python .ci/source_tree.py            writes it
python .ci/source_tree.py --check    says whether it is true; the tests ask this
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "reference-source.md"
FOLDERS = ("src/nnduet", "examples", "benchmarks", ".ci")
HEAD = """# The source

Every module and what it is for, in its own words; made by `python .ci/source_tree.py`. Rooms import in one direction only, see
[the design](explanation-design.md). `tests/` mirrors `src/nnduet/`; `tests/faults/` injects what must be survived,
`tests/matrix/` runs every command over every kind of data set, `tests/gpu/` emulates a GPU.
"""


def page() -> str:
    """The whole page: a heading per folder that holds modules, a row per module."""
    return HEAD + "".join(_section(folder) for name in FOLDERS for folder in _folders(REPOSITORY / name))


def _folders(top: Path) -> Iterator[Path]:
    yield from sorted({top, *(path.parent for path in top.rglob("*.py"))})


def _section(folder: Path) -> str:
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    if not modules:
        return ""
    title = folder.relative_to(REPOSITORY).as_posix()
    rows = "".join(f"| [{path.name}](../{title}/{path.name}) | {_first_line(path)} |\n" for path in modules)
    about = f"{_first_line(folder / '__init__.py')}\n\n" if (folder / "__init__.py").is_file() else ""
    return f"\n## {title}\n\n{about}| module | |\n|---|---|\n{rows}"


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE}: run `python .ci/source_tree.py`")
    PAGE.write_text(page(), encoding="utf-8")
