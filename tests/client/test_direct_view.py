"""A direct view calls each of its engines, and reads and writes their namespaces."""

from __future__ import annotations

import numpy as np
import pytest

from hiersched.client.direct_view import DirectView
from hiersched.client.map_results import AsyncMapResult
from hiersched.errors import CompositeError, NoEngines, PackError, RemoteError, UnknownEngine
from tests.client.fake_session import FakeClient, FakeEngine, FakeSession


def notebook_function(source: str, name: str) -> object:
    """A function as a notebook defines it: its globals are `__main__`."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace[name]


# --- apply ------------------------------------------------------------------------------------------------------------


def test_apply_blocks_only_if_the_view_does(client):
    view = DirectView(client, [0, 1])
    assert view.apply(abs, -3).get() == [3, 3]
    view.block = True
    assert view.apply(abs, -3) == [3, 3]
    assert view.apply_async(abs, -3).get() == [3, 3]


def test_keywords_named_like_parameters_reach_the_function(view):
    assert view.apply_sync(dict, f=1, self=2, block=3, targets=4)[0] == {"f": 1, "self": 2, "block": 3, "targets": 4}


def test_a_view_of_one_engine_gives_plain_results(client):
    assert DirectView(client, 3).apply_sync(abs, -3) == 3
    assert DirectView(client, -1).apply_sync(abs, -3) == 3


def test_errors_are_raised_where_the_call_blocks(client, view):
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        DirectView(client, 0).apply_sync(divmod, 1, 0)
    with pytest.raises(CompositeError, match="failed on 4 of 4 engines: 0-3"):
        view.apply_sync(divmod, 1, 0)


def test_what_cannot_be_pickled_is_refused_at_the_call(session, view):
    with pytest.raises(PackError):
        view.apply_async(abs, (item for item in ()))
    with pytest.raises(PackError):
        view.apply_async(3)
    assert session.jobs == []


def test_a_notebook_function_sees_the_engines_namespace(view):
    view.push({"offset": 100}, block=True)
    add = notebook_function("def add(x): return x + offset", "add")
    assert view.apply_sync(add, 1) == [101] * 4


def test_functions_shipped_by_value_bring_their_globals(client, view):
    source = "offset = 7\ndef add(x): return x + offset"
    add = notebook_function(source, "add")
    view.use_cloudpickle()
    assert DirectView(client, 0).apply_sync(add, 1) == 8
    view.use_pickle()
    with pytest.raises(RemoteError, match="'offset' is not defined"):
        DirectView(client, 0).apply_sync(add, 1)


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["all", None])
def test_all_follows_the_cluster(session, client, targets):
    view = DirectView(client, targets)
    session.engines[4] = FakeEngine(4)
    assert (len(view), view.targets) == (5, "all")
    assert view.apply_sync(abs, -1) == [1] * 5
    session.lose(0)
    assert view.apply_sync(abs, -1) == [1] * 4


def test_chosen_engines_stay(session, client):
    every, even = DirectView(client, slice(None)), DirectView(client, slice(None, None, 2))
    session.engines[4] = FakeEngine(4)
    assert (every.targets, even.targets) == ([0, 1, 2, 3], [0, 2])
    assert (len(every), len(even)) == (4, 2)


def test_an_engine_that_does_not_exist_is_refused_at_once(client, view):
    with pytest.raises(UnknownEngine, match="no engine 9; the engines are 0-3"):
        DirectView(client, 9)
    with pytest.raises(UnknownEngine):
        view.pull("a", targets=[0, 9])


def test_a_cluster_without_engines_is_refused():
    with pytest.raises(NoEngines):
        DirectView(FakeClient(FakeSession(engines=0))).apply_async(abs, -1)


def test_a_view_describes_itself(client, view):
    assert repr(view) == "<DirectView of all engines>"
    assert repr(DirectView(client, [0, 1, 2])) == "<DirectView of engines 0-2>"
    assert repr(DirectView(client, 2)) == "<DirectView of engine 2>"


def test_flags_can_be_set_for_a_while(client, view):
    with view.temp_flags(block=True, targets=1):
        assert view.apply(abs, -3) == 3
    assert (view.block, view.targets) == (False, "all")
    with pytest.raises(KeyError, match="its flags are targets, block, track, label"):
        view.set_flags(colour="red")


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_names_are_pushed_and_pulled(client, view):
    view.push({"a": 1, "b": 2}, block=True)
    view.push({"a": 10}, targets=0, block=True)
    assert view.pull("a", block=True) == [10, 1, 1, 1]
    assert view.pull(["a", "b"], targets=0, block=True) == [10, 2]
    assert view.pull("a + b", targets=3).get() == 3


def test_names_are_items_of_a_view(session, client, view):
    view["a"] = 5
    session.run_all()
    assert view["a"] == [5] * 4
    one = DirectView(client, 1, block=True)
    one["a"] = 6
    assert one["a"] == one.get("a") == 6
    assert one[("a", "a + 1")] == [6, 7]
    assert view["a"] == [5, 6, 5, 5]


def test_an_undefined_name_says_so(view):
    with pytest.raises(CompositeError, match="NameError: name 'nowhere' is not defined"):
        view.pull("nowhere", block=True)


def test_only_names_can_be_pushed_and_pulled(view):
    with pytest.raises(TypeError, match="takes a dict"):
        view.push([1, 2])
    with pytest.raises(TypeError, match="must be strings"):
        view.pull([1, 2])


# --- scatter, gather, map ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("sequence", [list(range(10)), range(10), "abcdefghij", np.arange(10.0), [1], []])
def test_what_is_scattered_can_be_gathered(view, dist, sequence):
    view.scatter("share", sequence, dist=dist, block=True)
    gathered = view.gather("share", dist=dist, block=True)
    if isinstance(sequence, str):
        gathered = "".join(gathered) if dist == "b" else None
        assert gathered in (sequence, None)
    else:
        assert type(gathered) is (np.ndarray if isinstance(sequence, np.ndarray) else list)
        assert list(gathered) == list(sequence)


def test_scattering_flat_gives_items(view):
    view.scatter("rank", range(4), flatten=True, block=True)
    assert view["rank"] == [0, 1, 2, 3]


def test_gathering_reports_who_lacks_a_share(view):
    view.scatter("share", range(4), targets=[0, 1, 2], block=True)
    with pytest.raises(CompositeError, match="gather failed on 1 of 4 engines: 3") as caught:
        view.gather("share", block=True)
    assert [error.engine_id for error in caught.value.errors.values()] == [3]


def test_what_was_scattered_is_gathered_item_by_item_as_it_comes(session, view):
    assert view.scatter("share", range(10), block=True) is None
    session.hold(2)
    gathered = view.gather("share")
    assert isinstance(gathered, AsyncMapResult)
    items = iter(gathered)
    session.run_all()
    assert [next(items) for _ in range(6)] == list(range(6))
    session.release()
    assert list(items) == [6, 7, 8, 9]
    assert gathered.get() == list(range(10))
    assert len(gathered) == 4


def test_a_map_gives_each_engine_one_chunk(session, view):
    result = view.map(abs, range(-6, 0))
    assert len(session.jobs) == 4
    assert result.get() == [6, 5, 4, 3, 2, 1]
    assert len(result) == 6
    assert result.engine_id == [0, 1, 2, 3]


def test_a_map_calls_no_engine_without_items(session, view):
    assert view.map_async(abs, [-1, -2]).get() == [1, 2]
    assert len(session.sent) == 2


def test_a_map_over_several_sequences_ends_with_the_shortest(view):
    assert view.map_sync(pow, [2, 3, 4], (1, 2)) == [2, 9]


def test_a_map_over_nothing_is_empty(session, view):
    assert view.map_sync(abs, []) == []
    assert list(view.map_async(abs, [])) == []
    assert session.jobs == []


def test_map_async_and_map_sync_settle_whether_to_block(view):
    with pytest.raises(TypeError):
        view.map_async(abs, [1], block=True)
    with pytest.raises(TypeError):
        view.map_sync(abs, [1], block=False)


def test_a_map_may_give_errors_in_the_places_of_results(view):
    results = view.map(divmod, [4, 4], [2, 0], block=True, return_exceptions=True)
    assert (results[0], type(results[1])) == ((2, 0), RemoteError)


def test_imap_gives_results_one_by_one(view):
    assert list(view.imap(abs, [-1, 2, -3])) == [1, 2, 3]


def test_a_map_ships_its_function_once(session, view):
    view.map(abs, range(8))
    assert len({call.function for call in session.sent}) == 1


# --- code -------------------------------------------------------------------------------------------------------------


def test_code_runs_in_the_namespace(session, view, capsys):
    result = view.execute("a = 3\nprint('set')", block=True)
    assert view["a"] == [3] * 4
    assert result.stdout == ["set\n"] * 4
    result.display_outputs()
    assert capsys.readouterr().out == "[stdout:0-3]\nset\n"


def test_only_text_is_code(view):
    with pytest.raises(TypeError, match="code as a string, not int"):
        view.execute(5)


def test_a_call_bears_its_label(session, view):
    view.label = "first"
    assert [view.apply_async(abs, -1)._pending.label, view.execute("1")._pending.label] == ["first", "first"]
    assert view.execute("1", label="second")._pending.label == "second"
    assert view.map_async(abs, [-1], label="third")._pending._pending.label == "third"


def test_errors_of_code_are_raised_where_it_blocks(view):
    with pytest.raises(CompositeError, match="ZeroDivisionError"):
        view.execute("1 / 0", block=True)
    result = view.execute("1 / 0")
    result.wait()
    assert not result.successful()


def test_a_file_is_run(tmp_path, view):
    script = tmp_path / "script.py"
    script.write_text("if True:\n    a = 'déjà'", encoding="utf-8")
    view.run(str(script), targets=1, block=True)
    assert view.pull("a", targets=1, block=True) == "déjà"
    with pytest.raises(OSError, match="missing"):
        view.run(str(tmp_path / "missing.py"))


def test_what_a_cell_ends_with_is_shown(session, client, view, capsys, monkeypatch):
    from hiersched.data.cells import CellReply

    monkeypatch.setattr(
        "tests.client.fake_session.CellReply", lambda count, _: CellReply(1, {"data": {"text/plain": "42"}})
    )
    result = DirectView(client, [0, 1]).execute("42", silent=False)
    result.wait()
    result.display_outputs()
    assert capsys.readouterr().out == "Out[0-1:1]: 42\n"
