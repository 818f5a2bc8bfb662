"""Pickles of plain data, carried out by a machine that can build nothing else.

A pickle is a small program. Python's own unpickler carries it out on whatever lies on its stack:
BUILD sets attributes, APPEND and SETITEM call methods, REDUCE calls; so a stand-in for a forbidden
class is one more thing that a file may rewrite. This machine knows the few instructions that plain
data needs, and acts on lists, dicts and sets of its own making alone. A name is looked up in the
reader's table and never imported; what the table's functions return is opaque to every instruction
but BUILD, which the reader carries out itself. Nothing here recurses, and an instruction makes one
small object, so that time and memory are bounded by the file's length.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from tinysqueeze.errors import FormatError

MOST_INSTRUCTIONS = 1_000_000  # a tensor takes some 25; the largest batch of CIFAR-10 20,000
MOST_ARGUMENTS = 16

# Those whose argument is the value itself, whatever the protocol.
VALUES = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
LARGEST_KEY = 1 << 32  # larger integers can be chosen so that looking them up takes for ever


class Refused(FormatError):
    """A pickle that asks for more than plain data: a name, an instruction or a use of one."""


def read_pickle(
    stream: BinaryIO,
    names: Mapping[tuple[str, str], Any],
    text: Callable[[bytes], Any],
    build: Callable[[Any, Any], None],
    stored: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of one pickle, from where `stream` stands; it is left behind the pickle.

    `names` are stand-ins by (module, name); a function among them may be called by the file with
    any arguments that the file can make, and checks them. `text` decodes the strings of Python 2,
    `build(target, state)` carries out BUILD, `stored(key)` gives what a persistent id stands for.
    Raises Refused, or FormatError where the pickle is damaged.
    """
    machine = _Machine(names, text, build, stored)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MOST_INSTRUCTIONS:
                raise Refused(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            machine.carry_out(instruction.name, argument)
        return machine.stack.pop()
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise FormatError(f"truncated or not a pickle ({type(error).__name__}: {error})") from error


class _Machine:
    """A stack of values, the stacks below the marks, and the memo of values to be used again."""

    def __init__(
        self,
        names: Mapping[tuple[str, str], Any],
        text: Callable[[bytes], Any],
        build: Callable[[Any, Any], None],
        stored: Callable[[Any], Any] | None,
    ) -> None:
        self.names, self.text, self.build, self.stored = names, text, build, stored
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def carry_out(self, name: str, argument: Any) -> None:
        """One instruction. Raises Refused, or nearly anything where the stack does not suit it."""
        stack = self.stack
        match name:
            case _ if name in VALUES:
                stack.append(argument)
            case _ if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case _ if name in EMPTY:
                stack.append(EMPTY[name]())
            case "BINSTRING" | "SHORT_BINSTRING":
                stack.append(self.text(argument.encode("latin-1")))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(items[::-1]))
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = self.since_mark()
                self.stack.append(tuple(items))
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                put(stack[-1], key, value)
            case "SETITEMS":
                items = self.since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    put(self.stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                inner, module = stack.pop(), stack.pop()
                stack.append(self.named(module, inner))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not callable(function):
                    raise Refused(f"it calls a {type(function).__name__}")
                if type(arguments) is not tuple or len(arguments) > MOST_ARGUMENTS:
                    raise Refused("it calls a function with what are no arguments")
                stack.append(function(*arguments))
            case "BUILD":
                state = stack.pop()
                self.build(stack[-1], state)
            case "BINPERSID" if self.stored is not None:
                stack.append(self.stored(stack.pop()))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise Refused(f"it holds the instruction {name}, which plain data does not need")

    def since_mark(self) -> list[Any]:
        """Everything above the last mark, which goes."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: list[Any]) -> None:
        """Add items to the list or the set on top of the stack."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(checked_key(item) for item in items)
        else:
            raise Refused(f"it adds to a {type(target).__name__} as if that were a list")

    def named(self, module: Any, name: Any) -> Any:
        """The stand-in for a name, never the thing itself."""
        if type(module) is not str or type(name) is not str:
            raise Refused("it asks for something whose name is no text")
        if (module, name) not in self.names:
            raise Refused(f"it asks for {module}.{name}, which could run code")
        return self.names[module, name]


def put(target: Any, key: Any, value: Any) -> None:
    """target[key] = value, where that is a dict. Raises Refused."""
    if type(target) not in (dict, OrderedDict):
        raise Refused(f"it writes into a {type(target).__name__} as if that were a dict")
    target[checked_key(key)] = value


def checked_key(key: Any) -> Any:
    """A text, bytes or an integer of 32 bits: others can be slow to look up. Raises Refused."""
    if type(key) not in (str, bytes) and not (type(key) is int and abs(key) < LARGEST_KEY):
        raise Refused(f"it has a {type(key).__name__} among its keys; text and integers are read")
    return key
