"""The house stays as ARCHITECTURE says: floors, no circles, a fixed top level, short files."""

import ast
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinysqueeze"

# A module or subpackage imports only from floors below its own. The one table; keep it in order.
FLOORS = {
    1.0: ("errors", "communicator"),
    1.1: ("window", "files", "data", "scores"),
    2.0: ("ops", "kernels"),
    3.0: ("layers",),
    3.1: ("loss",),
    4.0: ("compose",),
    5.0: ("models",),
    5.1: ("params", "trace"),
    5.2: ("count", "gradcheck", "diagnose", "formulas"),
    6.0: ("optim", "stepwise", "lowering"),
    6.1: ("memory",),
    6.2: ("compiled",),
    6.3: ("engines", "recipes"),
    7.0: ("train", "pretrained", "int8"),
    7.1: ("checkpoint", "compression", "distributed", "c_export"),
    7.2: ("scaling", "experiments", "results"),
    8.0: ("pictures", "bench"),
    8.1: ("inside", "widgets", "resident"),
    8.2: ("stepper",),
    8.3: ("lessons",),
    9.0: ("__init__",),  # the public names, re-exported one by one
    9.1: ("cli",),
    9.2: ("__main__",),
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
TOP_LEVEL = {"tinysqueeze", "notebooks", "tests", "pyproject.toml", "README.md", "LICENSE"}
MOST_LINES = 450

SOURCES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """tinysqueeze/data/loader.py -> "tinysqueeze.data.loader"; a package is its __init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in SOURCES}


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a file but what is there for the type checker alone."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from running(node)


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it; `__version__` may be read by all."""
    found = set()
    for node in running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name, not relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if alias.name != "__version__":
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


def test_no_module_is_imported_in_a_circle() -> None:
    graph = {module: imports(path) for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


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
