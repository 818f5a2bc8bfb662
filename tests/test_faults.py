"""The planted faults: each can be planted, and (with the marker) each is caught."""

import ast

import faults
import planting
import pytest


def test_every_fault_can_be_planted():
    """Its line is there, once, and with the fault in it the file is another program, but still one."""
    for fault in faults.FAULTS:
        text = (planting.ROOT / faults.FILES[fault.file]).read_text(encoding="utf-8")
        changed = planting.planted(text, fault)
        assert "\n" not in fault.old.strip()
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), fault
    assert len(set(faults.FAULTS)) == len(faults.FAULTS) >= 44


def test_a_line_that_is_not_there_once_is_told():
    with pytest.raises(ValueError, match="0 times, not once"):
        planting.planted("a = 1\n", faults.Fault("loss", "b", "c", "none"))
    with pytest.raises(ValueError, match="2 times, not once"):
        planting.planted("b = b\n", faults.Fault("loss", "b", "c", "two"))


@pytest.mark.faults
def test_every_fault_is_caught(request):
    """`pytest -m faults -s` for all, an hour or two; `--faults 5` for five of them."""
    missed = []
    for outcome in planting.outcomes(planting.sample(request.config.getoption("faults"))):
        print(outcome, flush=True)
        missed += [] if outcome.caught else [str(outcome)]
    assert not missed, "\n".join(missed)
