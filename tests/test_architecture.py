"""The house stays as ARCHITECTURE says: floors, no circles, a fixed top level, short files."""

import ast
import io
import subprocess
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinysqueeze"

# A room imports only from floors below its own. The one table; keep it in order.
FLOORS = (
    ("errors", "version", "caches"),
    ("files", "labels", "processors", "ranges", "starting"),
    ("network", "kernels", "data"),
    ("graph",),
    ("study",),
    ("devices",),
    ("compiled",),
    ("training",),
    ("weights",),
    ("paper", "bench"),
    ("show",),
    ("__init__",),  # the face
    ("cli",),
    ("__main__",),
)

# And inside a room: a file imports only from those before it (a folder counts as one).
ORDER = {
    "network": (
        "window",
        "ops",
        "layers",
        "compose",
        "loss",
        "models",
        "params",
        "stepwise",
        "others",
    ),
    "study": ("trace", "count", "diagnose", "gradcheck", "formulas", "stepper"),
    "training": (
        "settings",
        "communicator",
        "scores",
        "schedule",
        "optimisers",
        "recipe",
        "recipes",
        "engine",
        "evaluate",
        "teacher",
        "state",
        "alike",
        "loop",
        "budget",
        "metadata",
        "checkpoint",
        "interruptible",
        "run_folder",
        "train",
        "mpi",
    ),
    "compiled": (
        "steps",
        "grouping",
        "space",
        "sequence",
        "nodes",
        "weights",
        "convolution",
        "layout",
        "phases",
        "forward",
        "backward",
        "inference",
        "bands",
        "cuts",
        "single",
        "programs",
        "int8",
        "plan",
    ),
    "graph": ("form", "run", "spec", "whole", "passes", "lowering"),
    "show": ("pictures", "inside", "page", "widgets", "lessons"),
}
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
TOP_LEVEL = {"tinysqueeze", "notebooks", "tests", "pyproject.toml", "README.md", "LICENSE"}
MOST_LINES = 450
EVENING = 1000  # lines of code of network/, but for what the compiler or a comparison needs
NOT_READ = {"ops/fast.py", "ops/convolution.py", "others.py"}
SCREEN = 40  # lines

SOURCES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """tinysqueeze/data/loader.py -> "tinysqueeze.data.loader"; a package is its __init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in SOURCES}


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it, for the type checker too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name, not relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {name for name in found if name.split(".")[0] == "tinysqueeze"} - {dotted(path)}


def resident(module: str) -> str:
    """Who lives on a floor: "tinysqueeze.data.loader" -> "data"; the package itself: "__init__"."""
    return (module.split(".") + ["__init__"])[1]


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_floors_below_it(module: str) -> None:
    own = resident(module)
    assert own in FLOOR, f"{own} is new: give it a floor in {Path(__file__).name}"
    for other in {resident(name) for name in imports(MODULES[module])} - {own}:
        assert other in FLOOR, f"{module} imports {other}: give it a floor in {Path(__file__).name}"
        assert FLOOR[other] < FLOOR[own], (
            f"{module} is on floor {FLOOR[own]} and imports {other} on floor {FLOOR[other]}; "
            "move the code, or the shared part of it, down"
        )


@pytest.mark.parametrize("room", ORDER)
def test_the_files_of_a_room_stand_in_order(room: str) -> None:
    order = ORDER[room]
    for module, path in MODULES.items():
        if resident(module) != room or module.count(".") < 2:
            continue
        own = module.split(".")[2]
        assert own in order, f"{module} is new: say in {Path(__file__).name} where it stands"
        for other in {
            name.split(".")[2] for name in imports(path) if name.startswith(f"tinysqueeze.{room}.")
        }:
            assert order.index(other) <= order.index(own), (
                f"{module} imports {other}, which stands later"
            )


def test_no_module_is_imported_in_a_circle() -> None:
    graph = {module: imports(path) for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def lines_of_code(text: str) -> int:
    """Lines that hold code: no docstring, comment or blank line."""
    silent = {getattr(tokenize, name) for name in ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT")}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent and token.type != tokenize.ENDMARKER:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(code)


def test_lines_of_code_are_counted_as_said() -> None:
    text = '''
"""What for,

and how."""
x = """two
lines"""  # of a value

# not this
def f():
    """Nor this."""
    return [
        x,
    ]
'''
    assert lines_of_code(text) == 6


def test_the_network_is_read_in_an_evening() -> None:
    room = PACKAGE / "network"
    counts = {
        path.relative_to(room).as_posix(): lines_of_code(path.read_text(encoding="utf-8"))
        for path in room.rglob("*.py")
    }
    assert counts.keys() > NOT_READ
    total = sum(count for name, count in counts.items() if name not in NOT_READ)
    assert total < EVENING, f"network/ has {total} lines of code: {counts}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "network").rglob("*.py")), ids=str)
def test_forward_and_backward_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < SCREEN, f"{node.name} is too long for a screen"
        if isinstance(node, ast.ClassDef):
            both = [
                line
                for method in node.body
                if isinstance(method, ast.FunctionDef) and method.name in ("forward", "backward")
                for line in (method.lineno, method.end_lineno)
            ]
            height = max(both, default=0) - min(both, default=0)
            assert height < SCREEN, f"forward and backward of {node.name} take {height} lines"


@pytest.mark.parametrize("path", SOURCES + sorted((ROOT / "tests").glob("*.py")), ids=str)
def test_a_file_says_first_what_it_is_for_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path}: the first line says what the file is for"
    assert tree.body[0].lineno == 1
    assert len(text.splitlines()) <= MOST_LINES


def test_the_top_level_is_fixed() -> None:
    try:
        listing = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listing.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
