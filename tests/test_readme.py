"""What the README shows is true: its example runs, its commands exist, CI runs its test command."""

import re
from pathlib import Path

from tinysqueeze.cli import COMMANDS
from tinysqueeze.data import builtin

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_runs_and_both_ways_agree(capsys):
    example = next(code for language, code in BLOCKS if language == "python")
    exec(compile(example, "README.md", "exec"), {})
    parameters, step, plan = capsys.readouterr().out.splitlines()
    assert parameters == "729034"
    by_layers, compiled = float(step.split()[0]), float(plan.split()[0])
    assert abs(by_layers - compiled) < 1e-4 * by_layers


def test_the_functions_do_what_is_said(capsys, tmp_path, monkeypatch):
    """The second example as it stands, on fewer images."""
    monkeypatch.chdir(tmp_path)
    few = {split: builtin.render(100, seed) for split, seed in builtin.SEEDS.items()}
    monkeypatch.setattr(builtin, "dataset", few.get)
    _, example = (code for language, code in BLOCKS if language == "python")
    exec(compile(example, "README.md", "exec"), {})
    said = capsys.readouterr().out
    for words in ("images: ", "Guess(index=", " bytes\n", "squeezenet_cifar.c"):
        assert words in said
    assert (tmp_path / "small.tsq").stat().st_size < 729_034  # four bits of 32, and less


def test_commands_exist():
    shell = "\n".join(code for language, code in BLOCKS if language == "bash")
    assert set(re.findall(r"tinysqueeze (\w+)", shell)) <= set(COMMANDS)
    assert "tinysqueeze train" in shell


def test_ci_runs_the_test_command_as_it_stands():
    command = next(code.strip() for language, code in BLOCKS if "pytest" in code)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_tree_is_whole():
    """Every file and folder of the package stands in the README's tree."""
    tree = next(
        code
        for language, code in re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
        if not language
    )
    places = [p for p in (ROOT / "tinysqueeze").iterdir() if not p.name.startswith(("_", "."))]
    missing = [p.name for p in places if p.suffix != ".typed" and p.name not in tree]
    assert missing == []
