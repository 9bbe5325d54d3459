"""What a `with` block imports is imported on the engines too, under the same names."""

from __future__ import annotations

import builtins
import sys

import pytest

from hiersched.client.imports import bindings_of
from hiersched.errors import CompositeError
from tests.client.fake_session import FakeSession


def names_of(session: FakeSession) -> set[str]:
    """What the engines' namespaces hold, the same on all of them."""
    (names,) = {frozenset(name for name in engine.namespace if "__" not in name) for engine in session.engines.values()}
    return set(names)


def test_imports_happen_on_both_sides(session, view, capsys):
    with view.sync_imports():
        import colorsys
        import xml.dom
        from string import Template, capwords
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    assert Template(capwords("a $b")).substitute(b=xml.dom.__name__) == "A xml.dom"
    assert names_of(session) == {"colorsys", "xml", "Template", "capwords"}
    assert capsys.readouterr().out.splitlines() == [
        "importing colorsys on engine(s)",
        "importing xml.dom on engine(s)",
        "importing Template,capwords from string on engine(s)",
    ]


def test_names_are_those_of_the_statement(session, view):
    with view.sync_imports(quiet=True):
        import colorsys as colours
        import xml.dom.minidom as md
        from string import Template as Form
    assert Form(colours.__name__).template == "colorsys"
    assert md.__name__ == "xml.dom.minidom"
    assert names_of(session) == {"colours", "md", "Form"}
    for engine in session.engines.values():
        assert engine.namespace["md"].__name__ == "xml.dom.minidom"


def test_at_the_top_of_a_cell_as_in_a_function(session, view):
    cell = "with view.importer:\n    import colorsys as c\n    from string import *\n    import colorsys as c"
    exec(cell, {"view": view, "__name__": "__main__"})
    assert {"c", "Template", "ascii_letters"} <= names_of(session)
    assert len(session.sent) == 2 * 4


def test_quietly(view, capsys):
    with view.sync_imports(quiet=True):
        import colorsys  # noqa: F401
    assert capsys.readouterr().out == ""


def test_what_an_imported_module_imports_is_its_own_business(session, view):
    sys.modules.pop("this_one_imports_others", None)

    def imports_inside() -> None:
        import colorsys  # noqa: F401

    with view.sync_imports(quiet=True):
        imports_inside()
    assert session.sent == []


def test_an_import_that_fails_here_is_not_tried_there(session, view):
    with pytest.raises(ImportError), view.sync_imports(quiet=True):
        import no_such_module_anywhere  # noqa: F401
    assert session.sent == []


def test_an_import_that_fails_on_engines_is_raised_at_the_end(view, monkeypatch):
    def cannot(module: str, bindings: list[tuple[str, str, str]]) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr("hiersched.client.imports.bring", cannot)
    with pytest.raises(CompositeError, match="ModuleNotFoundError: No module named 'colorsys'"):
        with view.sync_imports(quiet=True):
            import colorsys
        assert colorsys


def test_the_import_function_is_as_before(view):
    before = builtins.__import__
    with pytest.raises(RuntimeError, match="of the block"), view.sync_imports():
        raise RuntimeError("of the block")
    assert builtins.__import__ is before


def test_imports_for_engines_only_are_refused(view):
    with pytest.raises(NotImplementedError, match="execute"):
        view.sync_imports(local=False)


def test_without_the_code_that_follows_names_are_the_plain_ones():
    assert bindings_of("a.b", (), ([], False)) == [("a", "a", "")]
    assert bindings_of("a.b", ("x", "y"), ([], False)) == [("x", "a.b", "x"), ("y", "a.b", "y")]
