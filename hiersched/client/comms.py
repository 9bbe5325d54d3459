"""Widgets and other comms of engines, in the notebook that the client runs in.

What an engine's comm sends goes to the frontend as if it were this kernel's. For each comm that an engine opens there
is a stand-in here: what the frontend sends to it is delivered to the engine, by a call like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiersched.client.shell import current_shell
from hiersched.data.comms import deliver_comm
from hiersched.data.outputs import Comm

if TYPE_CHECKING:
    from hiersched.client.session import Session


class CommRelay:
    """Between the comms of a session's engines and the frontend, where there is one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, rank: int, comm: Comm) -> None:
        """A message of this engine's comm, for the frontend."""
        kernel = getattr(current_shell(), "kernel", None)
        if kernel is None:
            return
        if comm.msg_type == "comm_open":
            self._stand_in(rank, comm.content["comm_id"])
        kernel.session.send(
            kernel.iopub_socket,
            comm.msg_type,
            content=comm.content,
            metadata=comm.metadata,
            buffers=list(comm.buffers),
            parent=kernel.get_parent("shell"),
        )

    def _stand_in(self, rank: int, comm_id: str) -> None:
        """Have what the frontend sends to this comm delivered to the engine."""
        from comm import create_comm, get_comm_manager

        proxy = create_comm(comm_id=comm_id, primary=False)
        proxy.on_msg(lambda message: self._deliver(rank, "comm_msg", message))
        proxy.on_close(lambda message: self._deliver(rank, "comm_close", message))
        get_comm_manager().register_comm(proxy)

    def _deliver(self, rank: int, msg_type: str, message: dict[str, Any]) -> None:
        buffers = [bytes(buffer) for buffer in message.get("buffers", ())]
        arguments = (msg_type, message["content"], buffers, message.get("metadata"))
        self._session.call((rank,), self._session.packer.pack_call(deliver_comm, arguments))
