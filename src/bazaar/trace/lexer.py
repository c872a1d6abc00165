"""Cuts the text of a trace program into tokens.

Names of probes, predicates and divisions cannot be told apart without knowing where in the
program they stand, so the parser asks for what it expects: ``token()`` or ``probe()``.
"""

from __future__ import annotations

import re

from bazaar.errors import TraceError
from bazaar.model.record import record

Span = tuple[int, int]  # offsets of the first character and of the one after the last

_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t\r\n\f\v]+|//[^\n]*|/\*.*?\*/)+)
  | (?P<number>[0-9][0-9A-Za-z_]*)
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
  | (?P<map>@(?:[A-Za-z_][A-Za-z0-9_]*)?)
  | (?P<variable>\$[A-Za-z_][A-Za-z0-9_]*)
  | (?P<positional>\$(?:[0-9]+|\#))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign><<=|>>=|\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=
            |[-+*/%&|^~!<>=?:;,.(){}\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_PROBE = re.compile(r"[^\s,{}/\"]+(?::\"[^\"\n]*\")?")
_PATH_PROBE = re.compile(r"[^\s,{}\"]+")  # uprobe:/bin/sh:name, to refuse it as a whole
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    '"': '"',
    "\\": "\\",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_NUMBER = re.compile(
    r"(?:0[xX](?P<hex>[0-9A-Fa-f_]+)|0[bB](?P<binary>[01_]+)|(?P<mantissa>[0-9][0-9_]*)(?:[eE](?P<power>[0-9]+))?)"
    r"(?:[uU]?[lL]{0,2})"
)
_PATH_PROVIDERS = ("uprobe:", "uretprobe:", "usdt:", "u:", "ur:", "U:")


@record
class Token:
    """One token; ``kind`` is number, string, map, variable, positional, name, sign or end."""

    kind: str
    text: str
    span: Span


class Lexer:
    """Reads one text from front to back."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def error(self, message: str, span: Span, hint: str | None = None) -> TraceError:
        """An error that points at ``span``."""
        return error_at(self.text, message, span, hint)

    def skip_space(self) -> None:
        """Pass over white space and comments."""
        found = _TOKEN.match(self.text, self.position)
        if found and found.lastgroup == "space":
            self.position = found.end()
        if self.text.startswith("/*", self.position):
            raise self.error("this comment does not end", (self.position, self.position + 2))

    def token(self) -> Token:
        """The next token of a predicate or body."""
        self.skip_space()
        start = self.position
        if start >= len(self.text):
            return Token("end", "", (start, start))
        found = _TOKEN.match(self.text, start)
        if found is None or found.lastgroup is None:
            if self.text[start] == '"':
                raise self.error("this string does not end on its line", (start, start + 1))
            raise self.error(f"unexpected character {self.text[start]!r}", (start, start + 1))
        self.position = found.end()
        return Token(found.lastgroup, found.group(), found.span())

    def probe(self) -> Token:
        """The next probe name as one raw token."""
        self.skip_space()
        start = self.position
        path = self.text.startswith(_PATH_PROVIDERS, start)
        found = (_PATH_PROBE if path else _PROBE).match(self.text, start)
        if found is None:
            here = self.text[start : start + 1]
            what = f"not {here!r}" if here else "but the program ends here"
            raise self.error(f"a probe is expected here, {what}", (start, start + 1))
        self.position = found.end()
        return Token("probe", found.group(), found.span())


def error_at(text: str, message: str, span: Span, hint: str | None = None) -> TraceError:
    """A TraceError with line, column and length of ``span`` in ``text``."""
    start, end = span
    start = min(start, len(text))
    first = max(text.rfind(mark, 0, start) for mark in "\n\r\f\v\x1c\x1d\x1e\x85\u2028\u2029") + 1
    line = len((text[:first] + ".").splitlines())
    rest = text[start : max(end, start + 1)].splitlines()
    length = len(rest[0]) if rest else 1
    return TraceError(
        message,
        line=line,
        column=start - first + 1,
        length=max(1, length),
        source=text,
        hint=hint,
    )


def integer_of(token: Token) -> int | None:
    """The value of a number token; None when it is malformed or above 64 bits."""
    found = _NUMBER.fullmatch(token.text)
    if found is None:
        return None
    try:
        if digits := found["hex"]:
            value = int(digits.strip("_"), 16)
        elif digits := found["binary"]:
            value = int(digits.strip("_"), 2)
        elif found["power"]:
            power = int(found["power"]) if len(found["power"]) < 4 else 99
            value = int(found["mantissa"].strip("_")) * 10 ** min(power, 99)
        else:
            digits = found["mantissa"].strip("_")
            octal = len(digits) > 1 and digits[0] == "0"
            value = int(digits, 8 if octal else 10) if len(digits) < 30 else 1 << 64
    except ValueError:
        return None
    return value if value < 1 << 64 else None


def string_of(token: Token) -> str:
    """The value of a string token, escapes resolved."""

    def resolve(found: re.Match[str]) -> str:
        escape = found[1]
        if escape[0] == "x" and len(escape) > 1:
            return chr(int(escape[1:], 16))
        if escape[0] in "01234567":
            return chr(int(escape, 8) & 0xFF)
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(resolve, token.text[1:-1])
