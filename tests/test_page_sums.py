"""The explorer's sums: what is said where a sum and the array's number differ."""

import numpy as np
import pytest
from cases import ops_with
from explored import NETWORKS, SMALL, go, steps_of

from tinysqueeze.network.ops import reference

pytestmark = pytest.mark.browser

SAID = "return document.querySelector('.ts-sum > .ts-line').textContent;"
NUDGE = """
const [row, column] = explorer.view.at;
const { y } = explorer.step.seen.get(explorer.node.path);
const at = ((explorer.view.n * y.size[0] + row) * y.size[1] + column) * y.size[2] + explorer.view.out;
const size = explorer.found.terms.reduce((sum, { a, b }) => sum + Math.abs(a * b), 0);
y.data[at] += given[0] * size;
explorer.draw();
explorer.settle();
"""


@pytest.mark.parametrize(
    ("nudge", "wanted"),
    [(0, ", the same float32."), (1e-6, ", its rounding (at most "), (1e-5, "They do not agree")],
)
def test_only_what_float32_explains_is_called_rounding(nudge, wanted, opened, rng):
    """36 terms: rounding may make 44 halves of float32's epsilon, 2.6e-6 of the terms' sizes."""
    run = opened(steps_of(SMALL, False, rng))
    go(run, "fire2/expand3x3", "→")
    run("explorer.set({ at: [3, 3] })")
    run(NUDGE, nudge)
    said = run(SAID)
    assert wanted in said
    assert ("report it" in said) == (nudge == 1e-5)


EVERY_VERDICT = """
const found = {};
for (let stop = 0; stop < explorer.stops.length; stop++) {
  const [path, direction] = explorer.stops[stop];
  if (path === 'loss') continue;
  for (const what of direction === '→' ? ['y'] : ['dx', 'dweight', 'dbias']) {
    for (const [at, k] of [[[0, 0], 0], [[2, 3], 1], [[99, 99], 99]]) {
      explorer.set({ stop });
      if (what.length > 2 && !explorer.step.seen.get(path).grads[what.slice(1)]) continue;
      explorer.set({ what, at, from: at, n: k % 2, out: k, inp: k, tap: k });
      explorer.settle();
      const said = document.querySelector('.ts-sum > .ts-line').textContent;
      const word = ['same float32', 'rounding', 'do not agree'].findLast((one) => said.includes(one));
      ((found[`${path} ${what}`] ??= {})[word] ??= []).push(said);
    }
  }
}
return found;
"""


def disagreeing(run) -> set[str]:
    """The stops whose sums, at corners and in the middle, are said not to agree with the array."""
    return {place for place, words in run(EVERY_VERDICT).items() if "do not agree" in words}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_arrays_that_python_computed_in_float32_agree(name, training, opened, rng):
    """With operations that the page does not know, it holds Python's arrays, not its own."""
    run = opened(steps_of(NETWORKS[name], training, rng, ops_with()))
    assert run("return Object.keys(explorer.state.y).length") >= 2
    assert disagreeing(run) == set()


def test_an_operation_with_a_fault_is_said_not_to_agree(opened, rng):
    def max_pool2d(*given):
        y, cache = reference.max_pool2d(*given)
        return y + np.float32(1e-3), cache

    run = opened(steps_of(NETWORKS["every layer"], False, rng, ops_with(max_pool2d=max_pool2d)))
    assert disagreeing(run) == {"max y"}
