"""Data that code published while it ran, by names: see ipyparallel.datapub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hiersched.data.outputs import DATA, Comm, Output
from hiersched.errors import UnpackError


def published(outputs: Iterable[Output]) -> dict[str, Any]:
    """The latest value of each name; in the place of one that cannot be rebuilt here, an UnpackError."""
    latest: dict[str, Any] = {}
    for output in outputs:
        if type(output) is Comm and output.msg_type == DATA:
            latest.update(_unpacked(output))
    return latest


def _unpacked(message: Comm) -> dict[str, Any]:
    from ipyparallel.serialize import deserialize_object  # takes long to import, and few publish anything

    try:
        data, _ = deserialize_object(message.buffers)
    except Exception as error:  # the user's classes: they may fail at anything
        refusal = UnpackError(f"what was published cannot be rebuilt here: {type(error).__name__}: {error}")
        return dict.fromkeys(message.content["keys"], refusal)
    return dict(data)
