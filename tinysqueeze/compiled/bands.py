"""Bands: for one large image, a map and the pool after it are made together, a few rows at a time.

The map between the two would be the largest of all. In bands it is a thread's scratch memory, which
stays in the cache: never written as a whole, and never read back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.space import NONE, Halo
from tinysqueeze.compiled.steps import ConvStep

TILES = 32
"""Winograd tiles in a chunk."""
BAND = 8
"""Rows of a pooled map that are made at a time, from a band of the map before."""


def by_rows(conv: Convolution, threads: int) -> bool:
    """Are there enough tiles to cut a Winograd convolution by rows of them?"""
    high, wide = conv.tiles
    return high * wide >= TILES * 2 * threads


@dataclass(frozen=True)
class Bands:
    """How a map is cut.

    The last `over` rows of a band lie in the next one's windows as well. They are carried over to
    its beginning, so that each unit only adds rows further down.
    """

    units: int
    rows: int
    """Rows of the map that a unit adds: with Winograd, whole rows of tiles."""
    pooled: int
    """Rows of the pool that it makes of them."""
    over: int
    limit: int
    """The most units that a band should have, to stay in the cache."""

    def halo(self, conv: Convolution) -> Halo:
        """The zeros around the source: tiles begin `over` rows further down, and reach further."""
        if not conv.m:
            return NONE
        window = conv.arm.window
        bottom = self.over + self.units * self.rows + window.kernel[0] - 1 - window.pad[0]
        return Halo(bottom=max(0, bottom - conv.weights.source.height))


def bands_of(
    step: ConvStep, convs: Sequence[Convolution], out_height: int, threads: int
) -> Bands | None:
    """The bands of a step's convolutions and its pool, `out_height` rows high.

    None where there is no pool, and where bands do not suit: for small maps, whose weights are
    shared out instead, and if somebody needs the whole map.
    """
    if not step.pool or step.pool.pad != (0, 0) or step.bypass is not None:
        return None
    (high, _), (down, _) = step.pool.kernel, step.pool.stride
    over = max(high - down, 0)
    tiled = [conv for conv in convs if conv.m]
    if not tiled:
        pointwise = step.arms[0].window.is_pointwise
        return None if pointwise else Bands(out_height, down, 1, over, BAND)
    m, wide = tiled[0].m, tiled[0].tiles[1]
    if over > m or any(conv.m != m or not by_rows(conv, threads) for conv in tiled):
        return None
    rows = math.lcm(m, down)
    pooled = rows // down
    most = max(1, TILES // (wide * (rows // m)))
    return Bands(-(-out_height // pooled), rows, pooled, over, most)
