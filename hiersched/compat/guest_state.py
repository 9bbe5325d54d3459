"""Which engines of ipyparallel's there are, on disk, in the words of its hub.

A controller that is started again with the same ports and key (`--reuse --restore`) lets them in under their old ids:
they have gone on beating, and have nothing to say themselves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hiersched.errors import ConnectionFileError


class _State(msgspec.Struct):
    """engines: uuids by id. next_id: of the engine that comes next."""

    engines: dict[int, str]
    next_id: int


class GuestState:
    """The file. path: empty for none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def write(self, engines: Mapping[int, str]) -> None:
        """These are there: {id: uuid}. The file is written at once and whole."""
        if self._path is None:
            return
        state = _State(dict(engines), max(engines, default=-1) + 1)
        draft = self._path.with_suffix(f".{os.getpid()}.new")
        draft.write_bytes(msgspec.json.encode(state))
        draft.replace(self._path)

    def read(self) -> dict[int, str]:
        """Those that were there: {id: uuid}; none if there is no file. Raises ConnectionFileError for one that is no
        such.
        """
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_State).engines
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConnectionFileError(f"{self._path} does not say which engines there were: {error}") from None

    def remove(self) -> None:
        """There are none any more."""
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
