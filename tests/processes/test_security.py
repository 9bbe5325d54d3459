"""Who may come in, and what happens to everything else that knocks."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import psutil
import pytest
import zmq

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import ConnectionFileError, NotAuthorised
from hiersched.limits import HEADER_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import PROTOCOL_VERSION, decode, encode
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection
from tests.patience import DEADLINE_S, until
from tests.processes.conftest import host_of


@pytest.fixture(scope="module")
def open_door() -> Iterator[Cluster]:
    """A cluster that also listens on a tcp port."""
    cluster = Cluster(2, ip="127.0.0.1")
    with cluster:
        yield cluster


@pytest.fixture
def rc(open_door: Cluster) -> Iterator[Client]:
    with Client(open_door.connection_file) as client:
        yield client


@pytest.fixture
def found(open_door: Cluster) -> Connection:
    return connection.read(open_door.connection_file)


class Stranger:
    """A peer that sends what it likes. keys: of CURVE, if it has any."""

    def __init__(self, address: str, found: Connection | None = None) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.set_string(zmq.IDENTITY, uuid.uuid4().hex)
        if found is not None and found.curve is not None:
            found.curve.enter(self.socket)
        self.socket.connect(address)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()

    def says(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def hears(self) -> m.Message:
        assert self.socket.poll(int(DEADLINE_S * 1000)), "no answer"
        first, *others = self.socket.recv_multipart()
        return decode(first, others)[0]


def count(rc: Client, kind: str) -> int:
    return rc.status()["levels"][0].get(kind, 0)


def hello(found: Connection, **changes: str) -> m.Hello:
    facts = {"cluster": found.cluster, "key": found.key, "role": "client"} | changes
    return m.Hello(facts["cluster"], facts["key"], facts["role"], "uuid", os.getpid(), "elsewhere", 0, 0)


def header(message: m.Message) -> bytes:
    return b"".join(encode(message))


# --- who may come in --------------------------------------------------------------------------------------------------


def test_a_client_without_the_key_is_refused_and_counted(rc: Client, found: Connection) -> None:
    before = count(rc, "unauthorised")
    with pytest.raises(NotAuthorised, match="use the connection file that this cluster wrote"):
        Client(msgspec.structs.replace(found, key="guessed"))
    assert count(rc, "unauthorised") == before + 1


def test_a_client_of_another_cluster_is_refused_and_counted(rc: Client, found: Connection) -> None:
    before = count(rc, "refused")
    with pytest.raises(ConnectionFileError, match="the connection file is stale"):
        Client(msgspec.structs.replace(found, cluster="another"))
    assert count(rc, "refused") == before + 1


def test_a_peer_of_another_version_is_told_so_and_counted(rc: Client, found: Connection) -> None:
    before = count(rc, "version")
    with Stranger(found.address) as stranger:
        ours = header(hello(found))
        stranger.says(ours[:2] + bytes([PROTOCOL_VERSION + 1]) + ours[3:])
        answer = stranger.hears()
    assert isinstance(answer, m.Refused)
    assert answer.code == "VersionMismatch"
    assert "install the same version of hiersched on both sides" in answer.text
    assert count(rc, "version") == before + 1


def test_whoever_has_not_said_hello_is_not_listened_to(rc: Client, found: Connection) -> None:
    before = count(rc, "unauthorised")
    with Stranger(found.address) as stranger:
        stranger.says(header(m.Stop("mischief")))
        answer = stranger.hears()
    assert isinstance(answer, m.Refused)
    assert answer.code == "NotAuthorised"
    assert count(rc, "unauthorised") == before + 1
    assert rc[:].apply_sync(abs, -3) == [3, 3]


@pytest.mark.parametrize("role", ["engine", "scheduler"])
def test_nobody_takes_the_place_of_an_engine(rc: Client, found: Connection, role: str) -> None:
    before = count(rc, "refused")
    with Stranger(found.address) as stranger:
        intruder = hello(found, role=role)
        stranger.says(header(m.Hello(*msgspec.structs.astuple(intruder)[:6], 0, 1)))
        answer = stranger.hears()
    assert isinstance(answer, m.Refused)
    assert "are taken" in answer.text
    assert count(rc, "refused") == before + 1
    assert rc[:].apply_sync(abs, -3) == [3, 3]


# --- what is no message -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"garbage"],
        [b"HS"],
        [b"HS" + bytes([PROTOCOL_VERSION])],
        [b"HS" + bytes([PROTOCOL_VERSION]) + b"\xc1" * 100],
        [b"", b"", b""],
        [Random(7).randbytes(10_000)],
        [b"HS" + bytes([PROTOCOL_VERSION]) + bytes(HEADER_BYTES_MAX)],
        [b"HS" + bytes([PROTOCOL_VERSION])] * 1000,
    ],
    ids=["nothing", "garbage", "magic", "version", "no message", "empty frames", "noise", "oversized", "frames"],
)
def test_what_is_no_message_is_dropped_and_counted(rc: Client, found: Connection, frames: list[bytes]) -> None:
    before = count(rc, "malformed")
    with Stranger(found.address) as stranger:
        stranger.says(*frames)
        until(lambda: count(rc, "malformed") == before + 1, "it is counted")
    assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_a_flood_of_garbage_does_not_keep_the_root_from_its_work(rc: Client, found: Connection) -> None:
    before = count(rc, "malformed")
    with Stranger(found.address) as stranger:
        for _ in range(5_000):
            stranger.says(b"garbage")
        assert rc[:].apply_async(abs, -3).get(DEADLINE_S) == [3, 3]
        until(lambda: count(rc, "malformed") == before + 5_000, "all of it is counted")


def test_a_client_that_talks_nonsense_after_its_hello_is_not_believed(rc: Client, found: Connection) -> None:
    before = count(rc, "malformed")
    with Stranger(found.address) as stranger:
        stranger.says(header(hello(found)))
        assert isinstance(stranger.hears(), m.Welcome)
        stranger.says(header(m.Members((0, b""), (0, b"\x03"), "a lie")))
        stranger.says(header(m.Call(1, (0, b""), m.CALL_LANE, bytes(16), [], [])))
        answer = stranger.hears()
        assert isinstance(answer, m.Reply)
        assert answer.losses[0].code == m.REFUSED
        stranger.says(header(m.Bye("done")))
        until(lambda: count(rc, "malformed") == before + 1, "the lie is counted")
    assert rc.ids == [0, 1]


# --- tcp --------------------------------------------------------------------------------------------------------------


def test_a_remote_client_with_the_keys_comes_in(found: Connection) -> None:
    remote = msgspec.structs.replace(found, host="elsewhere")  # so that it takes the tcp road
    with Client(remote) as client:
        assert client[:].apply_async(sum, range(10)).get(DEADLINE_S) == [45, 45]
        assert client.load_balanced_view().map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))


def test_a_tcp_peer_without_the_keys_is_refused_and_counted(rc: Client, found: Connection) -> None:
    assert found.tcp_address is not None
    before = count(rc, "unauthorised")
    with Stranger(found.tcp_address) as stranger:
        stranger.says(header(hello(found)))
        until(lambda: count(rc, "unauthorised") > before, "it is counted")
        assert not stranger.socket.poll(0)


def test_a_tcp_peer_with_the_keys_of_another_cluster_is_refused_and_counted(rc: Client, found: Connection) -> None:
    assert found.tcp_address is not None
    assert found.curve is not None
    public, secret = zmq.curve_keypair()
    foreign = msgspec.structs.replace(found.curve, client_public=public.decode(), client_secret=secret.decode())
    before = count(rc, "unauthorised")
    with Stranger(found.tcp_address, msgspec.structs.replace(found, curve=foreign)) as stranger:
        stranger.says(header(hello(found)))
        until(lambda: count(rc, "unauthorised") > before, "it is counted")
        assert not stranger.socket.poll(0)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, Random(7).randbytes(4096)], ids=["http", "ff", "noise"]
)
def test_noise_on_the_tcp_port_is_cut_off(rc: Client, found: Connection, noise: bytes) -> None:
    assert found.tcp_address is not None
    host, port = found.tcp_address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as peer:
        peer.sendall(noise)
        with contextlib.suppress(ConnectionResetError):
            while peer.recv(4096):  # ends when the other side hangs up
                pass
    assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_a_client_elsewhere_needs_a_tcp_port(flat: Cluster) -> None:
    remote = msgspec.structs.replace(connection.read(flat.connection_file), host="elsewhere")
    with pytest.raises(ConnectionFileError, match="start it with an ip to reach it"):
        Client(remote)


def test_nothing_listens_on_the_network_unless_asked_to(flat_rc: Client, rc: Client) -> None:
    def listening(client: Client) -> set[str]:
        host = host_of(client)
        sockets = [s for process in (host, *host.children()) for s in process.net_connections(kind="inet")]
        return {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}

    assert listening(flat_rc) == set()
    assert listening(rc) == {"127.0.0.1"}


def test_keys_stay_between_the_owner_and_the_cluster(open_door: Cluster, found: Connection) -> None:
    assert open_door.connection_file.stat().st_mode & 0o777 == 0o600
    for process in (host_of_file(found), *host_of_file(found).children()):
        words = " ".join(process.cmdline()) + " ".join(process.environ().values())
        assert found.key not in words
        assert found.curve is not None
        assert found.curve.client_secret not in words


def host_of_file(found: Connection) -> psutil.Process:
    return psutil.Process(found.nursery)


# --- connection files -------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot be read"):
        Client(tmp_path / "none.json")
    with pytest.raises(ConnectionFileError, match="no cluster"):
        Client(cluster_id="never-started")


def test_a_file_that_is_no_connection_file(tmp_path: Path) -> None:
    for text in ("", "{}", "not json", '{"cluster": 3}', "\x00\xff"):
        (tmp_path / "broken.json").write_text(text, encoding="latin-1")
        with pytest.raises(ConnectionFileError, match="is not a connection file of hiersched"):
            Client(tmp_path / "broken.json")


def test_a_file_of_a_cluster_that_has_ended(tmp_path: Path) -> None:
    with Cluster(1) as rc:
        kept = tmp_path / "kept.json"
        kept.write_bytes(connection.path_of(rc.cluster_id).read_bytes())
    with pytest.raises(ConnectionFileError, match="is stale"):
        Client(kept)


def test_a_file_of_another_version(tmp_path: Path, found: Connection) -> None:
    other = tmp_path / "other.json"
    connection.write(other, msgspec.structs.replace(found, protocol=PROTOCOL_VERSION + 1))
    with pytest.raises(ConnectionFileError, match="install the same version of hiersched on both sides"):
        Client(other)


def test_a_file_of_another_cluster_than_the_one_named(open_door: Cluster) -> None:
    with pytest.raises(ConnectionFileError, match="not 'expected'"):
        Client(open_door.connection_file, cluster_id="expected")


def test_a_root_that_does_not_answer(tmp_path: Path, found: Connection) -> None:
    """Its process lives, but nobody reads at that address."""
    silent = msgspec.structs.replace(found, address=f"ipc://{tmp_path}/nobody", pid=os.getpid())
    with pytest.raises(ConnectionFileError, match="did not answer within"):
        Client(silent, timeout=0.2)
