"""The kernel's tracepoints and their fields, read from tracefs."""

from __future__ import annotations

import fnmatch
import os
import re

from bazaar.errors import BazaarError
from bazaar.model.record import record
from bazaar.trace.types import STRING, Array, Int, Pointer, Text, Type

_FIELD = re.compile(
    r"^\tfield:(?P<declaration>[^;]+);\toffset:(?P<offset>\d+);\tsize:(?P<size>\d+);(?:\tsigned:(?P<signed>[01]);)?"
)
_ARRAY = re.compile(r"^(?P<type>.*?)\s*(?P<name>\w+)\[(?P<count>\w*)\]$")
_SIGNED = frozenset((
    "int", "long", "short", "s8", "s16", "s32", "s64", "__s8", "__s16", "__s32", "__s64",
    "pid_t", "loff_t", "off_t", "ssize_t", "clockid_t", "timer_t", "key_t", "time_t",
    "mqd_t", "rwf_t", "key_serial_t",
))  # fmt: skip
_SAFE = re.compile(r"[A-Za-z0-9_\-]+")


@record
class EventField:
    """A field of a tracepoint's record; ``dynamic``: data_loc or rel_loc, where the text lies."""

    name: str
    type: Type
    offset: int
    size: int
    dynamic: str = ""


@record
class Event:
    """A tracepoint and its fields."""

    category: str
    name: str
    fields: tuple[EventField, ...]

    def field(self, name: str) -> EventField | None:
        """The field of this name."""
        return next((one for one in self.fields if one.name == name), None)


def folder() -> str:
    """The events folder of tracefs, mounted if need be."""
    from bazaar.bpf import filesystems

    return f"{filesystems.tracefs()}/events"


def load(category: str, name: str) -> Event | None:
    """The tracepoint of this name; None when the kernel has none."""
    if not _SAFE.fullmatch(category) or not _SAFE.fullmatch(name):
        return None
    try:
        with open(
            f"{folder()}/{category}/{name}/format", encoding="utf-8", errors="replace"
        ) as file:
            text = file.read(1 << 20)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BazaarError(
            f"tracepoints cannot be read: {error.strerror}", hint="bazaar trace needs to be root"
        ) from error
    return Event(category, name, parse_format(text, user=category == "syscalls"))


def parse_format(text: str, *, user: bool) -> tuple[EventField, ...]:
    """The fields a format file names, without the common ones.

    Lines that are no fields are passed over, as are fields of a kind that cannot be read.
    """
    found: list[EventField] = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        offset, size = int(match["offset"]), int(match["size"])
        if offset < 8 or size > 4096 or offset > 65536:
            continue
        field = _field(match["declaration"].strip(), offset, size, match["signed"] == "1", user)
        if field is not None:
            found.append(field)
    return tuple(found)


def _field(  # noqa: PLR0911 - one way out a kind of declaration
    declaration: str, offset: int, size: int, signed: bool, user: bool
) -> EventField | None:
    for mark in ("__data_loc", "__rel_loc"):
        if declaration.startswith(mark):
            kind, name = declaration.removeprefix(mark).strip().rsplit(None, 1)
            text = kind.startswith(("char", "const char"))
            # Other dynamic arrays show as the number the kernel keeps there.
            dynamic = mark.strip("_") if text else ""
            return EventField(
                name, Text(STRING) if text else Int(signed=False), offset, size, dynamic
            )
    if array := _ARRAY.match(declaration):
        count = size if not array["count"].isdigit() else int(array["count"])
        if not 0 < count <= size or size % count:
            return None
        element = size // count
        if element == 1 and re.search(r"\bchar$", array["type"]):
            return EventField(array["name"], Text(min(size, STRING)), offset, size)
        if element not in (1, 2, 4, 8):
            return None
        return EventField(array["name"], Array(count, element, signed), offset, size)
    kind, _, name = declaration.rpartition(" ")
    if not name.isidentifier():
        return None
    stars = kind.count("*")
    if stars:
        return EventField(name, _pointer(kind, stars, user=user), offset, size)
    plain = kind.removeprefix("const ").strip()
    if plain in ("int", "unsigned int") and size == 8:
        # A system call's register: the upper half of an int argument is not defined.
        return EventField(name, Int(plain == "int"), offset, 4)
    if size not in (1, 2, 4, 8):
        return None
    return EventField(name, Int(signed or plain in _SIGNED), offset, size)


def _pointer(kind: str, stars: int, *, user: bool) -> Pointer:
    if stars > 1:
        return Pointer(user, _pointer(kind, stars - 1, user=user))
    sizes = {
        "char": 1,
        "int": 4,
        "unsigned int": 4,
        "long": 8,
        "unsigned long": 8,
        "u64": 8,
        "u32": 4,
    }
    plain = kind.replace("const", "").replace("*", "").replace("__user", "").strip()
    size = sizes.get(plain)
    return Pointer(user, Int(not plain.startswith("u")), size) if size else Pointer(user)


def names(category: str, pattern: str) -> list[tuple[str, str]]:
    """Category and name of the tracepoints that match two shell patterns, in order."""
    top = folder()
    found: list[tuple[str, str]] = []
    for group in sorted(_list(top)):
        if fnmatch.fnmatchcase(group, category):
            found += [
                (group, name)
                for name in sorted(_list(f"{top}/{group}"))
                if fnmatch.fnmatchcase(name, pattern)
                and os.path.exists(f"{top}/{group}/{name}/format")
            ]
    return found


def _list(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def nearest(category: str, name: str) -> str | None:
    """The tracepoint whose name is most like this one, as ``category:name``."""
    import difflib

    every = [f"{group}:{one}" for group, one in names("*", "*") if group == category or one == name]
    if not every:
        every = [f"{group}:{one}" for group, one in names("*", "*")]
    found = difflib.get_close_matches(f"{category}:{name}", every, 1, 0.5)
    return found[0] if found else None
