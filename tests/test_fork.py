"""A forked process can work at once, whatever the other threads of its parent were doing."""

import subprocess
import sys

import pytest

FORKING = """
import os, sys, threading, time
import numpy as np
import tinysqueeze as ts
from tinysqueeze.training.optimisers import Muon

tiny = dict(base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, input_size=12, fires=3,
            pools=(1, 3), classes=3)
model = ts.squeezenet_cifar(**tiny)
rng = np.random.default_rng(0)
images, labels = rng.random((16, 12, 12, 3), np.float32), np.arange(16) % 3
engine = ts.compile(model, 16, threads=2) if sys.argv[1] == "plan" else ts.StepByStep(model)
optimiser = Muon().fitted(model, ())
slots = optimiser.start(engine.vector)

def step():
    loss, _ = engine.loss_and_grads(images, labels)
    optimiser.update(engine.vector, engine.grad_vector, slots, np.zeros_like(engine.vector), 1e-9, 1, 2)
    return loss, engine.predict(images)

def busy():
    while True:
        step()

step()
threading.Thread(target=busy, daemon=True).start()
for fork in range(5):
    time.sleep(0.02 + fork / 100)
    child = os.fork()
    if not child:
        loss, logits = step()
        assert np.isfinite(loss) and np.isfinite(logits).all()
        os._exit(0)
    until = time.monotonic() + 30
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, 9)
            sys.exit(f"fork {fork} waits for ever")
        time.sleep(0.005)
    assert done[1] == 0, f"fork {fork} ended with {done[1]}"
loss, _ = step()  # and the parent goes on
print("all forks worked", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
@pytest.mark.parametrize("engine", ["plan", "stepwise"])
def test_a_process_forked_while_a_step_runs_takes_its_own_steps(engine):
    command = [sys.executable, "-W", "ignore", "-c", FORKING, engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all forks worked\n"
