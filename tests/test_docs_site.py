"""The site of `make docs`: every page is in its navigation, and links are those of the site. The build refuses dead links."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with its pages laid out in a temporary folder."""
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    monkeypatch.delitem(sys.modules, "docs_site", raising=False)
    import docs_site

    monkeypatch.setattr(docs_site, "PROJECT", tmp_path)
    docs_site.lay_out()
    return docs_site


def _navigation(site: ModuleType) -> list[str]:
    settings = (site.PROJECT / "zensical.toml").read_text(encoding="utf-8")
    return re.findall(r'" = "([^"]+\.md)"', settings)


def test_every_page_is_in_the_navigation_once_and_everything_in_it_is_a_page(site: ModuleType) -> None:
    named = _navigation(site)
    ours = {path.relative_to(site.PROJECT / "docs").as_posix() for path in (site.PROJECT / "docs" / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert ours <= set(named), f"name them in the navigation of .ci/zensical.toml: {sorted(ours - set(named))}"
    assert all((site.PROJECT / "docs" / name).is_file() for name in named)


def test_the_public_names_are_those_of_modules_that_exist(site: ModuleType) -> None:
    for title, modules in site.API.items():
        assert all((ROOT / "src" / "nnduet" / module).exists() for module in modules), title
        text = (site.PROJECT / "docs" / site._api_page(title)).read_text(encoding="utf-8")
        names = re.findall(r"^::: (nnduet[\w.]+)$", text, re.M)
        assert len(names) >= len(modules) and len(names) == len(set(names))


def test_a_link_to_the_source_is_to_a_page_that_shows_it(site: ModuleType) -> None:
    page = (site.PROJECT / "docs" / "docs" / "reference-source.md").read_text(encoding="utf-8")
    assert "(../src/nnduet/names.py.md)" in page and "(../ci/audit.py.md)" in page
    shown = (site.PROJECT / "docs" / "src" / "nnduet" / "names.py.md").read_text(encoding="utf-8")
    assert (ROOT / "src" / "nnduet" / "names.py").read_text(encoding="utf-8") in shown


def test_a_link_to_a_readme_is_to_the_index_of_its_folder(site: ModuleType) -> None:
    assert "(docs/results/index.md)" in (site.PROJECT / "docs" / "index.md").read_text(encoding="utf-8")


def test_no_page_fetches_anything_from_elsewhere(site: ModuleType) -> None:
    settings = (site.PROJECT / "zensical.toml").read_text(encoding="utf-8")
    assert "font = false" in settings and "http" not in settings
    assert (site.PROJECT / "docs" / "vendor" / "iframe-worker.js").is_file()
    for path in (site.PROJECT / "docs").rglob("*.md"):
        assert not re.search(r"!\[[^]]*\]\(http", path.read_text(encoding="utf-8")), path
