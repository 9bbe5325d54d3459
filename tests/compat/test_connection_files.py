"""ipyparallel's connection files, as a controller of ours writes and reads them."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from hiersched.compat import connection_files
from hiersched.compat.door_config import CLIENT_CHANNELS, ENGINE_CHANNELS, DoorConfig
from hiersched.errors import ConnectionFileError
from hiersched.runtime.connection import Connection

CLIENT_PORTS = {channel: 5000 + place for place, channel in enumerate(CLIENT_CHANNELS)}
ENGINE_PORTS = {channel: 6000 + place for place, channel in enumerate(ENGINE_CHANNELS)}
SHARED = {"interface", "registration", "control", "mux", "task", "iopub", "broadcast", "location", "ssh"}
SHARED |= {"key", "curve_serverkey", "pack", "unpack", "signature_scheme"}


def doors(directory: Path, **changes: object) -> DoorConfig:
    """The doors of a cluster that has its files in this directory."""
    files = {kind: str(directory / f"ipcontroller-a-{kind}.json") for kind in ("client", "engine")}
    facts = {"key": b"secret", "client_file": files["client"], "engine_file": files["engine"], "location": "here"}
    return DoorConfig(**(facts | changes))  # type: ignore[arg-type]


def root(pid: int | None = None) -> Connection:
    """A root that runs here: this very process."""
    return Connection(
        cluster="a", key="k", address="ipc://x/root", host=socket.gethostname(), pid=pid or os.getpid(), nursery=1
    )


def written(config: DoorConfig) -> tuple[dict, dict]:
    """What is in both files once the doors have written them."""
    connection_files.write_client(config, CLIENT_PORTS, root())
    connection_files.write_engine(config, ENGINE_PORTS)
    client, engine = (json.loads(Path(name).read_text()) for name in (config.client_file, config.engine_file))
    return client, engine


def test_both_files_have_ipyparallels_keys_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    config = doors(tmp_path)
    client, engine = written(config)
    assert client.keys() == SHARED | {"notification", "task_scheme", "hiersched"}
    assert engine.keys() == SHARED | {"hb_ping", "hb_pong"}
    assert client["mux"] == CLIENT_PORTS["mux"]
    assert engine["broadcast"] == [ENGINE_PORTS["broadcast"]]
    assert client["key"] == engine["key"] == "secret"
    for name in (config.client_file, config.engine_file):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_with_curve_the_servers_key_is_in_both_and_no_other(tmp_path: Path) -> None:
    config = doors(tmp_path, key=b"", curve_publickey=b"p" * 40, curve_secretkey=b"s" * 40)
    client, engine = written(config)
    assert client["curve_serverkey"] == engine["curve_serverkey"] == "p" * 40
    assert client["key"] == engine["key"] == ""
    assert "s" * 40 not in Path(config.client_file).read_text() + Path(config.engine_file).read_text()


def test_a_file_without_a_name_is_not_written(tmp_path: Path) -> None:
    connection_files.write_client(doors(tmp_path, client_file=""), CLIENT_PORTS, root())
    connection_files.write_engine(doors(tmp_path, engine_file=""), ENGINE_PORTS, root())
    assert not list(tmp_path.iterdir())


def test_the_files_are_removed_at_the_end_unless_they_are_to_be_used_again(tmp_path: Path) -> None:
    written(doors(tmp_path, reuse=True))
    connection_files.remove(doors(tmp_path, reuse=True))
    assert len(list(tmp_path.iterdir())) == 2
    connection_files.remove(doors(tmp_path))
    connection_files.remove(doors(tmp_path))  # whoever comes second finds nothing to do
    assert not list(tmp_path.iterdir())


def test_the_files_of_another_cluster_that_has_taken_the_name_are_left_alone(tmp_path: Path) -> None:
    written(doors(tmp_path, key=b"another"))
    connection_files.remove(doors(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pair_of_files_is_read_with_its_ports(tmp_path: Path) -> None:
    config = doors(tmp_path)
    written(config)
    client, engine = connection_files.read_pair(Path(config.client_file), Path(config.engine_file))
    assert connection_files.ports_in(client, CLIENT_CHANNELS) == CLIENT_PORTS
    assert connection_files.ports_in(engine, ENGINE_CHANNELS) == ENGINE_PORTS


def test_a_pair_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    config = doors(tmp_path)
    written(config)
    connection_files.write_engine(doors(tmp_path, key=b"another"), ENGINE_PORTS)
    with pytest.raises(ConnectionFileError, match="differ in 'key'"):
        connection_files.read_pair(Path(config.client_file), Path(config.engine_file))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": "k"}', "\x00"])
def test_what_is_no_connection_file_is_refused(tmp_path: Path, text: str) -> None:
    config = doors(tmp_path)
    written(config)
    Path(config.client_file).write_text(text)
    with pytest.raises(ConnectionFileError, match="ipcontroller-a-client"):
        connection_files.read_pair(Path(config.client_file), Path(config.engine_file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot be read"):
        connection_files.read(tmp_path / "gone.json")


def test_the_root_is_found_in_the_file_for_clients(tmp_path: Path) -> None:
    client, engine = written(doors(tmp_path))
    assert connection_files.root_in(client, "the file") == root()
    with pytest.raises(ConnectionFileError, match="ipyparallel's own controller"):
        connection_files.root_in(engine, "the file")


def test_what_only_looks_like_a_root_is_refused() -> None:
    gone = {"hiersched": {"cluster": "a", "key": "k"}}
    with pytest.raises(ConnectionFileError, match="broken 'hiersched' entry"):
        connection_files.root_in(gone, "the file")
