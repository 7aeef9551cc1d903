"""A pickle machine without hands: it writes down what a pickle asks for, and does none of it.

A pickle is a program for a stack machine that may call anything it can name. This one knows the stack and the
plain values. A name stays a name, a call becomes a note of the call.
"""

import itertools
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import IO, Any

MAX_OPERATIONS = 4_000_000  # DenseNet-201, the longest of the rounds, takes 150,000
_SETS = ("__builtin__.set", "builtins.set")


class BrokenPickleError(ValueError):
    """What was read is no pickle that this machine follows."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def names(value: object, *known: str) -> bool:
    """Return whether ``value`` is a name, and one of ``known``; other values are not even turned into text."""
    return isinstance(value, Name) and str(value) in known


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that was asked for: of what, with what, and the state that its result was to get."""

    function: object
    args: tuple[Any, ...]
    state: object = None


@dataclass(slots=True, eq=False, repr=False)
class Instance:
    """An object that was asked for without its class being called: its class, and its attributes."""

    kind: object
    state: object = None


class Machine:
    """Runs one pickle after another from a stream.

    Attributes:
        wanted: every name that was asked for so far.
    """

    def __init__(self, persistent: Callable[[object], object]) -> None:
        """Take what becomes of persistent ids, torch's references to what lies outside the pickle."""
        self.wanted: set[Name] = set()
        self._persistent = persistent

    def run(self, stream: IO[bytes]) -> object:
        """Return the value of the pickle that begins where ``stream`` is, and leave the stream behind it.

        Raises:
            BrokenPickleError: it is cut, too long, or asks for what torch does not write.
        """
        state = _State(self._persistent, self.wanted)
        try:
            for opcode, argument, _ in itertools.islice(pickletools.genops(stream), MAX_OPERATIONS):
                _step(state, opcode.name, argument)
        except BrokenPickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise BrokenPickleError(f"is a broken pickle ({error})") from error
        if opcode.name != "STOP":
            raise BrokenPickleError(f"has more than {MAX_OPERATIONS} operations")
        if len(state.stack) != 1:
            raise BrokenPickleError("is a broken pickle (it ends with an unfinished stack)")
        return state.stack[0]


@dataclass(slots=True)
class _State:
    """The machine's memory while it runs one pickle."""

    persistent: Callable[[object], object]
    wanted: set[Name]
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)


def _step(s: _State, opcode: str, argument: Any) -> None:  # noqa: ANN401 - whatever the opcode has
    if opcode in _CONSTANTS:
        s.stack.append(_CONSTANTS[opcode])
    elif opcode in _LITERALS:
        s.stack.append(argument)
    elif opcode in _MAKERS:
        s.stack.append(_MAKERS[opcode]())
    elif opcode in _HANDLERS:
        _HANDLERS[opcode](s, argument)
    elif opcode not in _SILENT:
        raise BrokenPickleError(f"uses {opcode}, which torch does not write")


def _mark(s: _State, _: object) -> None:
    s.below.append(s.stack)
    s.stack = []


def _unmark(s: _State) -> list[Any]:
    found, s.stack = s.stack, s.below.pop()
    return found


def _push_unmarked(s: _State, kind: Callable[[list[Any]], object]) -> None:
    values = _unmark(s)
    s.stack.append(kind(values))


def _pop_tuple(s: _State, count: int) -> None:
    values = [s.stack.pop() for _ in range(count)]
    s.stack.append(tuple(reversed(values)))


def _put(s: _State, index: int) -> None:
    s.memo[index] = s.stack[-1]


def _named(s: _State, module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise BrokenPickleError("names a class by something that is no text")
    found = Name(module, name)
    s.wanted.add(found)
    return found


def _global(s: _State, argument: str) -> None:
    s.stack.append(_named(s, *argument.split(" ", 1)))


def _stack_global(s: _State, _: object) -> None:
    name, module = s.stack.pop(), s.stack.pop()
    s.stack.append(_named(s, module, name))


def _inst(s: _State, argument: str) -> None:
    args = _unmark(s)
    s.stack.append(Call(_named(s, *argument.split(" ", 1)), tuple(args)))


def _obj(s: _State, _: object) -> None:
    kind, *args = _unmark(s)
    s.stack.append(Call(kind, tuple(args)))


def _reduce(s: _State, _: object) -> None:
    args, function = s.stack.pop(), s.stack.pop()
    s.stack.append(_called(function, args))


def _new(s: _State, _: object) -> None:
    args, kind = s.stack.pop(), s.stack.pop()
    s.stack.append(Instance(kind) if args == () else Call(kind, (args,)))


def _new_with_names(s: _State, _: object) -> None:
    names, args, kind = s.stack.pop(), s.stack.pop(), s.stack.pop()
    s.stack.append(Call(kind, (args, names)))


def _build(s: _State, _: object) -> None:
    state, made = s.stack.pop(), s.stack[-1]
    if isinstance(made, Call | Instance):
        if made.state is not None:
            raise BrokenPickleError("sets the attributes of an object twice")
        made.state = state
    elif not isinstance(made, dict):  # torch gives OrderedDict attributes, which mean nothing here
        raise BrokenPickleError(f"sets attributes of a {type(made).__name__}")


def _fill(s: _State, values: list[Any]) -> None:
    """Put keys and values, in turns, into the mapping on the stack."""
    target = s.stack[-1]
    if not isinstance(target, dict):
        return  # a note of a call: whatever it holds, it is judged by its name
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_hashable(key)] = value


def _extend(s: _State, values: list[Any]) -> None:
    target = s.stack[-1]
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, set):
        target.update(map(_hashable, values))


def _pop_persistent(s: _State, _: object) -> None:
    s.stack.append(s.persistent(s.stack.pop()))


def _pop(s: _State, _: object) -> None:
    if s.stack:
        s.stack.pop()
    else:
        _unmark(s)


def _set_item(s: _State, _: object) -> None:
    value, key = s.stack.pop(), s.stack.pop()
    _fill(s, [key, value])


def _get(s: _State, index: int) -> None:
    s.stack.append(s.memo[index])


def _called(function: object, args: object) -> object:
    """Return what a call gives where that is a plain value, else a note of the call."""
    if not isinstance(args, tuple):
        raise BrokenPickleError("calls with arguments that are no tuple")
    if names(function, "collections.OrderedDict") and args == ():
        return {}
    if names(function, *_SETS) and len(args) == 1 and isinstance(args[0], list):
        return set(map(_hashable, args[0]))
    return Call(function, args)


def _hashable(key: object) -> object:
    """Return ``key`` if it is plain: hashing nested tuples could take for ever."""
    if key is not None and not isinstance(key, str | int | float):
        raise BrokenPickleError(f"has a key that is a {type(key).__name__}")
    return key


_CONSTANTS: Mapping[str, object] = MappingProxyType(
    {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
)
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"),
        *(
            "UNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE",
            "BINUNICODE8",
            "SHORT_BINBYTES",
            "BINBYTES",
            "BINBYTES8",
        ),
    )
)
_MAKERS: Mapping[str, Callable[[], object]] = MappingProxyType(
    {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
)
_SILENT = frozenset(("PROTO", "FRAME", "STOP"))
_HANDLERS: Mapping[str, Callable[[_State, Any], object]] = MappingProxyType(
    {
        "MARK": _mark,
        "POP": _pop,
        "POP_MARK": lambda s, _: _unmark(s),
        "DUP": lambda s, _: s.stack.append(s.stack[-1]),
        "PUT": _put,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "MEMOIZE": lambda s, _: _put(s, len(s.memo)),
        "GET": _get,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "TUPLE": lambda s, _: _push_unmarked(s, tuple),
        "LIST": lambda s, _: _push_unmarked(s, list),
        "TUPLE1": lambda s, _: _pop_tuple(s, 1),
        "TUPLE2": lambda s, _: _pop_tuple(s, 2),
        "TUPLE3": lambda s, _: _pop_tuple(s, 3),
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "INST": _inst,
        "OBJ": _obj,
        "REDUCE": _reduce,
        "NEWOBJ": _new,
        "NEWOBJ_EX": _new_with_names,
        "BUILD": _build,
        "SETITEM": _set_item,
        "SETITEMS": lambda s, _: _fill(s, _unmark(s)),
        "APPEND": lambda s, _: _extend(s, [s.stack.pop()]),
        "APPENDS": lambda s, _: _extend(s, _unmark(s)),
        "ADDITEMS": lambda s, _: _extend(s, _unmark(s)),
        "BINPERSID": _pop_persistent,
    }
)
