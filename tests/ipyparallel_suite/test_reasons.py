"""What the suite says about a run: which failures are explained, and what the page shows."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.ipyparallel_suite import differences, page
from tests.ipyparallel_suite.fetch import differing
from tests.ipyparallel_suite.runs import Run

GOOD, BAD, ODD = "test_a.py::TestA::test_good", "test_a.py::TestA::test_bad", "test_b.py::test_odd"


def client(**ends: str) -> Run:
    names = {"good": GOOD, "bad": BAD, "odd": ODD}
    return Run("client", "default", {names[name]: (end, f"{end} because") for name, end in ends.items()})


def test_a_failure_needs_a_reason():
    run = client(good="passed", bad="failed")
    (line,) = differences.contradictions([run], {})
    assert line == f"client: {BAD} fails, and nothing says why: failed because"
    assert differences.contradictions([run], {("client", BAD): "on purpose"}) == []


@pytest.mark.parametrize("end", ["passed", "skipped", "xpassed"])
def test_a_reason_needs_a_failure(end):
    (line,) = differences.contradictions([client(good="passed", bad=end)], {("client", BAD): "on purpose"})
    assert line == f"client: {BAD} has a reason to fail, and does not: {end}"


def test_a_reason_needs_a_test():
    (line,) = differences.contradictions([client(good="passed")], {("client", BAD): "on purpose"})
    assert line.endswith("does not: not run")


def test_reasons_of_a_part_that_did_not_run_are_let_be():
    assert differences.contradictions([client(good="passed")], {("controller", BAD): "on purpose"}) == []


def test_a_test_has_one_reason(tmp_path: Path):
    group = f'[[difference]]\npart = "client"\nwhy = "on\\npurpose"\ntests = ["{BAD}"]\n'
    file = tmp_path / "differences.toml"
    file.write_text(group)
    assert differences.read(file) == {("client", BAD): "on purpose"}
    file.write_text(group * 2)
    with pytest.raises(ValueError, match="two reasons"):
        differences.read(file)


def test_our_own_reasons_can_be_read():
    assert all(why.endswith(".") for why in differences.read().values())


def test_the_share_that_passed_does_not_count_what_was_skipped():
    assert page.share_passed(client(good="passed", bad="failed", odd="skipped")) == 0.5
    assert page.share_passed(client(good="xfailed", odd="xpassed")) == 1.0


def test_the_page_has_a_row_for_each_file_and_each_reason_once(tmp_path: Path):
    runs = [client(good="passed", bad="failed", odd="skipped"), Run("controller", "curve", {ODD: ("passed", "")})]
    runs[1].starts = {"controller": 3}
    page.write(runs, "ipyparallel 9", {("client", BAD): "It differs."}, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| test_a | 1 passed, 1 failed |" in text
    assert "| **all** | **1 passed, 1 failed, 1 skipped** (50.0%) |" in text
    assert f"- It differs.\n    - `{BAD}`" in text
    assert f"- `{ODD}`: skipped because" in text
    assert "| | curve |" in text
    assert "curve: 3 controller" in text


def test_a_file_that_is_not_as_it_was_published_is_found(tmp_path: Path):
    archive, tree = tmp_path / "p.tar.gz", tmp_path / "p"
    with tarfile.open(archive, "w:gz") as members:
        for name in ("ipyparallel/tests/a.py", "ipyparallel/b.py", "docs/c.md"):
            entry = tarfile.TarInfo(f"p-1/{name}")
            entry.size = 4
            members.addfile(entry, io.BytesIO(b"text"))
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(b"text")
    assert differing(archive, tree) == []
    (tree / "docs/c.md").unlink()
    (tree / "ipyparallel/b.pyc").write_bytes(b"made by Python")
    assert differing(archive, tree) == []
    (tree / "ipyparallel/tests/a.py").write_bytes(b"mine")
    (tree / "ipyparallel/b.py").unlink()
    assert sorted(differing(archive, tree)) == ["ipyparallel/b.py", "ipyparallel/tests/a.py"]
