"""The documentation's navigation has every page, and its picture can be drawn."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

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
