"""ipyparallel's two connection files: one for clients, one for engines, each with all that its reader needs.

They lie in the profile's security directory, readable by their owner only, under ipyparallel's own names and with its
own keys. One key is ours: "hiersched" has the connection to the root, which leads clients and engine sets of our own to
the same cluster. ipyparallel ignores keys that it does not know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hiersched.compat.door_config import CLIENT_CHANNELS, ENGINE_CHANNELS, DoorConfig
from hiersched.errors import ConnectionFileError
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

OUR_KEY = "hiersched"
_SHARED_KEYS = ("key", "pack", "unpack", "signature_scheme")  # the same in both files of a cluster


def write_client(config: DoorConfig, ports: Mapping[str, int], hiersched: Connection) -> None:
    """Write the file for clients, if there is to be one. ports: those that were bound, by CLIENT_CHANNELS."""
    own = {"ssh": config.ssh, "interface": f"tcp://{config.client_ip}", "task_scheme": config.task_scheme}
    bound: dict[str, object] = {channel: ports[channel] for channel in CLIENT_CHANNELS}
    _write(config.client_file, own | bound | _common(config), hiersched)


def write_engine(config: DoorConfig, ports: Mapping[str, int], hiersched: Connection | None = None) -> None:
    """Write the file for engines, if there is to be one. ports: those that were bound, by ENGINE_CHANNELS.

    hiersched: the connection to the root, by whoever knows it.
    """
    own = {"ssh": config.engine_ssh, "interface": f"tcp://{config.engine_ip}"}
    bound: dict[str, object] = {channel: ports[channel] for channel in ENGINE_CHANNELS}
    bound["broadcast"] = [ports["broadcast"]]  # one for each leaf scheduler, and engines see a single one
    _write(config.engine_file, own | bound | _common(config), hiersched)


def remove(config: DoorConfig) -> None:
    """Remove both files of this cluster, unless they are to be used again, or another has written its own since."""
    if config.reuse:
        return
    secret = _secret(_common(config))
    for name in filter(None, (config.client_file, config.engine_file)):
        path = Path(name)
        with contextlib.suppress(ConnectionFileError):
            if _secret(read(path)) == secret:
                path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """What a connection file of ipyparallel's says. Raises ConnectionFileError if there is none, or it is broken."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConnectionFileError(f"{path} cannot be read ({error.strerror})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectionFileError(f"{path} is not a connection file of ipyparallel: {error}") from None


def read_pair(client_file: Path, engine_file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both files of a cluster, to be used by another one. Raises ConnectionFileError if they do not fit together."""
    client, engine = read(client_file), read(engine_file)
    for path, content, channels in ((client_file, client, CLIENT_CHANNELS), (engine_file, engine, ENGINE_CHANNELS)):
        missing = [key for key in (*_SHARED_KEYS, "interface", "location", *channels) if key not in content]
        if missing:
            raise ConnectionFileError(f"{path} lacks {', '.join(missing)}: remove it, and start without it")
    for key in _SHARED_KEYS:
        if client[key] != engine[key]:
            raise ConnectionFileError(f"{client_file} and {engine_file} differ in {key!r}: remove them")
    return client, engine


def ports_in(content: Mapping[str, Any], channels: tuple[str, ...]) -> dict[str, int]:
    """The ports that a file names. Of the broadcast channel the first: ours has no more."""
    ports = {channel: content[channel] for channel in channels}
    return {channel: port[0] if isinstance(port, list) else port for channel, port in ports.items()}


def root_in(content: Mapping[str, Any], source: str) -> Connection:
    """The connection to the root in a file's content. source: where that is from, as a person would say.

    Raises ConnectionFileError if there is none, or its cluster is gone.
    """
    if OUR_KEY not in content:
        raise ConnectionFileError(
            f"{source} is of ipyparallel's own controller, which our engines cannot join: "
            'start the controller with controller="hiersched", or the engines with engines="local"'
        )
    try:
        found = msgspec.convert(content[OUR_KEY], Connection)
    except msgspec.ValidationError as error:
        raise ConnectionFileError(f"{source} has a broken {OUR_KEY!r} entry: {error}") from None
    connection.check(found, source)
    return found


def _common(config: DoorConfig) -> dict[str, Any]:
    """What both files have."""
    return {
        "key": config.key.decode("ascii"),
        "curve_serverkey": config.curve_publickey.decode("ascii") or None,
        "location": config.location,
        "pack": config.pack,
        "unpack": config.unpack,
        "signature_scheme": config.signature_scheme,
    }


def _secret(content: Mapping[str, Any]) -> tuple[Any, Any]:
    """What no other cluster has."""
    return content.get("key"), content.get("curve_serverkey")


def _write(name: str, content: dict[str, Any], hiersched: Connection | None) -> None:
    if name:
        if hiersched is not None:
            content[OUR_KEY] = msgspec.to_builtins(hiersched)
        connection.write_private(Path(name), content)
