"""Frozen classes with slots, as ``@dataclass(frozen=True, slots=True)`` makes them, but faster.

Python makes each method of a dataclass by compiling text, half a millisecond a class; a command
that has to start in a tenth of a second cannot afford a hundred of them. Here only ``__init__``
is compiled, when it is first called; the other methods are shared.
"""

from __future__ import annotations

from collections.abc import Callable

from bazaar.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeVar, dataclass_transform, overload

    Class = TypeVar("Class", bound=type)
    Instance = TypeVar("Instance")
_MISSING: Any = object()


class _Field:
    """Has what ``replace``, ``fields`` and ``asdict`` of dataclasses look at: they work, too."""

    __slots__ = ("compare", "default", "factory", "init", "kw_only", "name")

    def __init__(self, default: Any, factory: Any, *, compare: bool, kw_only: bool) -> None:
        self.name = ""
        self.init = True
        self.default = default
        self.factory = factory
        self.compare = compare
        self.kw_only = kw_only

    @property
    def _field_type(self) -> Any:
        # Asked for by dataclasses alone, which has been imported by then.
        import dataclasses

        return getattr(dataclasses, "_FIELD")  # noqa: B009 - its private mark of a real field


def field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] = _MISSING,
    compare: bool = True,
    kw_only: bool = False,
) -> Any:
    """A field that is more than its name: as ``dataclasses.field``."""
    return _Field(default, default_factory, compare=compare, kw_only=kw_only)


if TYPE_CHECKING:

    @overload
    def record(cls: Class) -> Class: ...
    @overload
    def record(*, eq: bool = ..., kw_only: bool = ...) -> Callable[[Class], Class]: ...
    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def record(cls: Any = None, *, eq: bool = True, kw_only: bool = False) -> Any: ...
else:

    def record(cls: Any = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        """Make a frozen class with slots of the fields its body names; fields are inherited.

        Without ``eq`` two are equal only when they are the same object.
        """
        if cls is None:
            return lambda cls: _make(cls, eq, kw_only)
        return _make(cls, eq, kw_only)


def _make(cls: type, eq: bool, kw_only: bool) -> Any:
    fields: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(getattr(base, "__dataclass_fields__", {}))
    own: dict[str, str] = vars(cls).get("__annotations__", {})
    names = [name for name, kind in own.items() if not str(kind).startswith("ClassVar")]
    for name in names:
        value = cls.__dict__.get(name, _MISSING)
        if not isinstance(value, _Field):
            value = _Field(value, _MISSING, compare=True, kw_only=kw_only)
        value.name = name
        fields[name] = value
    body = {name: value for name, value in cls.__dict__.items() if name not in names}
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    body.update(
        __slots__=tuple(names),
        __match_args__=tuple(name for name, one in fields.items() if not one.kw_only),
        __dataclass_fields__=fields,
        _compared=tuple(name for name, one in fields.items() if one.compare),
        __setattr__=_frozen,
        __delattr__=_frozen,
        __getstate__=_state,
        __setstate__=_restore,
    )
    if eq:
        body.setdefault("__eq__", _equal)
        body.setdefault("__hash__", _hash)
    body.setdefault("__repr__", _show)
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    made.__init__ = _first(made, fields)
    return made


def _first(made: Any, fields: dict[str, _Field]) -> Callable[..., None]:
    """The ``__init__`` of a class until it is first called."""

    def initialise(self: Any, *values: Any, **named: Any) -> None:
        made.__init__ = _initialiser(fields)
        made.__init__(self, *values, **named)

    return initialise


def names(kind: Any) -> tuple[str, ...]:
    """The names of a record's fields, in order."""
    return tuple(kind.__dataclass_fields__)


def replace(instance: Instance, **changes: Any) -> Instance:
    """A copy with other values in the fields named."""
    values = {name: getattr(instance, name) for name in names(instance)}
    return type(instance)(**{**values, **changes})


def _initialiser(fields: dict[str, _Field]) -> Any:
    scope: dict[str, Any] = {"_set": object.__setattr__, "_missing": _MISSING}
    parameters: list[str] = []
    lines: list[str] = []
    ordered = sorted(fields.items(), key=lambda item: item[1].kw_only)
    for name, one in ordered:
        if one.kw_only and "*" not in parameters:
            parameters.append("*")
        if one.factory is not _MISSING:
            scope[f"_f_{name}"] = one.factory
            parameters.append(f"{name}=_missing")
            lines.append(f" _set(self, '{name}', _f_{name}() if {name} is _missing else {name})")
            continue
        if one.default is not _MISSING:
            scope[f"_d_{name}"] = one.default
            parameters.append(f"{name}=_d_{name}")
        else:
            parameters.append(name)
        lines.append(f" _set(self, '{name}', {name})")
    text = f"def __init__({', '.join(['self', *parameters])}):\n" + ("\n".join(lines) or " pass")
    exec(text, scope)  # noqa: S102 - the text is made of names of this program
    return scope["__init__"]


def _frozen(self: Any, name: str, value: Any = None) -> None:
    raise AttributeError(f"cannot change '{name}' of a {type(self).__name__}: it is frozen")


def _equal(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    return all(getattr(self, name) == getattr(other, name) for name in self._compared)


def _hash(self: Any) -> int:
    values: list[Any] = [getattr(self, name) for name in self._compared]
    return hash((type(self).__qualname__, *values))


def _show(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({values})"


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__dataclass_fields__]


def _restore(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__dataclass_fields__, state, strict=True):
        object.__setattr__(self, name, value)
