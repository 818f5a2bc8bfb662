"""Damaged and crafted files by the thousand: one worker process reads them, and is replaced if it dies.

`python tests/fuzzing.py FORMAT SEED COUNT` tries COUNT files and prints what was found;
`python tests/fuzzing.py FORMAT SEED --case N` tries one again and shows how it fails. A file is made
from (format, seed, number) alone. Each must be refused with one line, or read: to the same content
where the format has a check sum that still fits. 10 seconds and 1 GB are the most that one may take.
"""

import faulthandler
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WAIT = 90  # seconds on the clock: the machine may be busy, but nothing may wait for ever
MEMORY = 1 << 30  # bytes beside what the process has reserved when it begins
GOOD = ("refused", "read")
RESTARTS = 25  # after as many deaths there is enough to mend
ODD_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31,
               2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
ODD_BYTES = (b"\0", b"\xff", b"\x80", b"{", b"[", b'"', b"\n", b"..", b"%n", b"\x7f\xff\xff\xff")


# --- damage ------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random, edges: list[int]) -> bytes:
    """The bytes with something wrong: cut, flipped, overwritten, moved; often where a part begins."""
    out = bytearray(data)
    match rng.randrange(7):
        case 0 if edges:  # cut where a part begins, or beside that
            return data[: max(0, rng.choice(edges) + rng.choice((-1, 0, 0, 1)))]
        case 0 | 1:
            return data[: rng.randrange(len(data) + 1)]
        case 2 | 3:
            for _ in range(rng.choice((1, 1, 2, 5))):
                place = _place(out, rng, edges)
                out[place : place + 1] = bytes(
                    b ^ 1 << rng.randrange(8) for b in out[place : place + 1]
                )
        case 4:  # a number of 1 to 8 bytes becomes an odd one
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(ODD_NUMBERS) % (1 << 8 * size)
            place = _place(out, rng, edges)
            out[place : place + size] = number.to_bytes(size, rng.choice(("little", "big")))
        case 5:  # something is too much
            place = _place(out, rng, edges)
            part = out[place : place + rng.choice((1, 4, 100, 5000))]
            out[place:place] = rng.choice(
                (part, rng.choice(ODD_BYTES) * rng.randint(1, 50), b"\0" * 512)
            )
        case 6:  # or missing, or at the wrong place
            place, size = _place(out, rng, edges), rng.choice((1, 2, 4, 64, 1000))
            part = out[place : place + size]
            del out[place : place + size]
            if rng.random() < 0.5:
                place = _place(out, rng, edges)
                out[place:place] = part
    return bytes(out)


def _place(data: bytearray, rng: random.Random, edges: list[int]) -> int:
    if edges and rng.random() < 0.6:
        return min(max(rng.choice(edges) + rng.randint(-8, 24), 0), len(data))
    return rng.randrange(len(data) + 1)


ODD_VALUES = (None, True, False, 0, 1, -1, 2, 3, 1.5, 1e308, -1e308, float("nan"), float("inf"),
              float("-inf"), 10**7, 2**31, 2**63, 2**200, "", "x", "x" * 3000, "\x00\x1b[2J\n", "relu",
              "../../etc", "n01440764", "1e999", [], {}, [1], [[]], {"a": 1}, ["a"] * 2000)  # fmt: skip


def odd_json(value, rng: random.Random):
    """The value with one to three of its nodes odd, missing, twice, or nested without end."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_nodes(value))
        if not places:
            return rng.choice(ODD_VALUES)
        owner, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, dict):
                owner[rng.choice(("", "name", "x", "classes", key + "_"))] = owner[key]
            case 1:
                owner.insert(0, owner[key])
            case 2 if isinstance(owner[key], int | float):
                owner[key] = owner[key] * rng.choice((-1, 0, 2, 10, 10**6, 0.5))
            case 3 if rng.random() < 0.1:
                nested: list = []
                for _ in range(rng.choice((50, 100, 900))):
                    nested = [nested]
                owner[key] = nested
            case _:
                owner[key] = rng.choice(ODD_VALUES)
    return value


def _nodes(value) -> Iterator[tuple]:
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _nodes(value[key])


# --- the worker --------------------------------------------------------------------------------


def case(kind, seed: int, number: int) -> tuple[bytes, bool]:
    """(the file, whether it was crafted so that check sums fit) of one number."""
    rng = random.Random(f"{kind.name}/{seed}/{number}")
    data = rng.choice(kind.samples)
    if kind.craft is not None and number % 2:
        with suppress(ArithmeticError, ValueError, RecursionError):  # what no library would write
            return kind.craft(data, rng), True
    return damaged(data, rng, kind.edges(data)), False


def tried(kind, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """What became of one file: "refused", "read", or what is wrong with it and more about that."""
    from tinysqueeze.errors import UserError

    data, crafted = case(kind, seed, number)
    path = kind.write(folder, data)
    faulthandler.dump_traceback_later(9)
    begun = time.process_time()
    signal.alarm(WAIT)
    signal.setitimer(signal.ITIMER_PROF, kind.seconds)
    try:
        found = kind.read(path)
    except UserError as error:
        if "MemoryError" in str(error):
            return "memory", str(error)
        if "\n" in str(error):
            return "not a line", str(error)
        return "refused", ""
    except MemoryError:
        return "memory", traceback.format_exc()
    except Exception:
        return "crash", traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    if time.process_time() - begun > kind.seconds:
        return "hang", ""
    if kind.check and not crafted and found not in kind.contents:
        return "silently wrong", ""
    return "read", ""


def work(names: list[str], seed: int, start: int, stop: int, place: Path) -> None:
    """Try the files start to stop, of each format in turn; `place` says which one is under way."""
    from fuzz_formats import FORMATS, TRAPS

    warnings.simplefilter("error", RuntimeWarning)
    kinds = [(FORMATS | TRAPS)[name]() for name in names]
    with tempfile.TemporaryDirectory() as folder, open("/proc/self/statm") as size:
        for (
            kind
        ) in kinds:  # reads the whole samples, and compiles what is compiled, before it counts
            assert kind.contents, kind.name
        now = int(size.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))
        counts: Counter[str] = Counter()
        for at in range(start, stop):
            number, kind = at // len(kinds), kinds[at % len(kinds)]
            place.write_text(f"{at} {json.dumps(counts)}")
            what, more = tried(kind, seed, number, Path(folder))
            counts[what] += 1
            if what not in GOOD:
                print(json.dumps([kind.name, number, what, more]), flush=True)
    print(json.dumps(counts), flush=True)


# --- the parent --------------------------------------------------------------------------------


def fuzz(names: list[str], seed: int, count: int) -> tuple[Counter, list]:
    """(how many were refused, read, ...; what went wrong: [format, number, what, more]) of `count` files
    of each of these formats."""
    counts: Counter[str] = Counter()
    wrong: list = []
    start, stop = 0, count * len(names)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "at"
        while start < stop and len(wrong) < RESTARTS:
            place.unlink(missing_ok=True)
            worker = subprocess.run(
                [sys.executable, __file__, "+".join(names), str(seed), str(start), str(stop), str(place)],
                capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            said = [json.loads(line) for line in worker.stdout.splitlines() if line[:1] in "[{"]
            wrong += [one for one in said if isinstance(one, list)]
            if worker.returncode == 0:
                counts.update(said[-1])
                break
            if not place.exists():
                raise RuntimeError(f"{names}: the worker did not begin:\n{worker.stderr}")
            at, done = place.read_text().split(" ", 1)
            counts.update(json.loads(done))
            late = -worker.returncode in (signal.SIGALRM, signal.SIGPROF)
            died = "hang" if late else f"died: {worker.returncode}"
            counts[died] += 1
            which, number = names[int(at) % len(names)], int(at) // len(names)
            wrong.append([which, number, died, worker.stderr[-2000:]])
            start = int(at) + 1
    return counts, wrong


if __name__ == "__main__":
    name, seed, *rest = sys.argv[1:]
    if rest[0] == "--case":
        from fuzz_formats import FORMATS

        with tempfile.TemporaryDirectory() as folder:
            print(*tried(FORMATS[name](), int(seed), int(rest[1]), Path(folder)), sep="\n")
    elif len(rest) == 1:
        begun = time.monotonic()
        counts, wrong = fuzz(name.split("+"), int(seed), int(rest[0]))
        print(f"{name:24} {dict(counts)} {time.monotonic() - begun:.0f} s", flush=True)
        for which, number, what, more in wrong:
            print(f"    {which} {number}: {what}: {more.strip().splitlines()[-1:]}", flush=True)
    else:
        work(name.split("+"), int(seed), int(rest[0]), int(rest[1]), Path(rest[2]))
