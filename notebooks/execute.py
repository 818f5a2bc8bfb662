"""Run the lessons and keep their outputs small and readable: `python notebooks/execute.py [NAME ...]`.

Each notebook is run from an empty kernel and written back; alternative texts are copied to where the
site's builder looks for them.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
LARGEST = 900_000  # bytes of a notebook with its outputs: lesson 15 has two explorers
LONGEST = 60  # seconds


def run(path: Path) -> float:
    """Execute one notebook in place; the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True)
    client.execute(cwd=HERE)
    seconds = time.perf_counter() - start
    tidy(notebook, path.stem)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return seconds


def tidy(notebook: NotebookNode, name: str) -> None:
    """Drop what changes from run to run; give every cell a lasting id."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name[:2]}-{number:02d}"
        if cell.cell_type == "code":
            kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if key in cell.metadata}
            cell.metadata = kept | _alt(cell)


def _alt(cell: NotebookNode) -> dict:
    """The alternative text of the cell's picture, as myst-nb wants it."""
    for output in cell.outputs:
        for about in output.get("metadata", {}).values():
            if isinstance(about, dict) and "alt" in about:
                return {"mystnb": {"image": {"alt": about["alt"]}}}
    return {}


def main() -> int:
    """Run all notebooks, or those whose names start with one of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the first letters of a notebook's name: 03")
    names = tuple(parser.parse_args().names)
    failed = False
    for path in sorted(HERE.glob("*.ipynb")):
        if names and not path.name.startswith(names):
            continue
        seconds, size = run(path), path.stat().st_size
        good = seconds < LONGEST and size < LARGEST
        failed |= not good
        print(
            f"{path.name:<40} {seconds:5.1f} s {size / 1000:6.0f} kB{'' if good else '  TOO MUCH'}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
