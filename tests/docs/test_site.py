"""The documentation: pages are in its navigation, public names in its reference, and its picture can be drawn."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import hiersched

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- (\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    assert sorted(listed) == sorted(pages)


def test_the_picture_of_the_tree_has_words_for_those_who_cannot_see_it() -> None:
    picture = ElementTree.parse(DOCS / "images" / "tree.svg").getroot()
    names = [child.tag.rpartition("}")[2] for child in picture]
    assert {"title", "desc"} <= set(names)


def test_every_public_name_is_in_the_reference() -> None:
    documented: set[str] = set()
    for page in (DOCS / "reference").glob("*.md"):
        for directive in page.read_text().split("\n::: ")[1:]:
            target = directive.split("\n", 1)[0]
            members = re.search(r"members: \[(.*)\]", directive)
            documented.add(target.rpartition(".")[2])
            documented.update(members[1].split(", ") if members else public_names(target))
    ours = {name for name in hiersched.__all__ if is_ours(getattr(hiersched, name))}
    assert ours - documented == set()


def public_names(target: str) -> set[str]:
    """What the page of a module shows where it names nothing in particular; nothing for what is no module."""
    found = pkgutil.resolve_name(target)
    return {name for name in vars(found) if not name.startswith("_")} if isinstance(found, ModuleType) else set()


def is_ours(value: object) -> bool:
    """Whether this class or function was written here, and is not handed on from the standard library."""
    return getattr(value, "__module__", "").startswith("hiersched")
