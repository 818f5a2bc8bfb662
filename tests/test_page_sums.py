"""The explorer's sums: all terms, however many; what is said where a sum and the array's number differ."""

import numpy as np
import pytest
from cases import ops_with
from explored import NETWORKS, PRINTED, SMALL, go, number, printed_sum, steps_of

from tinysqueeze.network.compose import Chain
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D
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


OPENED = """
explorer.set({ what: 'dweight', tap: 0 });
explorer.settle();
document.querySelector('.ts-more').click();
return [explorer.found.terms.length, document.querySelectorAll('.ts-terms tbody tr').length];
"""
LAST = """
const list = document.querySelector('.ts-scroll');
const row = list.querySelector('.ts-terms tbody:last-child tr:last-child');
const [frame, { top, bottom }] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
const rows = document.querySelector('.ts-terms').getAttribute('aria-rowcount');
return [row.textContent, top >= frame.top && bottom <= frame.bottom + 1,
  row.getAttribute('aria-rowindex'), rows, row.cells[4].textContent];
"""


def test_a_long_list_of_terms_opens_with_its_first_and_has_them_all_later(
    browser, opened, rng, screenshot
):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    network = Chain((("conv", Conv2D(4, 3, pad=1)), ("gap", GlobalAvgPool2D())))
    run = opened(steps_of(network, False, rng, shape=(60, 50, 3)))
    go(run, "conv", "←")
    count, at_once = run(OPENED)
    assert count == 2 * 59 * 49
    assert at_once == 250
    held = np.float32(run("return explorer.held()"))
    assert printed_sum(browser) == held
    scroller = browser.find_element(By.CSS_SELECTOR, ".ts-scroll")
    for _ in range(30):  # a part is as high as it turns out when it comes into view
        scroller.send_keys(Keys.END)
        text, shown, index, rows, last_sum = run(LAST)
        if shown:
            break
    assert shown, "the last term can't be reached by key"
    screenshot("long_list")
    assert np.float32(number(last_sum)) == held
    assert text.startswith(f"{count}image 2 x[")
    assert int(index) == int(rows) == count + 1
    again = "explorer.set({ tap: 4 }); explorer.settle();"
    assert run(again + OPENED[OPENED.rindex("return") :]) == [6000, 250]  # its own, from the first
    assert printed_sum(browser) == np.float32(run("return explorer.held()"))


def test_a_batch_norms_own_mean_and_variance_are_sums_of_their_terms(
    browser, opened, rng, screenshot
):
    from selenium.webdriver.common.by import By

    steps = steps_of(SMALL, True, rng)
    run = opened(steps)
    go(run, "conv1_norm", "→")
    run("explorer.set({ out: 5 }); document.querySelector('.ts-more').click()")
    x = steps.trace["conv1_norm"].x[..., 5].astype(np.float64)
    for place, (name, expected) in enumerate((("mean", x.mean()), ("var", x.var())), 1):
        browser.find_elements(By.CSS_SELECTOR, ".ts-parts button")[place].click()
        assert f"{name}[5] = the mean of" in run(
            "return document.querySelector('.ts-sum > .ts-rule').textContent"
        )
        assert ", the same float32." in run(SAID)
        found = browser.execute_async_script(PRINTED)
        assert len(found) == x.size
        total = sum(np.prod([number(factor) for factor in row[:2]]) for row in found) / x.size
        held = run(
            "return Number(document.querySelector('.ts-sum').dataset.held.replace('−', '-'))"
        )
        assert np.float32(total) == np.float32(held)
        assert held == pytest.approx(expected, rel=1e-5)
    screenshot("variance")
    go(run, "conv1", "→")
    assert not browser.find_element(By.CSS_SELECTOR, ".ts-parts").is_displayed()


def test_a_batch_norms_way_back_in_training_has_its_terms(opened, rng):
    run = opened(steps_of(SMALL, True, rng))
    go(run, "fire3/expand_norm", "←")
    run("explorer.set({ at: [3, 1], inp: 4 })")
    terms, found, held = run(
        "return [explorer.found.terms.length, explorer.found.value, explorer.held()]"
    )
    assert terms == 3
    assert found == pytest.approx(held, rel=1e-5)
