"""The docs as a site that opens from disk: README, docs and the public names, in site/. Run by `make docs`.

python .ci/docs_site.py              lays the pages into build/docs-site and builds site/, refusing links that lead nowhere
python .ci/docs_site.py --pages      lays them only
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROJECT = REPOSITORY / "build" / "docs-site"
SITE = REPOSITORY / "site"
FRONT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
API = {
    "Predict": ("inference/predictor.py", "inference/task_predictions.py", "schema.py", "inference/abstention.py"),
    "Metrics": ("evaluation/metrics", "evaluation/bootstrap.py", "evaluation/evaluate.py", "evaluation/summary.py"),
    "Data sets": ("datasets/layouts.py", "datasets/conversion.py", "datasets/folds.py", "datasets/phantom.py"),
    "Images": ("io/images.py", "io/geometry.py"),
    "Network": ("network/heads.py", "network/pooling.py", "network/losses.py"),
    "Case head": ("case_head/head.py", "case_head/fit.py", "case_head/calibration.py", "case_head/outliers.py"),
    "Models": ("model_store/model_folder.py", "model_store/bundles.py"),
    "Errors": ("errors.py",),
}
"""Pages of public names: modules, or folders of them, under src/nnduet."""
FOLDS = REPOSITORY / "docs" / "results" / "accuracy"
"""What results are made from, a file per fold; no page links to it."""


def lay_out() -> None:
    """Write every page, and the configuration with the pages of public names in its navigation."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    pages = {Path(name): (REPOSITORY / name) for name in FRONT if (REPOSITORY / name).is_file()}
    pages |= {path.relative_to(REPOSITORY): path for path in (REPOSITORY / "docs").rglob("*.*") if path.parent.parent != FOLDS}
    pages |= {path.relative_to(REPOSITORY): path for path in (REPOSITORY / "src").rglob("*.md") if path.parts[-2] != "vendor"}
    linked: set[Path] = set()
    for place, path in pages.items():
        if path.suffix == ".md":
            _write(place, _with_links_of_the_site(path, linked))
        else:
            _write(place, path.read_bytes())
    for path in linked:
        _write(Path(path.relative_to(REPOSITORY).as_posix().removeprefix(".") + ".md"), _shown(path))
    shim = Path("vendor", "iframe-worker.js")
    _write(shim, (REPOSITORY / ".ci" / shim).read_bytes())
    for title, modules in API.items():
        _write(_api_page(title), _of_names(title, modules))
    nav = ", ".join(f'{{"{title}" = "{_api_page(title).as_posix()}"}}' for title in API)
    settings = (REPOSITORY / ".ci" / "zensical.toml").read_text(encoding="utf-8")
    (PROJECT / "zensical.toml").write_text(settings.replace('"API"', f"[{nav}]"), encoding="utf-8")


def _write(place: Path, content: str | bytes) -> None:
    target = PROJECT / "docs" / place.with_name("index.md" if place.name == "README.md" else place.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def _with_links_of_the_site(page: Path, linked: set[Path]) -> str:
    """The page's text with links to README and to files that are no pages changed; those files join ``linked``."""

    def changed(found: re.Match[str]) -> str:
        target = (page.parent / found[1]).resolve()
        if "://" in found[1] or not target.is_file():
            return found[0]
        if target.name == "README.md":
            return f"]({found[1].removesuffix('README.md')}index.md{found[2] or ''})"
        if target.suffix in (".md", ".png", ".svg", ".json"):
            return found[0]
        linked.add(target)
        return f"]({found[1].replace('/.ci/', '/ci/')}.md)"  # a site has no hidden folders

    return re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", changed, page.read_text(encoding="utf-8"))


def _shown(path: Path) -> str:
    """A file as a page of its own, kept out of the search."""
    language = {".py": "python", ".toml": "toml", ".cff": "yaml"}.get(path.suffix, "text")
    title = path.relative_to(REPOSITORY).as_posix()
    return f"---\nsearch:\n  exclude: true\n---\n\n# {title}\n\n``````{language}\n{path.read_text(encoding='utf-8')}\n``````\n"


def _api_page(title: str) -> Path:
    return Path("docs", f"api-{title.lower().replace(' ', '-')}.md")


def _of_names(title: str, modules: tuple[str, ...]) -> str:
    source = REPOSITORY / "src"
    paths = [path for name in modules for path in sorted([source / "nnduet" / name, *(source / "nnduet" / name).glob("*.py")])]
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in paths if path.suffix == ".py"]
    return f"# {title}\n\n" + "".join(f"::: {name}\n\n" for name in names if not name.endswith("__init__"))


if __name__ == "__main__":
    lay_out()
    if "--pages" not in sys.argv:
        command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
        built = subprocess.run(command, cwd=PROJECT, check=False).returncode
        if built:
            sys.exit(built)
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(PROJECT / "site", SITE)
        sys.stdout.write(f"open {SITE / 'index.html'}\n")
