"""Messages for the widgets and other comms of an engine. An ordinary function, which clients call on engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiersched.errors import UserError


def deliver_comm(
    msg_type: str, content: dict[str, Any], buffers: Sequence[bytes] = (), metadata: dict[str, Any] | None = None
) -> None:
    """Hand a message of a front end to the comm that it is for. msg_type: comm_open, comm_msg or comm_close.

    Raises UserError if there is no such comm or target here: perhaps the engine was started again, or the comm closed.
    What the comm's own code raises, it raises.
    """
    from comm import get_comm_manager

    manager = get_comm_manager()
    message = {
        "header": {"msg_type": msg_type},
        "msg_type": msg_type,
        "parent_header": {},
        "metadata": metadata or {},
        "content": content,
        "buffers": [memoryview(buffer) for buffer in buffers],
    }
    if msg_type == "comm_open":
        _open(manager, message)
        return
    if msg_type not in ("comm_msg", "comm_close"):
        raise UserError(f"{msg_type!r} is no message for a comm: comm_open, comm_msg and comm_close are")
    identity = content["comm_id"]
    found = manager.comms.get(identity)
    if found is None:
        raise UserError(f"there is no comm {identity!r} here; there are {len(manager.comms)} others")
    if msg_type == "comm_msg":
        found.handle_msg(message)
    else:
        del manager.comms[identity]
        found._closed = True  # by its peer, which needs no message about it
        found.handle_close(message)


def _open(manager: Any, message: dict[str, Any]) -> None:
    """Make the comm that a front end opens, and give it to its target; it is closed again if there is none."""
    from comm import create_comm

    content = message["content"]
    opened = create_comm(comm_id=content["comm_id"], primary=False, target_name=content["target_name"])
    manager.register_comm(opened)
    target = manager.targets.get(content["target_name"])
    try:
        if target is None:
            known = ", ".join(sorted(manager.targets)) or "none"
            raise UserError(f"there is no comm target {content['target_name']!r} here; registered: {known}")
        target(opened, message)
    except BaseException:
        opened.close()
        raise
