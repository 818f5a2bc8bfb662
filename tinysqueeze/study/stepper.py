"""A debugger for backpropagation: stop at every layer, forward to the loss and back to the image."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.labels import check_classes
from tinysqueeze.network.compose import Composition
from tinysqueeze.network.layers import EVAL, Layer, Mode, Params
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.network.params import flatten
from tinysqueeze.study.formulas import Formula, Place, backward_formula, by, forward_formula
from tinysqueeze.study.trace import Record, Sum, trace

Direction = Literal["forward", "loss", "backward"]


@dataclass(frozen=True)
class Stop:
    """One place to look: a layer or a bypass's sum, on the way up or down, or the loss in between."""

    path: str
    direction: Direction


class Steps:
    """One training step taken apart: `next`, `back`, `run_to`, and look around at each stop.

    It runs the step once, when it is made, and keeps everything. Works on any network: a `Model`, or
    any layer that ends in logits. `text()` tells it in words; `show.widgets.Stepper` adds pictures and
    buttons.

        steps = Steps(model, params, images, labels)
        steps.run_to("fire2/squeeze")
        print(steps.text(at=(0, 0, 3)))
    """

    def __init__(
        self,
        model: Layer,
        params: Params,
        images: np.ndarray,
        labels: np.ndarray,
        mode: Mode = EVAL,
    ) -> None:
        """images (N, H, W, C) floats, labels (N,) integers. Raises ShapeError, naming the layer."""
        self.trace = trace(model, params, images, labels, mode=mode)
        self.model, self.params, self.mode = model, params, mode
        self.images = images
        self.labels = check_classes(labels, len(images), self.trace.logits.shape[1], "stepper")
        self.name = getattr(model, "name", type(model).__name__)
        paths = [
            path
            for path, record in self.trace.records.items()
            if not isinstance(record.layer, Composition)
        ]
        self.stops: tuple[Stop, ...] = (
            *(Stop(path, "forward") for path in paths),
            Stop("loss", "loss"),
            *(Stop(path, "backward") for path in reversed(paths)),
        )
        self.position = 0

    # ---------------------------------------------------------------------------------- moving

    @property
    def stop(self) -> Stop:
        """Where we are."""
        return self.stops[self.position]

    def next(self) -> Stop:
        """One stop on; stays at the last."""
        self.position = min(self.position + 1, len(self.stops) - 1)
        return self.stop

    def back(self) -> Stop:
        """One stop back; stays at the first."""
        self.position = max(self.position - 1, 0)
        return self.stop

    def run_to(self, path: str, direction: Direction | None = None) -> Stop:
        """Go to a layer's stop, or to "loss". Raises UserError if there is no such path.

        Without a direction it is the next stop of that path after this one, or the first.
        """
        order = [*range(self.position, len(self.stops)), *range(self.position)]
        for i in order:
            if self.stops[i].path == path and direction in (None, self.stops[i].direction):
                self.position = i
                return self.stop
        paths = dict.fromkeys(stop.path for stop in self.stops)
        raise UserError(f"the stepper has no stop {path!r}; there are {', '.join(paths)}")

    # --------------------------------------------------------------------------------- looking

    @property
    def record(self) -> Record | None:
        """What the layer here saw; None at the loss."""
        return None if self.stop.direction == "loss" else self.trace[self.stop.path]

    def arrays(self, example: int = 0) -> dict[str, np.ndarray]:
        """What there is to see here, by name, of one example; gradients are those of the whole batch."""
        record = self.record
        if record is None:
            assert self.trace.dlogits is not None
            logits = self.trace.logits[example]
            dlogits = self.trace.dlogits[example]
            return {"logits": logits, "softmax": softmax(logits.astype(float)), "dlogits": dlogits}
        first = "image" if self.stop == self.stops[0] else "x"
        if self.stop.direction == "forward":
            beside = {"around": record.cache["around"]} if isinstance(record.layer, Sum) else {}
            seen = {first: record.x, **beside, "y": record.y}
            return {name: array[example] for name, array in seen.items()}
        assert record.dx is not None
        grads = {f"d{name}": grad for name, grad in flatten(record.grads).items()}
        return {"dy": record.down[example], "dx": record.dx[example], **grads}

    def place(self, at: Place | None = None) -> Place:
        """A pixel (row, column, channel) that exists here: `at` cut to the shape, or the middle."""
        record = self.record
        if record is None:
            return (int(self.labels[0]),)
        forward = self.stop.direction == "forward"
        shape = (record.y if forward else record.x).shape[1:]
        if at is None:
            return tuple(side // 2 for side in shape[:-1]) + (0,)
        wanted = at[-len(shape) :]
        return tuple(min(max(i, 0), side - 1) for i, side in zip(wanted, shape, strict=True))

    def formula(self, at: Place | None = None, example: int = 0) -> Formula:
        """The rule of this stop with the actual numbers: of y[at] going up, of dx[at] going down."""
        record, place = self.record, self.place(at)
        if record is None:
            return self._loss_formula()
        if self.stop.direction == "forward":
            return forward_formula(record.layer, record, example, place)
        return backward_formula(record.layer, record, example, place)

    def _loss_formula(self) -> Formula:
        rows = zip(self.trace.logits, self.labels, strict=True)
        chosen = [float(softmax(row.astype(float))[k]) for row, k in rows]
        value = float(np.mean([-np.log(p) for p in chosen]))
        logs = " + ".join(f"ln {p:.4f}" for p in chosen[:4]) + (" + …" if len(chosen) > 4 else "")
        rule = "loss = the mean of −ln(the probability of the right class)"
        return Formula(rule, f"= −({logs}) / {len(chosen)} = {value:.6g}", value)

    def headline(self) -> str:
        """One line: how far we are, the direction, the path, the layer, the shapes."""
        stop, record = self.stop, self.record
        count = f"{self.position + 1}/{len(self.stops)}"
        if record is None:
            return f"{count}  loss {self.trace.loss:.4f} = ln {np.exp(self.trace.loss or 0):.2f}"
        sign = {"forward": "→", "backward": "←"}[stop.direction]
        shapes = f"x {by(*record.x.shape)} {sign} y {by(*record.y.shape)}"
        return f"{count}  {sign} {stop.path}  {record.layer}  {shapes}"

    def text(self, at: Place | None = None, example: int = 0) -> str:
        """The headline, the shapes and ranges of all arrays, and the formula: for a terminal."""
        lines = [self.headline()]
        for name, array in self.arrays(example).items():
            low, high = float(array.min()), float(array.max())
            lines.append(f"  {name:<8} {by(*array.shape):<14} from {low:+.4g} to {high:+.4g}")
        formula = self.formula(at, example)
        return "\n".join([*lines, f"  {formula.rule}", f"  {formula.numbers}"])

    def __repr__(self) -> str:
        return self.text()
