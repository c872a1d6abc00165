"""Where the door stands: XDP links to interfaces, pinned beside the program."""

from __future__ import annotations

import contextlib
import os

from bazaar.bpf import links, pins
from bazaar.bpf.links import XdpMode
from bazaar.bpf.programs import Program
from bazaar.errors import KernelError
from bazaar.host import namespaces
from bazaar.shield import devices
from bazaar.shield.pinned import Pinned
from bazaar.shield.reports import Attached


def standing(pinned: Pinned) -> tuple[Attached, ...]:
    """The interfaces it stands at."""
    return tuple(
        Attached(entry["interface"], entry["namespace"], entry["mode"])
        for entry in pinned.about.links.values()
    )


def attach(pinned: Pinned, interface: str, namespace: str | None) -> Attached:
    """Stand at one more interface: native XDP, or generic where the driver has none."""
    pinned.refresh()
    key = namespaces.interface_name("door", namespace or "", interface)
    index = devices.index(interface, namespace)
    inode = _namespace_inode(namespace)
    entry = pinned.about.links.get(key)
    if entry and (entry["index"], entry["inode"]) == (index, inode):
        return Attached(interface, namespace, entry["mode"])
    unlink(pinned, key)
    with namespaces.enter(namespace):
        link, mode = _link(pinned.program, interface, index)
    with link:
        link.pin(f"{pinned.folder}/{key}")
    pinned.about.links[key] = {
        "interface": interface,
        "namespace": namespace,
        "mode": mode,
        "index": index,
        "inode": inode,
    }
    pinned.remember()
    return Attached(interface, namespace, mode)


def detach(pinned: Pinned, interface: str, namespace: str | None) -> bool:
    """Leave an interface; False when the door did not stand there."""
    pinned.refresh()
    key = namespaces.interface_name("door", namespace or "", interface)
    if key not in pinned.about.links:
        return False
    unlink(pinned, key)
    pinned.remember()
    return True


def tidy(pinned: Pinned) -> None:
    """Give links of an older version this program; forget those of interfaces gone."""
    for key in list(pinned.about.links):
        try:
            with links.open_pinned(f"{pinned.folder}/{key}") as link:
                info = link.info()
                if info.ifindex == 0:
                    unlink(pinned, key)
                elif info.program_id != pinned.program.id:
                    link.update(pinned.program)
        except KernelError:
            unlink(pinned, key)
    known = {*pinned.about.links, *pinned.maps, "program"}
    for name in os.listdir(pinned.folder):
        if name not in known:  # pinned by somebody who was killed before he wrote it down
            unlink(pinned, name)
    pinned.remember()


def _link(program: Program, interface: str, index: int) -> tuple[links.Link, str]:
    try:
        return links.xdp(program, index, XdpMode.NATIVE), "native"
    except KernelError as error:
        first = error
    try:
        return links.xdp(program, index, XdpMode.GENERIC), "generic"
    except KernelError as error:
        raise KernelError(
            f"the shield cannot stand at {interface}: {error.message}",
            errno=error.errno,
            hint=error.hint or first.hint,
        ) from first


def unlink(pinned: Pinned, key: str) -> None:
    """Leave the interface a link is for, and forget it."""
    path = f"{pinned.folder}/{key}"
    with contextlib.suppress(KernelError), links.open_pinned(path) as link:
        # At once, even where somebody else holds it open.
        link.detach()
    pins.unpin(path)
    pinned.about.links.pop(key, None)


def _namespace_inode(namespace: str | None) -> int:
    return (
        namespaces.identity(namespace) if namespace else os.stat("/proc/thread-self/ns/net").st_ino
    )
