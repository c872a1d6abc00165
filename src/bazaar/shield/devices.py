"""Interfaces as the shield needs them: number, address, driver, and whether frames arrive.

All of it is asked inside the namespace the interface is in: numbers mean nothing elsewhere.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from bazaar.errors import KernelError, NetworkError
from bazaar.host import namespaces

# linux/sockios.h, linux/ethtool.h
_SIOCGIFHWADDR = 0x8927
_SIOCETHTOOL = 0x8946
_GDRVINFO, _SGRO = 0x03, 0x2C
_DRVINFO_SIZE = 196
_NAME_SIZE = 15


def index(interface: str, namespace: str | None = None) -> int:
    """The number of an interface; NetworkError where there is none."""
    with namespaces.enter(namespace):
        try:
            return socket.if_nametoindex(interface)
        except OSError:
            place = f" in namespace {namespace}" if namespace else ""
            raise NetworkError(
                f"there is no interface '{interface}'{place}",
                hint=f"`ip {f'-n {namespace} ' if namespace else ''}link` lists them",
            ) from None


def mac(interface: str, namespace: str | None = None) -> bytes:
    """The six bytes of an Ethernet interface's address."""
    with namespaces.enter(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        request = struct.pack("16s24x", _name(interface))
        try:
            return fcntl.ioctl(door, _SIOCGIFHWADDR, request)[18:24]
        except OSError as error:
            raise _failure(error, f"cannot read the address of {interface}") from error


def driver(interface: str, namespace: str | None = None) -> str:
    """The name of an interface's driver, such as ``veth``; empty where it tells none."""
    data = array.array("B", struct.pack("=I", _GDRVINFO).ljust(_DRVINFO_SIZE, b"\0"))
    try:
        _ethtool(interface, namespace, data)
    except KernelError:
        return ""
    return data.tobytes()[4:36].split(b"\0")[0].decode(errors="replace")


def receive_offload(interface: str, on: bool, namespace: str | None = None) -> None:
    """Turn generic receive offload on or off.

    A veth takes frames that an XDP program sends to it only with a program of its own or
    with this on; without either they are lost silently.
    """
    _ethtool(interface, namespace, array.array("B", struct.pack("=II", _SGRO, int(on))))


def _ethtool(interface: str, namespace: str | None, data: array.array[int]) -> None:
    with namespaces.enter(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        request = struct.pack("=16sQ16x", _name(interface), data.buffer_info()[0])
        try:
            fcntl.ioctl(door, _SIOCETHTOOL, request)
        except OSError as error:
            raise _failure(error, f"ethtool on {interface}") from error


def _name(interface: str) -> bytes:
    name = interface.encode()
    if not 0 < len(name) <= _NAME_SIZE:
        raise NetworkError(f"'{interface}' cannot name an interface")
    return name


def _failure(error: OSError, what: str) -> KernelError:
    return KernelError(f"{what}: {error.strerror}", errno=error.errno or 0)
