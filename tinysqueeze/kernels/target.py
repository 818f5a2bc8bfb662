"""Which vectors this machine has, and how large a tile of results fits in its registers.

A processor core multiplies and adds whole *vectors* of numbers with one instruction: 16 float32 at a
time with AVX-512, 8 with AVX2, 4 with ARM's NEON. It keeps them in a few dozen *registers*, the only
memory that is as fast as the arithmetic. Every kernel of this package is built from the three numbers
below, so that the same source suits each machine.
"""

from typing import NamedTuple

from numba.core import config
from numba.core.registry import cpu_target

_AVX512_CPUS = ("avx512", "icelake", "tigerlake", "rocketlake", "sapphire", "znver4", "znver5")
_AVX2_CPUS = ("haswell", "broadwell", "skylake", "znver", "alderlake", "raptorlake", "x86-64-v3")
_VNNI_CPUS = (*_AVX512_CPUS[1:], "alderlake", "raptorlake")


class Target(NamedTuple):
    """The vector width and the register tile that the kernels are generated for."""

    lanes: int
    """How many float32 one vector holds. Channels are stored in multiples of it."""
    tile_rows: int
    """Rows of the register tile: how many pixels the micro-kernel works on at once."""
    tile_vectors: int
    """Columns of the register tile, in vectors: `lanes * tile_vectors` output channels."""
    strip_rows: int
    """Rows of the tile for weight gradients, whose rows lie side by side; divides `lanes`."""
    dot: str = "plain"
    """How four products of bytes are added: "vnni", "pairs" (x86 without it), or "plain"."""

    @property
    def byte_rows(self) -> tuple[int, ...]:
        """Rows of the tile of int32 sums that is 1, 2, ... vectors wide, up to a whole panel."""
        return _BYTE_ROWS.get((self.lanes, self.dot), (6, 4))

    @property
    def panel(self) -> int:
        """Columns of the register tile in floats; weights are packed in panels of this width."""
        return self.lanes * self.tile_vectors

    def padded(self, channels: int) -> int:
        """`channels` rounded up to whole vectors: how many floats a pixel takes in a buffer."""
        return -(-channels // self.lanes) * self.lanes


_BYTE_ROWS = {
    (16, "vnni"): (8, 8, 8, 6),  # 6 * 4 + 4 + 1 of 32 registers
    (16, "pairs"): (8, 8),  # weights and numbers take two registers each
    (8, "vnni"): (8, 6),  # 6 * 2 + 2 + 1 of 16
}

# The tile leaves room for one vector of weights per column, and one for the broadcast pixel value:
# 8 * 2 + 2 + 1 of 32 registers (AVX-512, NEON), 6 * 2 + 2 + 1 of 16 registers (AVX2).
_TARGETS = {16: Target(16, 8, 2, 8), 8: Target(8, 6, 2, 4), 4: Target(4, 8, 2, 4)}


def lanes_of(cpu: str, features: str) -> int:
    """Floats a vector holds on a processor that LLVM calls `cpu` and `features` ("+avx2,-avx512f,...").

    The features decide where they are given; otherwise the processor's name does.
    """
    listed = features.split(",")
    if "+avx512f" in listed:
        return 16
    if "+avx2" in listed and "+fma" in listed:
        return 8
    if not features and any(name in cpu for name in _AVX512_CPUS):
        return 16
    if not features and any(name in cpu for name in _AVX2_CPUS):
        return 8
    return 4


def dot_of(triple: str, cpu: str, features: str, lanes: int) -> str:
    """How that processor adds products of bytes: see `Target.dot`."""
    if not triple.startswith(("x86_64", "i686")):
        return "plain"
    if features:
        listed = set(features.split(","))
        if "+avx512vnni" in listed and (lanes == 16 or "+avx512vl" in listed) and lanes > 4:
            return "vnni"
        if "+avxvnni" in listed and lanes == 8:
            return "vnni"
        return "plain" if lanes == 16 and "+avx512bw" not in listed else "pairs"
    if any(name in cpu for name in _VNNI_CPUS) and lanes > 4:
        return "vnni"
    return "pairs"


def target() -> Target:
    """The target of the code that Numba really generates here.

    Read from Numba's own code generator, so that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are obeyed.
    Numba's disk cache is keyed by the same two strings: kernels of different widths never mix.
    """
    if config.DISABLE_JIT:
        return _TARGETS[4]
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    lanes = lanes_of(cpu, features)
    return _TARGETS[lanes]._replace(dot=dot_of(triple, cpu, features, lanes))


TARGET = target()
