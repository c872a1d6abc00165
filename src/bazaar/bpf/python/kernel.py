"""The kernel's helpers by name, and what else a compiled program can call.

These are for the type checker and the compiler; calling them in Python is an error. Any helper
without a function here can be called with ``helper("name", …)``, a kfunc with
``kernel_function("name", …)``: integers by value, structs by address, maps as themselves.
"""

from __future__ import annotations

from typing import TypeVar

from bazaar.bpf.python.contexts import SkBuff, XdpContext
from bazaar.bpf.python.maps import outside
from bazaar.bpf.python.types import Struct

T = TypeVar("T", bound=Struct)


def packet(context: XdpContext | SkBuff, header: type[T], offset: int = 0) -> T | None:
    """The header at that many bytes from the packet's start, or None where the packet ends
    before it. ``offset`` may be a variable; beyond 32767 the answer is None."""
    outside()


def packet_length(context: XdpContext | SkBuff) -> int:
    """Bytes from data to data_end."""
    outside()


def atomic_add(target: int, value: int) -> None:
    """Add to a field of 4 or 8 bytes in a map's value, atomically: ``atomic_add(s.hits, 1)``."""
    outside()


def fill(target: bytes, value: int = 0) -> None:
    """Set every byte of a byte array."""
    outside()


def truncate(value: int, width: type[int]) -> int:
    """Cut to the width and sign of an integer type: ``truncate(x, u32)``."""
    outside()


def helper(name: str, *arguments: object) -> int:
    """Call any helper by its name without ``bpf_``."""
    outside()


def kernel_function(name: str, *arguments: object) -> int:
    """Call a kfunc by its name."""
    outside()


def ktime_get_ns() -> int:
    """Nanoseconds since boot, without suspension."""
    outside()


def ktime_get_boot_ns() -> int:
    """Nanoseconds since boot, suspension included."""
    outside()


def ktime_get_coarse_ns() -> int:
    """Nanoseconds since boot as of the last tick: cheap."""
    outside()


def jiffies64() -> int:
    """Ticks since boot."""
    outside()


def get_smp_processor_id() -> int:
    """The CPU this runs on."""
    outside()


def get_prandom_u32() -> int:
    """A pseudo-random number."""
    outside()


def get_current_pid_tgid() -> int:
    """Process id << 32 | thread id."""
    outside()


def get_current_uid_gid() -> int:
    """Group id << 32 | user id."""
    outside()


def get_current_cgroup_id() -> int:
    """The id of the task's cgroup (version 2)."""
    outside()


def get_current_comm(target: bytes) -> int:
    """Write the task's name into a byte array of 16."""
    outside()


def redirect(ifindex: int, flags: int = 0) -> int:
    """Send the packet out of another interface: return what this returns."""
    outside()


def skb_cgroup_id(context: SkBuff) -> int:
    """The cgroup (version 2) of the packet's socket."""
    outside()


def xdp_adjust_head(context: XdpContext, delta: int) -> int:
    """Move the packet's start; headers must be looked up again afterwards."""
    outside()


def xdp_adjust_tail(context: XdpContext, delta: int) -> int:
    """Move the packet's end; headers must be looked up again afterwards."""
    outside()


HELPERS = (
    ktime_get_ns, ktime_get_boot_ns, ktime_get_coarse_ns, jiffies64, get_smp_processor_id,
    get_prandom_u32, get_current_pid_tgid, get_current_uid_gid, get_current_cgroup_id,
    get_current_comm, redirect, skb_cgroup_id, xdp_adjust_head, xdp_adjust_tail,
)  # fmt: skip
"""Those whose name is a helper's and whose arguments are passed as they are."""
