"""The process that stands for a set of engines: how it finds its cluster, and what its engines get of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Integer, Unicode
from traitlets.config import Config, Configurable

from hiersched.client.roster import Roster
from hiersched.compat import connection_files, engine_start
from hiersched.compat.engine_crew import Crew, Startup
from hiersched.compat.engine_set import PASSED_ON, EngineSet, of_shell
from hiersched.data.serialize import PackedCall, Packer
from hiersched.errors import CapacityError, ClusterLost, ConnectionFileError
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from tests.compat.test_connection_files import CLIENT_PORTS, ENGINE_PORTS, doors, root

Configured = Callable[..., EngineSet]


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Gives the application as these flags make it, in a profile of its own."""
    for variable in [name for name in os.environ if name.startswith("IPP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "profile" / "security").mkdir(parents=True)

    def configure(*flags: str) -> EngineSet:
        app = EngineSet()
        app.initialize([f"--profile-dir={tmp_path / 'profile'}", "--IPEngine.wait_for_url_file=0", *flags])
        return app

    return configure


# --- it finds its cluster ---------------------------------------------------------------------------------------------


def test_it_finds_the_root_in_the_file_for_clients_beside_that_for_engines(
    configured: Configured, tmp_path: Path
) -> None:
    config = doors(tmp_path / "profile" / "security")
    connection_files.write_engine(config, ENGINE_PORTS)
    connection_files.write_client(config, CLIENT_PORTS, root())
    assert configured("--cluster-id=a").find_root() == root()
    with pytest.raises(ConnectionFileError, match="ipcontroller-b-client"):
        configured("--cluster-id=b").find_root()


def test_a_file_that_is_named_is_the_one_that_is_read(configured: Configured, tmp_path: Path) -> None:
    config = doors(tmp_path)
    connection_files.write_engine(config, ENGINE_PORTS, root())
    assert configured(f"--file={config.engine_file}").find_root() == root()


def test_what_the_launcher_tells_goes_before_the_file(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = doors(tmp_path)
    connection_files.write_engine(config, ENGINE_PORTS, root())
    monkeypatch.setenv("IPP_CONNECTION_INFO", Path(config.engine_file).read_text())
    assert configured().find_root() == root()


def test_a_launcher_that_knows_of_no_root_leaves_it_to_the_file(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPP_CONNECTION_INFO", json.dumps({"key": "k", "interface": "tcp://127.0.0.1"}))
    connection_files.write_client(doors(tmp_path / "profile" / "security"), CLIENT_PORTS, root())
    assert configured("--cluster-id=a").find_root() == root()


def test_a_controller_of_ipyparallels_own_is_told_apart(configured: Configured, tmp_path: Path) -> None:
    file = tmp_path / "ipcontroller-engine.json"
    file.write_text(json.dumps({"key": "k", "interface": "tcp://127.0.0.1"}))
    with pytest.raises(ConnectionFileError, match='start the controller with controller="hiersched"'):
        configured(f"--file={file}").find_root()


def test_flags_without_a_meaning_are_named_with_the_reason(
    configured: Configured, capfd: pytest.CaptureFixture[str]
) -> None:
    app = configured("--n=3", "--mpi", "--ssh=me@gate", "--timeout=7")
    assert app.n == 3
    said = capfd.readouterr().err
    for name in ("use_mpi", "sshserver", "timeout"):
        assert f"{name} is ignored: " in said


def test_what_is_said_of_a_kernels_shell_is_said_of_an_engines(configured: Configured) -> None:
    app = configured("--InteractiveShell.colors=nocolor", "--ZMQInteractiveShell.cache_size=7", "--log-level=10")
    settings = of_shell(app.config)
    shell = InteractiveShell(config=settings)
    assert (shell.colors, shell.cache_size) == ("nocolor", 7)
    assert "ZMQInteractiveShell" not in settings and "Application" not in settings


def test_the_signals_of_a_process_itself_are_not_passed_on() -> None:
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP} <= PASSED_ON
    assert PASSED_ON.isdisjoint({signal.SIGKILL, signal.SIGCHLD, signal.SIGSTOP, signal.SIGSEGV})


# --- its engines ------------------------------------------------------------------------------------------------------


class FakeCall:
    """A call whose outcome never comes."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """It would be called."""


News = m.Members | Exception


class FakeSession:
    """A session in which this happens. news: Members, or what ends the session; a tuple of what is seen at one look."""

    def __init__(self, ranks: Iterable[int], news: Iterable[News | tuple[News, ...]], starting: int = 0) -> None:
        self.packer = Packer()
        self.roster = Roster()
        self.calls: list[tuple[int, ...]] = []
        self.orders: list[tuple[list[int], str, int]] = []
        self._ranks, self._starting = list(ranks), starting
        self._news = iter([entry if isinstance(entry, tuple) else (entry,) for entry in news])

    def grow(self, engines: int) -> list[int]:
        """These ranks are to come."""
        return self._ranks

    def engine_ids(self) -> list[int]:
        """Who is there."""
        return self.roster.ids()

    def arrivals(self, ranks: Iterable[int]) -> int:
        """How often these have come."""
        return self.roster.arrivals(ranks)

    def failed_starts(self) -> dict[int, str]:
        """Who did not come."""
        return self.roster.failed_starts

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Something happens."""
        while not condition():
            for news in next(self._news):
                if isinstance(news, Exception):
                    raise news
                self.roster.on_members(news)
        return True

    def call(self, targets: tuple[int, ...], packed: PackedCall) -> FakeCall:
        """It is noted."""
        self.calls.append(targets)
        return FakeCall()

    def order(self, ranks: Iterable[int], verb: str, number: int = 0) -> list[int]:
        """It is noted."""
        self.orders.append((sorted(ranks), verb, number))
        return []

    def survey(self) -> list[tuple[int, int, dict[str, int], dict[str, int]]]:
        """How many are being started."""
        starting, self._starting = self._starting, 0
        return [(0, 1, {"engines_starting": starting}, {})]


def joined(*ranks: int) -> m.Members:
    """Engines have come."""
    return m.Members(bitset.to_wire(bitset.of_ranks(ranks)), (0, b""), "")


def left(*ranks: int, reason: str = "gone") -> m.Members:
    """Engines have gone."""
    return m.Members((0, b""), bitset.to_wire(bitset.of_ranks(ranks)), reason)


def run(session: FakeSession, log: logging.Logger | None = None) -> int:
    """A crew's exit code in this session."""
    startup = Startup(environ={}, directory="/", path=[], settings=Config(), files=[], lines=[])
    return Crew(session, startup, log or logging.getLogger("crew")).run(2, frozenset({signal.SIGRTMAX}))  # type: ignore[arg-type]


def test_engines_are_given_their_surroundings_as_they_come_and_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = FakeSession([3, 4], [joined(3), joined(0), joined(4), left(4), left(3)])
    with caplog.at_level(logging.INFO):
        assert run(session) == 0
    assert session.calls == [(3,), (4,)]
    assert caplog.messages == [
        "Completed registration with id 3",
        "Completed registration with id 4",
        "Engine 4 has ended",
        "Engine 3 has ended",
    ]


def test_an_engine_that_does_not_come_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert run(FakeSession([0, 1], [left(0, reason="no memory"), joined(1), left(1)])) == 1
    assert "Engine 0 did not start: no memory" in caplog.text


def test_the_end_of_the_cluster_is_no_failure() -> None:
    assert run(FakeSession([0, 1], [joined(0, 1), ClusterLost("it has stopped")])) == 0


def test_engines_in_whose_place_others_are_started_do_not_end_the_set() -> None:
    session = FakeSession([0, 1], [joined(0, 1), left(0, 1), joined(0), left(0)], starting=1)
    assert run(session) == 0
    assert session.calls == [(0, 1), (0,)]


def test_engines_that_come_and_go_between_two_looks_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    session = FakeSession([0, 1], [(joined(0), left(0)), (joined(1), left(1))])
    with caplog.at_level(logging.INFO):
        assert run(session) == 0
    assert session.calls == []
    assert caplog.text.count("has ended") == 2


def test_an_engine_that_was_replaced_between_two_looks_is_given_its_surroundings_again() -> None:
    session = FakeSession([0], [joined(0), (left(0), joined(0)), left(0)])
    assert run(session) == 0
    assert session.calls == [(0,), (0,)]


def test_a_cluster_without_room_is_told() -> None:
    with pytest.raises(CapacityError, match="2 engines more"):
        run(FakeSession([], []))


# --- how an engine begins ---------------------------------------------------------------------------------------------


class Formatter(Configurable):
    """One of a shell's parts."""

    max_width = Integer(79).tag(config=True)


class FakeShell(Configurable):
    """A shell that notes what is run."""

    colors = Unicode("neutral").tag(config=True)

    def __init__(self) -> None:
        super().__init__()
        self.configurables: list[Configurable] = [Formatter()]
        self.user_ns: dict[str, object] = {}
        self.ran: list[str] = []

    def safe_execfile(self, file: str, namespace: dict[str, object], *, shell_futures: bool) -> None:
        """A file in the user's namespace."""
        assert namespace is self.user_ns
        self.ran.append(file)

    def run_cell(self, line: str, *, store_history: bool) -> None:
        """A line."""
        self.ran.append(line)


def test_an_engine_begins_where_its_set_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = FakeShell()
    monkeypatch.setattr(engine_start, "get_ipython", lambda: shell)
    monkeypatch.setattr(sys, "path", ["a"])
    monkeypatch.chdir("/")
    monkeypatch.setenv("OF_THE_SET", "no")
    settings = Config({"FakeShell": {"colors": "nocolor"}, "Formatter": {"max_width": 10}})
    engine_start.begin(
        {"OF_THE_SET": "yes"}, str(tmp_path), ["a", "b"], settings=settings, files=["f.py"], lines=["x = 1"]
    )
    assert os.environ["OF_THE_SET"] == "yes"
    assert Path.cwd() == tmp_path
    assert sys.path == ["a", "b"]
    assert shell.ran == ["f.py", "x = 1"]
    assert shell.colors == "nocolor"
    assert [part.max_width for part in shell.configurables] == [10]
