"""The sliding window of a convolution or a pool: the only place where an output size is computed."""

from dataclasses import dataclass

from tinysqueeze.errors import ShapeError

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3); (3, 5) stays. The order is (height, width)."""
    return (value, value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Window:
    """A window of `kernel` pixels that moves `stride` pixels at a time over an image padded by `pad`.

    All three are (height, width). With `ceil`, a last window that hangs over the edge is kept, as
    Caffe and PyTorch do, if it starts inside the image or its top/left padding.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    ceil: bool = False

    def __post_init__(self) -> None:
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.pad) < 0:
            raise ShapeError(f"{self}: kernel and stride must be at least 1, pad at least 0")

    @classmethod
    def of(cls, kernel: Pair, stride: Pair = 1, pad: Pair = 0, ceil: bool = False) -> "Window":
        """The same from ints or pairs: `Window.of(3, stride=2)`."""
        return cls(pair(kernel), pair(stride), pair(pad), ceil)

    @property
    def area(self) -> int:
        """How many pixels the kernel covers."""
        return self.kernel[0] * self.kernel[1]

    @property
    def is_pointwise(self) -> bool:
        """True for 1x1, stride 1, no padding: the convolution that is just a matrix product."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.pad == (0, 0)

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the output. Raises ShapeError where not even one window fits."""
        sizes = zip((height, width), self.kernel, self.stride, self.pad, strict=True)
        out = tuple(_positions(*size, self.ceil) for size in sizes)
        if min(out) < 1:
            needed = tuple(max(k - 2 * p, 1) for k, p in zip(self.kernel, self.pad, strict=True))
            raise ShapeError(
                f"a {self.kernel[0]}x{self.kernel[1]} window with padding {self.pad} needs an image "
                f"of at least {needed[0]}x{needed[1]} pixels, got {height}x{width}"
            )
        return out[0], out[1]


def _positions(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """How many places the window takes along one side."""
    room = size + 2 * pad - kernel
    if room < 0 and not (ceil and room > -stride):
        return 0
    count = room // stride + 1
    if ceil and room % stride and count * stride < size + pad:
        count += 1  # the overhanging window, which starts inside the image
    return count
