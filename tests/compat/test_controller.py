"""The controller's application: what ipcontroller's flags, variables and files mean for the doors."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hiersched.compat import connection_files, controller
from hiersched.compat.controller_app import HierschedController
from hiersched.compat.door_config import CLIENT_CHANNELS, ENGINE_CHANNELS, DoorConfig
from tests.compat.test_connection_files import root

Configured = Callable[..., HierschedController]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The directory of the profile."""
    return tmp_path / "profile"


@pytest.fixture
def configured(profile: Path, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Gives the application as these flags make it."""
    for variable in [name for name in os.environ if name.startswith("IPP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("IPYTHONDIR", str(profile.parent))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def configure(*flags: str) -> HierschedController:
        app = HierschedController()
        app.initialize([f"--profile-dir={profile}", *flags])
        return app

    return configure


def doors(app: HierschedController) -> DoorConfig:
    """What the doors are told."""
    return app.door_config()


def test_without_flags_it_is_as_ipcontroller_would_have_it(configured: Configured, profile: Path) -> None:
    config = doors(configured())
    assert config.client_file == str(profile / "security" / "ipcontroller-client.json")
    assert config.engine_file == str(profile / "security" / "ipcontroller-engine.json")
    assert (config.client_ip, config.engine_ip) == ("127.0.0.1", "127.0.0.1")
    assert set(config.client_ports.values()) == set(config.engine_ports.values()) == {0}
    assert config.client_ports.keys() == set(CLIENT_CHANNELS)
    assert config.engine_ports.keys() == set(ENGINE_CHANNELS)
    assert len(config.key) > 30
    assert not config.curve
    assert (config.heartbeat_ms, config.registration_timeout_s) == (3000, 30.0)
    assert config.db == "ipyparallel.controller.dictdb.DictDB"
    assert config.task_scheme == "leastload"


def test_flags_of_ipcontroller_mean_what_they_mean_there(configured: Configured) -> None:
    app = configured(
        "--cluster-id=b", "--ip=*", "--location=far", "--ssh=me@gate", "--enginessh=you@gate", "--ping=250",
        "--scheme=lru", "--log-level=10", "--sqlitedb", "--Session.packer=pickle", "--Session.unpacker=pickle",
    )  # fmt: skip
    config = doors(app)
    assert config.client_file.endswith("/ipcontroller-b-client.json")
    assert (config.client_ip, config.engine_ip, config.location) == ("*", "*", "far")
    assert (config.ssh, config.engine_ssh) == ("me@gate", "you@gate")
    assert (config.heartbeat_ms, config.task_scheme, config.log_level) == (250, "lru", logging.DEBUG)
    assert (config.pack, config.unpack) == ("pickle", "pickle")
    assert config.db == "ipyparallel.controller.sqlitedb.SQLiteDB"
    assert config.db_arguments["location"] == app.profile_dir.location
    assert config.cluster_id == "b"


def test_a_long_beat_gives_engines_long_to_register(configured: Configured) -> None:
    assert doors(configured("--ping=10000")).registration_timeout_s == 100.0
    assert doors(configured("--IPController.registration_timeout=7")).registration_timeout_s == 7.0


@pytest.mark.parametrize(
    ("flag", "name"), [("--nodb", "dictdb.NoDB"), ("--dictdb", "dictdb.DictDB"), ("--sqlitedb", "sqlitedb.SQLiteDB")]
)
def test_the_database_is_the_one_of_the_flag(configured: Configured, flag: str, name: str) -> None:
    assert doors(configured(flag)).db == f"ipyparallel.controller.{name}"


def test_the_database_is_told_what_the_configuration_says(configured: Configured) -> None:
    arguments = doors(configured("--sqlitedb", "--SQLiteDB.filename=calls.db", "--DictDB.record_limit=5")).db_arguments
    assert arguments["filename"] == "calls.db"
    assert "record_limit" not in arguments
    assert doors(configured("--dictdb", "--DictDB.record_limit=5")).db_arguments["record_limit"] == 5


def test_the_environment_names_the_cluster_and_the_profile(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPP_CLUSTER_ID", "of-env")
    monkeypatch.setenv("IPP_SESSION_KEY", "told")
    config = doors(configured())
    assert config.client_file.endswith("/ipcontroller-of-env-client.json")
    assert config.key == b"told"


def test_curve_takes_the_place_of_the_signing_key(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPP_ENABLE_CURVE", "1")
    config = doors(configured())
    assert config.curve
    assert len(config.curve_publickey) == len(config.curve_secretkey) == 40
    assert config.key == b""


def test_curve_keys_may_come_from_the_environment(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPP_CURVE_PUBLICKEY", "p" * 40)
    monkeypatch.setenv("IPP_CURVE_SECRETKEY", "s" * 40)
    config = doors(configured("--IPController.enable_curve=True"))
    assert (config.curve_publickey, config.curve_secretkey) == (b"p" * 40, b"s" * 40)


def test_ports_come_from_the_users_pools_as_long_as_they_last(configured: Configured) -> None:
    config = doors(configured("--ports=10101-10110"))
    drawn = [*config.engine_ports.values(), *config.client_ports.values()]
    assert drawn == [*range(10101, 10111), *[0] * (len(drawn) - 10)]


def test_a_port_that_is_taken_ends_the_start_and_is_named(
    configured: Configured, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = configured(f"--IPController.client_ports={port}")
        app.log.propagate = True
        with pytest.raises(SystemExit) as exit_info:
            app.start()
    assert exit_info.value.code == 1
    assert f"'registration' cannot listen at 127.0.0.1:{port}" in caplog.text


def test_one_port_is_where_engines_register(configured: Configured) -> None:
    config = doors(configured("--port=10101"))
    assert config.engine_ports["registration"] == 10101
    assert sum(config.engine_ports.values()) + sum(config.client_ports.values()) == 10101


def test_the_root_listens_to_other_hosts_where_the_doors_do(configured: Configured) -> None:
    for flags, ip in (((), None), (("--ip=*",), "*"), (("--ip=10.1.2.3",), "10.1.2.3")):
        config = configured(*flags).host_config()
        Path(config.directory).rmdir()
        assert config.ip == ip
        assert config.cluster == "default"
        assert config.guests


def test_flags_without_a_meaning_are_named_with_the_reason(
    configured: Configured, capfd: pytest.CaptureFixture[str]
) -> None:
    configured("--usethreads", "--hwm=5", "--IPController.broadcast_scheduler_depth=3", "--log-url=tcp://127.0.0.1:1")
    said = capfd.readouterr().err
    for name in ("use_threads", "hwm", "broadcast_scheduler_depth", "log_url"):
        assert f"{name} is ignored: " in said


# --- files that are used again ----------------------------------------------------------------------------------------


def test_files_that_are_used_again_keep_their_keys_addresses_and_ports(configured: Configured) -> None:
    first = doors(configured("--reuse", "--ip=*", "--location=far", "--ssh=me@gate"))
    client_ports = {channel: 5000 + place for place, channel in enumerate(CLIENT_CHANNELS)}
    engine_ports = {channel: 6000 + place for place, channel in enumerate(ENGINE_CHANNELS)}
    connection_files.write_client(first, client_ports, root())
    connection_files.write_engine(first, engine_ports)
    again = doors(configured("--reuse"))
    assert again.reuse
    assert (again.client_ports, again.engine_ports) == (client_ports, engine_ports)
    assert (again.key, again.client_ip, again.location, again.ssh) == (first.key, "*", "far", "me@gate")
    fresh = doors(configured())
    assert fresh.key != first.key
    assert set(fresh.client_ports.values()) == {0}


def test_restoring_uses_the_files_again(configured: Configured, profile: Path) -> None:
    config = doors(configured("--restore", "--cluster-id=b"))
    assert config.restore
    assert config.reuse
    assert config.state_file == str(profile / "log" / "enginesb.json")


def test_broken_files_are_not_used_again_and_it_is_said_why(
    configured: Configured, profile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    security = Path(configured().profile_dir.security_dir)
    for kind in ("client", "engine"):
        (security / f"ipcontroller-{kind}.json").write_text(json.dumps({"key": "k"}))
    assert set(doors(configured("--reuse")).client_ports.values()) == {0}
    assert "Could not load connection files: " in capfd.readouterr().err


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "threads"), [("", 1), ("3", 3), ("4,2", 4), ("0", 1), ("many", 1)])
def test_an_engine_has_as_many_threads_as_the_user_says_or_one(
    monkeypatch: pytest.MonkeyPatch, said: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert controller.engine_threads() == threads


@pytest.mark.processes
def test_the_process_has_one_thread_and_no_context_when_it_begins_to_fork(profile: Path) -> None:
    script = """
import os, sys
from hiersched.compat import controller
from hiersched.nodes import host

def run(config, lodge):
    import zmq
    print(len(os.listdir("/proc/self/task")), zmq.Context._instance)
    os.rmdir(config.directory)
    return 0

host.run = run
controller.main([f"--profile-dir={sys.argv[1]}", "--sqlitedb", "--ip=*"])
"""
    command = [sys.executable, "-c", script, str(profile)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "1 None\n"
