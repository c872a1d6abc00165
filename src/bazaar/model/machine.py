"""A machine that is reached by SSH."""

from __future__ import annotations

from bazaar.model.record import record


@record
class Machine:
    """Where a machine is, whom to be there, and how to know that it is the right one."""

    name: str
    address: str
    user: str = "root"
    port: int = 22
    key: str = ""  # the private key's file; "": the agent's keys and the caller's own
    known_hosts: str = ""  # the file of its host key; "": the caller's own
    jump: Machine | None = None  # the machine one has to go through

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"
