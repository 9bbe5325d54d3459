"""What the doors for ipyparallel's clients and engines are told: names, keys, ports, files, and how they keep books.

The controller decides all of it, from ipcontroller's own flags and files, before any process is forked; the doors only
read it. Ports are named as in ipyparallel's connection files, so that a file and a configuration have the same words.
"""

from __future__ import annotations

from typing import Any

import msgspec

CLIENT_CHANNELS = ("registration", "control", "mux", "task", "broadcast", "notification", "iopub")
ENGINE_CHANNELS = ("registration", "control", "mux", "task", "broadcast", "iopub", "hb_ping", "hb_pong")


def any_ports(channels: tuple[str, ...]) -> dict[str, int]:
    """Ports for these channels, left to the system: {channel: 0}."""
    return dict.fromkeys(channels, 0)


class DoorConfig(msgspec.Struct, kw_only=True, frozen=True):
    """One cluster's doors.

    key: signs every message; empty with CURVE, and then nothing is signed. signature_scheme: as 'hmac-sha256'. pack,
    unpack: how headers and contents are written: 'json', 'pickle', or the name of an importable function. client_ip,
    engine_ip: the addresses to listen at; '*' for all. location: the name of this host, for those on others. ssh,
    engine_ssh: 'user@host' through which they come; '' for none. client_ports, engine_ports: {channel: port}, where 0
    leaves the choice to the system. curve_publickey, curve_secretkey: in Z85, 40 bytes each; empty without CURVE.
    task_scheme: told to clients: how a task's engine would be picked, as 'leastload'; with 'pure' they ask for nothing
    but that. client_file, engine_file: where the connection files are written; '' for nowhere. reuse: these files
    outlive the controller. state_file: where is written which engines of ipyparallel there are; '' for nowhere;
    restore: those in that file are let in again. db: the name of an importable class of ipyparallel that keeps the
    records; db_arguments: traits set on it. heartbeat_ms, max_missed_beats: an engine that misses more than so many
    in a row is lost. registration_timeout_s: for an engine's first beat. log_level: as in `logging`. cluster_id: ''
    for none.
    """

    key: bytes
    signature_scheme: str = "hmac-sha256"
    pack: str = "json"
    unpack: str = "json"
    client_ip: str = "127.0.0.1"
    engine_ip: str = "127.0.0.1"
    location: str = ""
    ssh: str = ""
    engine_ssh: str = ""
    client_ports: dict[str, int] = msgspec.field(default_factory=lambda: any_ports(CLIENT_CHANNELS))
    engine_ports: dict[str, int] = msgspec.field(default_factory=lambda: any_ports(ENGINE_CHANNELS))
    curve_publickey: bytes = b""
    curve_secretkey: bytes = b""
    task_scheme: str = "leastload"
    client_file: str = ""
    engine_file: str = ""
    reuse: bool = False
    state_file: str = ""
    restore: bool = False
    db: str = "ipyparallel.controller.dictdb.NoDB"
    db_arguments: dict[str, Any] = {}
    heartbeat_ms: int = 3000
    max_missed_beats: int = 10
    registration_timeout_s: float = 30.0
    log_level: int = 30
    cluster_id: str = ""

    @property
    def curve(self) -> bool:
        """Whether the doors' sockets are encrypted."""
        return bool(self.curve_secretkey)
