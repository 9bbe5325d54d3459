"""The connection file: all that a client needs to find a cluster and be let in.

It lies under the cluster's id in the clusters' directory, or in the directory of a profile, with mode 0600, because it
holds the key. It is written when the root can be reached and removed when the cluster ends; a file left by a cluster
that was killed is found to be stale by the process it names.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

import msgspec

from hiersched.errors import ConnectionFileError
from hiersched.protocol.framing import PROTOCOL_VERSION
from hiersched.runtime.keys import CurveKeys


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a root. address: ipc, for peers on `host`; tcp_address, curve: for others, if it listens there.

    pid: the root. nursery: the process that ends last, when all others of the cluster on its host have ended. sets: the
    engines that were started together, as in '0-3,7', by the id of their set.
    """

    cluster: str
    key: str
    address: str
    host: str
    pid: int
    nursery: int
    protocol: int = PROTOCOL_VERSION
    tcp_address: str | None = None
    curve: CurveKeys | None = None
    sets: dict[str, str] = {}


class _Carrier(msgspec.Struct):
    """A connection file of ipyparallel's that leads to a root too."""

    hiersched: Connection


class _Owner(msgspec.Struct):
    """What connection files of every version tell."""

    host: str
    pid: int


def clusters_directory() -> Path:
    """Where connection files lie: $HIERSCHED_DIR, or ~/.hiersched. Made, for its owner only, if it is not there."""
    directory = Path(os.environ.get("HIERSCHED_DIR") or Path.home() / ".hiersched")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def path_of(cluster: str, directory: str | Path | None = None) -> Path:
    """The connection file of a cluster of this user. directory: of its profile; by default the clusters' directory."""
    return Path(directory or clusters_directory()) / f"{cluster}.json"


def write(path: Path, connection: Connection) -> None:
    """Write the file at once and whole, readable by its owner only."""
    write_private(path, connection)


def write_private(path: Path, content: object) -> None:
    """Write what holds a key as JSON: at once and whole, readable by its owner only."""
    draft = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    draft.replace(path)


def read(path: Path) -> Connection:
    """The connection in a file. Raises ConnectionFileError that says what is wrong with it and what to do."""
    connection = read_any(path)
    check(connection, str(path))
    return connection


def check(connection: Connection, source: str) -> None:
    """Raise ConnectionFileError if this cannot be connected to. source: where it was found, as a person would say."""
    if connection.protocol != PROTOCOL_VERSION:
        raise ConnectionFileError(
            f"{source} is of a cluster that speaks protocol version {connection.protocol}, this side speaks "
            f"{PROTOCOL_VERSION}: install the same version of hiersched on both sides"
        )
    if is_gone(connection):
        raise ConnectionFileError(
            f"{source} is stale: the cluster's process {connection.pid} is gone. Start a new cluster."
        )


def read_any(path: Path) -> Connection:
    """The connection in a file, of whatever version, gone or not. Raises ConnectionFileError if it is none.

    A file of ipyparallel's that leads to a root, written by a controller of ours, will do as well.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConnectionFileError(f"{path} cannot be read ({error.strerror}). Is the cluster running?") from None
    try:
        return msgspec.json.decode(data, type=Connection)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(data, type=_Carrier).hiersched
        raise ConnectionFileError(f"{path} is not a connection file of hiersched: {error}") from None


def is_ours(path: Path) -> bool:
    """Whether this is a connection file, of any version."""
    return _owner_of(path) is not None


def is_free(path: Path) -> bool:
    """Whether a new cluster may write its connection here: there is no file, or one of a cluster that is gone.

    A file that is none of ours, or of a cluster on another host, is somebody's.
    """
    owner = _owner_of(path)
    if owner is None:
        return not path.exists()
    return owner.host == socket.gethostname() and not _lives(owner.pid)


def remove(path: Path, key: str) -> None:
    """Remove the file if it is of the cluster with this key, and not of another that has taken the name since."""
    try:
        connection = msgspec.json.decode(path.read_bytes(), type=Connection)
    except (FileNotFoundError, msgspec.MsgspecError):
        return
    if connection.key == key:
        path.unlink(missing_ok=True)


def names(directory: str | Path | None = None) -> list[str]:
    """Clusters of this user that have a connection file, the oldest first."""
    ages = {}
    for path in Path(directory or clusters_directory()).glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # its cluster has just ended
            ages[path.stem] = path.stat().st_mtime_ns
    return sorted(ages, key=ages.__getitem__)


def newest(directory: str | Path | None = None) -> Path:
    """The connection file written last by a cluster that runs. Raises ConnectionFileError if none does."""
    problem: ConnectionFileError | None = None
    for name in reversed(names(directory)):
        try:
            read(path_of(name, directory))
        except ConnectionFileError as error:
            problem = problem or error
        else:
            return path_of(name, directory)
    raise problem or ConnectionFileError(
        f"no cluster runs: {directory or clusters_directory()} holds no connection file. "
        "Start one with `hiersched start -n 4`."
    )


def is_local(connection: Connection) -> bool:
    """The root is on this host."""
    return connection.host == socket.gethostname()


def is_gone(connection: Connection) -> bool:
    """The root has ended, as far as can be seen from this host."""
    return is_local(connection) and not _lives(connection.pid)


def _owner_of(path: Path) -> _Owner | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Owner)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _lives(pid: int) -> bool:
    """Whether a process runs. One that nobody has reaped yet has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return not ended.poll(0)
    finally:
        os.close(descriptor)
