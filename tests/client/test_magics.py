"""%px runs lines and cells on the engines, and what they print and raise is seen as it comes."""

from __future__ import annotations

import pickle

import pytest
from ipyparallel.error import AlreadyDisplayedError
from IPython.core.error import UsageError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from hiersched.client.direct_view import DirectView
from hiersched.client.magics import EngineMagics, activate
from hiersched.client.results import AsyncResult
from hiersched.errors import CompositeError, EngineLost, RemoteError


class Shell(InteractiveShell):
    """IPython without a history to write."""

    def init_history(self) -> None:
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)


@pytest.fixture(scope="module")
def one_shell():
    return Shell()


@pytest.fixture
def shell(one_shell, monkeypatch):
    """IPython, in which the magics of whatever view is activated are registered."""
    monkeypatch.setattr("hiersched.client.magics.current_shell", lambda: one_shell)
    monkeypatch.setattr(one_shell.Completer, "custom_matchers", [])
    one_shell.user_ns.pop("result", None)
    return one_shell


@pytest.fixture
def px(shell, view):
    """Run a cell on all engines, which wait for it: px(cell, flags)."""
    view.block = True
    view.activate()
    return lambda cell, flags="": shell.run_cell_magic("px", flags, cell)


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_line_runs_on_every_engine(shell, view, px):
    assert shell.run_line_magic("px", "a = 5") is None
    assert view["a"] == [5] * 4


def test_a_line_keeps_its_braces_to_itself(shell, view, px):
    shell.user_ns["x"] = "here"
    view.push({"x": "there"}, block=True)
    shell.run_line_magic("px", "y = f'{x}'")
    assert view["y"] == ["there"] * 4


def test_a_view_that_does_not_block_gives_the_result(shell, view, px):
    view.block = False
    result = px("a = 1")
    assert isinstance(result, AsyncResult)
    assert px("a = 2", "--block") is None
    assert view["a"] == [2] * 4
    view.block = True
    assert isinstance(px("1", "--noblock"), AsyncResult)
    assert view.block is True


@pytest.mark.parametrize("flag", ["-o", "--out", "--output"])
def test_the_result_can_be_kept_by_name(shell, px, flag):
    px("a = 1", f"{flag} result")
    assert isinstance(shell.user_ns["result"], AsyncResult)


@pytest.mark.parametrize("text", ["1", "-t 2", "--targets 1", "--targets 0,2", "--targets 1:3", "--targets all"])
def test_targets_hold_for_the_cell_alone(view, px, text):
    view.push({"a": 0}, block=True)
    flags = text if "-" in text else ""
    px("a = 1", flags)
    ran = {"-t 2": [2], "--targets 1": [1], "--targets 0,2": [0, 2], "--targets 1:3": [1, 2]}.get(text, [0, 1, 2, 3])
    assert view["a"] == [int(engine in ran) for engine in range(4)]
    assert view.targets == "all"


def test_targets_come_back_though_the_cell_fails(view, px):
    with pytest.raises(RemoteError):
        px("1 / 0", "--targets 1")
    with pytest.raises(UsageError, match="no engine 9; the engines are 0-3"):
        px("1", "--targets 9")
    assert view.targets == "all"


def test_a_cell_can_run_here_too(shell, view, px):
    px("b = 7", "--local")
    assert shell.user_ns["b"] == 7
    assert view["b"] == [7] * 4


def test_each_suffix_has_its_own_view(shell, client, view, px):
    DirectView(client, [0, 2], block=True).activate("_even")
    shell.run_line_magic("px", "a = 1")
    shell.run_line_magic("px_even", "a = 2")
    assert view["a"] == [2, 1, 2, 1]


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_output_is_shown_merged_as_it_comes(px, capsys):
    px("print('same')")
    assert "same" in capsys.readouterr().out


def test_output_can_be_shown_at_the_end(px, capsys):
    px("print('same')", "--no-stream --group-outputs=type")
    assert capsys.readouterr().out.splitlines() == ["[stdout:0-3]", "same"]


def test_errors_that_were_shown_are_raised_in_short(px, capsys):
    with pytest.raises(AlreadyDisplayedError) as caught:
        px("1 / 0", "--stream")
    assert isinstance(caught.value, CompositeError)
    assert caught.value._render_traceback_() == ["4 errors"]
    assert "division by zero" in "\n".join(caught.value.render_traceback(0))
    assert pickle.loads(pickle.dumps(caught.value)).errors.keys() == {0, 1, 2, 3}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_error_of_one_engine_is_raised_in_short(shell, client, px, capsys):
    DirectView(client, 1, block=True).activate()
    with pytest.raises(RemoteError) as caught:
        shell.run_line_magic("px", "1 / 0")
    assert caught.value.render_traceback() == ["[engine 1] ZeroDivisionError: division by zero"]


def test_an_engine_that_is_lost_is_told_in_a_line(shell, session, client, px):
    DirectView(client, 2, block=True).activate()
    session.hold(2)
    shell.run_cell_magic("px", "--noblock", "1")
    session.lose(2)
    with pytest.raises(EngineLost) as caught:
        shell.run_line_magic("pxresult", "")
    assert caught.value._render_traceback_() == [f"EngineLost: {caught.value}"]


def test_errors_that_were_not_shown_are_raised_merged(px, capsys):
    with pytest.raises(CompositeError) as caught:
        px("1 / 0", "--no-stream")
    text = "\n".join(caught.value.render_traceback())
    assert "[0-3:apply]:" in text
    assert text.count("ZeroDivisionError: division by zero") == 1
    assert capsys.readouterr().err == ""


def test_it_says_where_it_runs_if_asked(shell, view, px, capsys):
    px("1", "-v")
    px("1")
    shell.run_line_magic("pxconfig", "--verbose --targets 1:3")
    px("1", "--noblock")
    px("1", "--no-verbose")
    assert capsys.readouterr().out.splitlines() == [
        "Parallel execution on engine(s): all",
        "Async parallel execution on engine(s): [1, 2]",
    ]


def test_the_last_result_can_be_shown_later(shell, px, capsys):
    px("print('hello')", "--noblock")
    assert capsys.readouterr().out == ""
    shell.run_line_magic("pxresult", "")
    assert "hello" in capsys.readouterr().out
    shell.run_line_magic("pxresult", "-o result")
    assert isinstance(shell.user_ns["result"], AsyncResult)


def test_before_any_command_there_is_no_last_result(shell, client):
    DirectView(client).activate("_new")
    with pytest.raises(UsageError, match="has not yet been used"):
        shell.run_line_magic("pxresult_new", "")


# --- autopx -----------------------------------------------------------------------------------------------------------


def test_everything_can_be_sent_to_the_engines(shell, view, px, capsys):
    shell.run_line_magic("autopx", "")
    shell.run_cell("a = 5\nsent = 1")
    shell.run_cell("sent += a")
    shell.run_line_magic("autopx", "")
    shell.run_cell("c = 3")
    assert view["sent"] == [6] * 4
    assert "c" in shell.user_ns
    assert "sent" not in shell.user_ns
    assert capsys.readouterr().out.splitlines() == ["%autopx enabled", "%autopx disabled"]


@pytest.mark.parametrize("end", ["%autopx_even", "  %autopx_even  ", "autopx_even"])
def test_it_is_ended_under_the_name_that_began_it(shell, client, px, end, capsys):
    DirectView(client, [0, 2], block=True).activate("_even")
    shell.run_line_magic("autopx_even", "")
    shell.run_cell(end)
    shell.run_cell("back = 1")
    assert shell.user_ns.pop("back") == 1
    assert capsys.readouterr().out.splitlines() == ["%autopx enabled", "%autopx disabled"]


def test_what_a_kernel_awaits_goes_to_the_engines_too(shell, view, px):
    shell.run_line_magic("autopx", "")
    cell = "awaited = 4"
    run = shell.run_cell_async(cell, transformed_cell=cell)  # as a kernel runs cells that await something
    with pytest.raises(StopIteration):
        run.send(None)
    shell.run_line_magic("autopx", "")
    assert view["awaited"] == [4] * 4


def test_what_fails_there_is_shown_and_the_next_cell_runs(shell, session, view, px, capsys):
    shell.run_line_magic("autopx", "")
    shell.run_cell("1 / 0")
    shell.run_cell("after = 2")
    shell.run_line_magic("autopx", "")
    assert "ZeroDivisionError" in "".join(capsys.readouterr())
    assert view["after"] == [2] * 4


# --- interrupts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def struck(session, client, view, monkeypatch):
    """Whoever waits for all engines is interrupted, once; engines that get a signal end what they run."""
    wait = session.wait
    strikes = [KeyboardInterrupt()]

    def interrupted(pendings, timeout_s=None):
        if strikes:
            raise strikes.pop()
        return wait(pendings, timeout_s)

    def signalled(number, **options):
        client.asked.append(("send_signal", number, options))
        session.release()

    monkeypatch.setattr(session, "wait", interrupted)
    client.send_signal = signalled
    session.hold(0, 1, 2, 3)


def test_an_interrupt_stops_the_engines(client, px, struck, capsys):
    assert px("a = 1") is None
    assert client.asked == [("send_signal", "SIGINT", {"targets": "all", "block": True})]
    assert "Received Keyboard Interrupt. Sending signal SIGINT to engines..." in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "number"), [("SIGTERM", "SIGTERM"), ("9", 9)])
def test_another_signal_may_be_sent(client, px, struck, flag, number):
    px("a = 1", f"--signal-on-interrupt {flag} --targets 0:2")
    assert client.asked == [("send_signal", number, {"targets": [0, 1], "block": True})]


def test_the_engines_may_go_on(session, client, px, struck, capsys):
    px("a = 1", "--signal-on-interrupt 0")
    assert client.asked == []
    assert "Sending signal 0" in capsys.readouterr().err
    assert len(session.jobs) == 4


def test_an_interrupt_that_is_not_to_be_passed_on_is_raised(client, shell, px, struck):
    shell.magics_manager.registry["EngineMagics"].signal_on_interrupt = None
    with pytest.raises(KeyboardInterrupt):
        px("a = 1")
    assert client.asked == []


def test_a_second_interrupt_ends_the_wait(client, px, struck):
    def strike(number, **options):
        raise KeyboardInterrupt

    client.send_signal = strike
    with pytest.raises(KeyboardInterrupt):
        px("a = 1")


def test_an_interrupt_may_strike_while_the_cell_is_sent(session, client, px, monkeypatch):
    def strike(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "execute", strike)
    with pytest.raises(KeyboardInterrupt):
        px("a = 1")
    assert [name for name, *_ in client.asked] == ["send_signal"]


def test_an_interrupt_may_strike_when_the_stream_begins(session, client, px, monkeypatch):
    def strike(pending, listener):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "listen", strike)
    assert px("a = 1") is None
    assert [name for name, *_ in client.asked] == ["send_signal"]


def test_engines_that_are_busy_do_not_start_the_cell_after_an_interrupt(session, client, px, struck, capsys):
    client.send_signal = lambda number, **options: None
    px("a = 1")
    assert session.jobs == []
    assert "cancelled before it started" in capsys.readouterr().err


def test_engines_that_do_not_stop_are_named(session, client, px, struck, capsys, monkeypatch):
    client.send_signal = lambda number, **options: None
    monkeypatch.setattr(session, "cancel", lambda *pendings, **options: None)  # they all run
    px("a = 1")
    assert "goes on, 5 s after the signal" in capsys.readouterr().err


# --- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("magic", ["px", "pxconfig", "pxresult"])
def test_an_unknown_flag_is_told_which_there_are(shell, px, magic):
    run = (lambda: px("1", "--colour red")) if magic == "px" else (lambda: shell.run_line_magic(magic, "--colour red"))
    with pytest.raises(UsageError, match="colour") as caught:
        run()
    assert ("--output" if magic == "pxresult" else "--targets") in str(caught.value)
    assert "The flags are" in str(caught.value)


@pytest.mark.parametrize("text", ["some", "0:x", "1.5", "None", "os.system('x')", "[0,'1']"])
def test_targets_that_mean_nothing_are_refused(session, px, text):
    with pytest.raises(UsageError, match=r"names no engines.*; the engines are 0-3"):
        px("1", f"--targets {text}")
    assert session.jobs == []


def test_a_signal_that_there_is_not_is_refused(session, px):
    with pytest.raises(UsageError, match=r"SIGNOT.*SIGINT"):
        px("1", "--signal-on-interrupt SIGNOT")
    assert session.jobs == []


def test_what_is_configured_stays(shell, view, px):
    shell.run_line_magic("pxconfig", "--noblock --targets 1 --no-stream --progress-after -1 --signal-on-interrupt 15")
    magics = shell.magics_manager.registry["EngineMagics"]
    assert (view.block, view.targets) == (False, 1)
    assert (magics.stream_output, magics.progress_after_seconds, magics.signal_on_interrupt) == (False, -1.0, 15)


def test_outside_of_ipython_it_warns(view, monkeypatch):
    monkeypatch.setattr("hiersched.client.magics.current_shell", lambda: None)
    with pytest.warns(UserWarning, match="within IPython only"):
        activate(view)


def test_the_help_names_the_flags():
    assert "--signal-on-interrupt" in EngineMagics.cell_px.__doc__
    assert "%px " in EngineMagics.cell_px.__doc__
