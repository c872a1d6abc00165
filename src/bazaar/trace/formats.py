"""printf's format strings: cut into pieces, and filled with values as C does it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bazaar.model.record import record

_SPECIFIER = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\d*)(?P<precision>\.\d*)?"
    r"(?P<length>hh|h|ll|l|j|z|t|q)?(?P<kind>.?)",
    re.DOTALL,
)
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "j": 64, "z": 64, "t": 64, "q": 64}
NUMBERS = frozenset("diuxXop")
KINDS = NUMBERS | frozenset("cs")


@record
class Specifier:
    """One ``%`` of a format; ``start`` and ``end`` are offsets in the format's text."""

    kind: str
    flags: str
    width: int
    precision: int | None
    bits: int
    start: int
    end: int


def parse(text: str) -> list[str | Specifier]:
    """Plain texts and specifiers in order; raises ValueError for what is no specifier."""
    found: list[str | Specifier] = []
    position = 0
    for match in _SPECIFIER.finditer(text):
        if match.start() > position:
            found.append(text[position : match.start()])
        position = match.end()
        kind = match["kind"]
        if kind == "%":
            found.append("%")
            continue
        if kind not in KINDS or not kind:
            raise ValueError(
                f"unknown format {match.group()!r}; there are %d %i %u %x %X %o %p %c %s %%"
            )
        width = int(match["width"] or 0)
        precision = int(match["precision"][1:] or 0) if match["precision"] else None
        if width > 4096 or (precision or 0) > 4096:
            raise ValueError(f"{match.group()!r} is too wide")
        length = match["length"] or ""
        found.append(
            Specifier(
                kind, match["flags"], width, precision, _BITS[length], match.start(), match.end()
            )
        )
    if position < len(text):
        found.append(text[position:])
    return found


def fill(pieces: Sequence[str | Specifier], values: Sequence[int | str]) -> str:
    """The text; ``values`` has one for each specifier."""
    rest = iter(values)
    return "".join(piece if isinstance(piece, str) else _one(piece, next(rest)) for piece in pieces)


def _one(specifier: Specifier, value: int | str) -> str:
    if specifier.kind == "s":
        text = str(value)
        if specifier.precision is not None:
            text = text[: specifier.precision]
        return _pad(specifier, text)
    number = value if isinstance(value, int) else 0
    if specifier.kind == "c":
        return _pad(specifier, chr(number & 0xFF) if number & 0xFF else "\0")
    return _number(specifier, number)


def _number(specifier: Specifier, number: int) -> str:
    """The number cut to the width its specifier names, as C cuts it (%d has 32 bits)."""
    kind = specifier.kind
    bits = 64 if kind == "p" else specifier.bits
    number &= (1 << bits) - 1
    sign = ""
    if kind in "di":
        number -= (number >> (bits - 1)) << bits
        plus = "+" if "+" in specifier.flags else " " if " " in specifier.flags else ""
        sign = "-" if number < 0 else plus
        digits = str(abs(number))
    else:
        digits = format(number, {"u": "d", "p": "x"}.get(kind, kind))
        if kind == "p" and number == 0:
            return _pad(specifier, "(nil)")
        if kind == "p" or ("#" in specifier.flags and number and kind in "xX"):
            sign = "0X" if kind == "X" else "0x"
        elif "#" in specifier.flags and kind == "o":
            sign = "0"
    if specifier.precision is not None:
        digits = digits.rjust(specifier.precision, "0")
    elif "0" in specifier.flags and "-" not in specifier.flags:
        digits = digits.rjust(specifier.width - len(sign), "0")
    return _pad(specifier, sign + digits)


def _pad(specifier: Specifier, text: str) -> str:
    return text.ljust(specifier.width) if "-" in specifier.flags else text.rjust(specifier.width)
