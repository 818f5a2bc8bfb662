"""The jobs of one convolution on one image, cut by rows or by panels of output channels."""

from dataclasses import replace

from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.space import View
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job


def rows_product(
    conv: Convolution, x: View, y: View, height: int, rows: int = 1, beyond: int = 0, skip: int = 0
) -> Job:
    """y = x * weight for up to `height` rows of the result at a time; a unit is `rows` of them.

    It does `beyond` rows more than its units have, and all of that `skip` rows further down.
    """
    size = conv.result
    x = replace(x, unit=rows * x.row * conv.arm.window.stride[0])
    y = y if y.thread else replace(y, unit=rows * y.row)
    return conv.direct(
        x, y, 1, height, rows * size.width, skip, rows_beyond=beyond * size.width,
        rows_in_all=size.pixels - skip * size.width,
    )  # fmt: skip


def panels_product(conv: Convolution, x: View, y: View) -> Job:
    """y = x * weight, a unit being a panel of output channels."""
    # where y is scratch for one panel, this takes back the panel's column
    x, y = replace(x, unit=0), replace(y, unit=-TARGET.panel if y.thread else 0)
    return conv.direct(x, y, 1, conv.result.height, conv.result.pixels, by_panel=True)


def winograd_jobs(
    conv: Convolution, x: View, y: View, high: int, by_panel: bool, apart: int = 1, per: int = 1
) -> list[Job]:
    """Tiles, products, output, for `high` times `per` rows of tiles; units lie `apart` of them apart.

    If y is scratch, it gets whole tiles at its beginning; else they are cut at the map's edge.
    """
    down, tiles = conv.m * x.row, high * per * conv.tiles[1]
    unit = 0 if y.thread else TARGET.panel if by_panel else conv.m * y.row
    x = replace(x, unit=apart * down, next=per * down)
    y = replace(y, unit=unit, next=per * conv.m * y.row)
    by_row = not (by_panel or y.thread)
    return conv.winograd(x, y, tiles, per, high if by_panel else per, by_panel, by_row)
