"""The compiled plan of a network in integers: the same bits as `devices.int8` and the C export, but fast."""

import threading

import numpy as np
from numba.core import config
from numpy.typing import NDArray

from tinysqueeze.compiled.int8.products import fits
from tinysqueeze.compiled.int8.program import Int8Program, int8_program
from tinysqueeze.devices.int8 import Int8Network
from tinysqueeze.errors import ShapeError
from tinysqueeze.kernels.team import Team, renewed_after_fork
from tinysqueeze.labels import check_images

SINGLE_PIXELS = 96 * 96
"""Images larger than this are predicted one by one, by all threads."""


class Int8Plan:
    """A quantised network ready to run for batches of up to `batch` images.

    A plan may be used by one thread at a time (others wait); two plans never disturb each other. Where
    nothing is compiled (NUMBA_DISABLE_JIT), and for a layer whose sums 32 bits might not hold, it runs the
    network as `Int8Network.integers` does.
    """

    training = False
    precision = "int8"

    def __init__(self, network: Int8Network, batch: int, threads: int | None) -> None:
        self.network, self.batch, self.team = network, batch, Team(threads)
        self.renew()
        renewed_after_fork(self)
        height, width, _ = network.graph.shapes[0]
        self.is_single = batch == 1 or height * width > SINGLE_PIXELS
        self.is_compiled = not config.DISABLE_JIT and all(map(fits, network.convs.values()))
        self._program: Int8Program | None = None

    def renew(self) -> None:
        """Nobody is inside: so it begins, and so a forked process finds it."""
        self._lock = threading.Lock()

    @property
    def threads(self) -> int:
        """How many threads work on it."""
        return self.team.threads

    @property
    def peak_bytes(self) -> int:
        """Bytes of all buffers that it has allocated so far."""
        return self._program.bytes if self._program else 0

    def predict(self, images: np.ndarray) -> NDArray[np.float32]:
        """Logits (N, classes) of any number of images (N, H, W, C) float32, as the float network takes them.

        Raises ShapeError for images of another shape or dtype, or that hold NaN, for which no byte stands.
        """
        graph = self.network.graph
        images = check_images(images, graph.name, graph.shapes[0])
        if images.size and np.isnan(images.min()):  # of whose minimum NaN is always one
            raise ShapeError(f"{graph.name}: the images hold NaN, for which integers have no value")
        scaled = self._run(np.ascontiguousarray(images, np.float32)) * self.network.logit_scale
        return scaled.astype(np.float32)

    def integers(self, image_bytes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The int32 logits (N, classes) of encoded images (N, H, W, C) uint8."""
        if image_bytes.dtype != np.uint8:
            raise ShapeError(
                f"encoded images are uint8, not {image_bytes.dtype}; `predict` encodes"
            )
        return self._run(np.ascontiguousarray(image_bytes))

    def _run(self, images: np.ndarray) -> NDArray[np.int32]:
        graph = self.network.graph
        if images.ndim != 4 or images.shape[1:] != graph.shapes[0]:
            raise ShapeError(
                f"{graph.name}: expected images (N, {', '.join(map(str, graph.shapes[0]))}), got "
                f"{images.shape}"
            )
        if not self.is_compiled:
            encoded = images if images.dtype == np.uint8 else self.network.encode(images)
            return self.network.integers(encoded)
        with self._lock:
            if self._program is None:
                self._program = int8_program(self.network, self.batch, self.threads, self.is_single)
            size = self._program.batch
            parts = [
                self._program.run(self.team, images[start : start + size])
                for start in range(0, len(images), size)
            ]
        classes = graph.shapes[graph.output][-1]
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.int32)
