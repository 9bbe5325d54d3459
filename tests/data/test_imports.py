"""Names are bound as an import statement would have bound them."""

from __future__ import annotations

import math
import os.path
import xml.dom.minidom

import pytest

from hiersched.data.imports import bring, import_into
from tests.data.test_namespace import names  # noqa: F401 (a fixture)


def test_a_module_is_bound_by_its_first_part_or_as_told(names):  # noqa: F811
    bring("xml.dom.minidom", [("xml", "xml", "")])
    bring("xml.dom.minidom", [("md", "xml.dom.minidom", "")])
    assert names == {"xml": xml, "md": xml.dom.minidom}


def test_attributes_and_modules_within_a_package_are_bound(names):  # noqa: F811
    bring("os", [("join", "os.path", "join"), ("p", "os", "path"), ("md", "xml.dom", "minidom")])
    assert names == {"join": os.path.join, "p": os.path, "md": xml.dom.minidom}


def test_all_that_a_module_offers(names):  # noqa: F811
    bring("math", [("*", "math", "*")])
    assert names["pi"] == math.pi
    assert "__name__" not in names
    bring("string", [("*", "string", "*")])
    assert "Template" in names
    assert "_re" not in names  # not in __all__


def test_what_is_not_there_says_so(names):  # noqa: F811
    with pytest.raises(ImportError, match="cannot import name 'nowhere' from 'math'"):
        bring("math", [("nowhere", "math", "nowhere")])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        bring("no_such_module", [])


def test_into_another_namespace():
    place: dict[str, object] = {}
    import_into(place, "xml.dom.minidom")
    assert place == {"xml": xml}
