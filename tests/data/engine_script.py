"""An engine as a process of its own: reads packed calls from stdin, answers on stdout. Run, not imported."""

from __future__ import annotations

import struct
import sys

import msgspec

from hiersched.data.outcomes import pack_outcome_error, pack_outcome_value
from hiersched.data.serialize import Unpacker

Calls = list[tuple[bytes, dict[bytes, bytes], list[bytes]]]


def main() -> None:
    """Answer calls until stdin ends; each message is its length and then msgpack."""
    unpacker = Unpacker({"__name__": "__main__", "place": "engine"})
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while header := stdin.read(4):
        message = stdin.read(*struct.unpack("<I", header))
        function, blobs, frames = msgspec.msgpack.decode(message, type=tuple[bytes, dict[bytes, bytes], list[bytes]])
        try:
            args, kwargs = unpacker.arguments(frames, blobs)
            answer = pack_outcome_value(
                unpacker.function(function, blobs.get(function))(*args, **kwargs), started=0.0, ended=0.0
            )
        except Exception as error:
            answer = pack_outcome_error(error, started=0.0, ended=0.0)
        reply = msgspec.msgpack.encode(answer.whole)
        stdout.write(struct.pack("<I", len(reply)) + reply)
        stdout.flush()


if __name__ == "__main__":
    main()
