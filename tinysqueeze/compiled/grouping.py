"""From a graph to fused steps.

Nodes that belong together become one step: convolutions side by side that read the same map (the two
arms of a Fire's expand layer), the batch norm and activation that follow, the bypass that is added,
and the max-pool at the end. Sums and copies that can't be fused are steps of their own. A node that
no kernel can do becomes a `NodeStep`, which the plan runs through its layer's `forward` and `backward`.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from tinysqueeze.compiled.steps import (
    Arm,
    ConvStep,
    DropStep,
    JoinStep,
    Map,
    MeanStep,
    NodeStep,
    Step,
    StepList,
)
from tinysqueeze.graph.form import Activate, Add, Conv, Copy, Drop, Graph, Mean, Node, Norm, Pool
from tinysqueeze.graph.passes import copied, fuse
from tinysqueeze.kernels import TARGET


def group(graph: Graph, training: bool) -> StepList:
    """The steps of a graph. For inference it should have no dropout any more, and its norms merged."""

    def fits(node: Node) -> bool:
        return can_convolve(graph, node, training)

    graph = fuse(graph, into=fits)
    graph = copied(graph, lambda node: not _beside(graph, node, training))
    return _Grouping(graph, training).steps()


def can_convolve(graph: Graph, node: Node, training: bool) -> bool:
    """Kernels do maps and no groups; and a gradient to the input only for stride 1."""
    needs_dx = training and node.source != 0
    return (
        isinstance(node, Conv) and node.groups == 1 and len(graph.shapes[node.source]) == 3
        and (node.window.stride == (1, 1) or not needs_dx)
    )  # fmt: skip


def _beside(graph: Graph, node: Node, training: bool) -> list[Conv]:
    """The convolutions that fill a map together, this one among them, in the order of channels.

    Empty if it is no convolution, or if others fill the map as well.
    """
    found = [
        other for other in graph.writers(node.target)
        if isinstance(node, Conv) and isinstance(other, Conv)
        and (other.source, other.activation) == (node.source, node.activation)
        and can_convolve(graph, other, training)
    ]  # fmt: skip
    complete = sum(conv.filters for conv in found) == graph.shapes[node.target][-1]
    return sorted(found, key=lambda conv: conv.offset) if complete else []


def _in_place(graph: Graph, node: Node) -> bool:
    """A dropout that alone reads what another step wrote."""
    return isinstance(node, Drop) and node.source != 0 and len(graph.readers(node.source)) == 1


@dataclass
class _Grouping:
    """The maps and steps so far."""

    graph: Graph
    training: bool
    maps: dict[int, Map] = field(default_factory=dict)
    made: list[Step] = field(default_factory=list)
    done: set[tuple[int, int]] = field(default_factory=set)  # where nodes wrote that are in a step

    def steps(self) -> StepList:
        """Everything."""
        height, width, channels = self.graph.size(0)
        self.maps[0] = Map.of(height, width, (channels,))
        for node in self.graph.nodes:
            if (node.target, node.offset) in self.done:
                continue
            if convs := _beside(self.graph, node, self.training):
                self._convolutions(convs)
            elif not isinstance(node, Copy):
                self._alone(node)
            elif all(copy.source in self.maps for copy in self.graph.writers(node.target)):
                for copy in self.graph.writers(node.target):
                    self._alone(copy)
        return StepList(self.graph, self.maps, tuple(self.made), self._where(self.graph.output))

    def _where(self, number: int) -> int:
        """The map in whose place another lies: what was dropped out of lies where it came from."""
        writer = self.graph.writers(number)[:1]
        if writer and _in_place(self.graph, writer[0]):
            return self._where(writer[0].source)
        return number

    # --- nodes alone ----------------------------------------------------------------------------

    def _alone(self, node: Node) -> None:
        """A step of one node."""
        self.done.add((node.target, node.offset))
        reads = tuple(self._where(number) for number in node.sources)
        if _in_place(self.graph, node) and isinstance(node, Drop):
            self.maps[node.target] = self.maps[node.source]
            self.made.append(DropStep(node.path, reads, reads[0], node.rate, len(self.made)))
            return
        if node.target not in self.maps:
            self.maps[node.target] = self._layout(node)
        result, source = self.maps[node.target], self.maps[node.source]
        output, ends = self._where(self.graph.output), (node.path, reads, node.target)
        match node:
            case Mean() if node.source and node.target == output and len(source.segments) == 1:
                self.made.append(MeanStep(*ends))
            case Add() if {source, self.maps[node.second]} == {result} and 0 not in reads:
                self.made.append(JoinStep(*ends, 0, result.padded))
            case Copy() if self._lies_alike(node):
                place = int(result.positions[node.offset])
                channels = source.padded if node.source else source.channels
                self.made.append(JoinStep(*ends, place, channels))
            case _:
                self.made.append(NodeStep(*ends, node))

    def _lies_alike(self, copy: Copy) -> bool:
        """Do the channels that are copied lie in a pixel as they did before, beginning at a vector?"""
        source = self.maps[copy.source].positions
        places = self.maps[copy.target].positions[copy.offset : copy.offset + len(source)]
        return places[0] % TARGET.lanes == 0 and np.array_equal(places - places[0], source)

    def _layout(self, node: Node) -> Map:
        """How the map is laid out that a node writes: as what it reads, if that has as many channels.

        The result of the network lies without gaps.
        """
        height, width, channels = self.graph.size(node.target)
        segments: tuple[int, ...] = (channels,)
        if isinstance(node, Copy):
            copies = sorted(self.graph.writers(node.target), key=lambda copy: copy.offset)
            segments = tuple(s for copy in copies for s in self.maps[copy.source].segments)
        elif not isinstance(node, Conv):
            segments = self.maps[node.source].segments
        if sum(segments) != channels or node.target == self._where(self.graph.output):
            segments = (channels,)
        return Map.of(height, width, segments)

    # --- convolutions and what follows them -----------------------------------------------------

    def _convolutions(self, convs: list[Conv]) -> None:
        """One step for convolutions side by side, and for all that it can do as well."""
        arms, offset = [], 0
        for conv in convs:
            arms.append(Arm(conv.path, conv.window, conv.filters, conv.bias, offset))
            offset += TARGET.padded(conv.filters)
            self.done.add((conv.target, conv.offset))
        first, number = convs[0], convs[0].target
        height, width, _ = self.graph.size(number)
        result = Map.of(height, width, tuple(arm.filters for arm in arms))
        name, reads = " + ".join(arm.path for arm in arms), (self._where(first.source),)
        step = ConvStep(name, reads, number, tuple(arms), result, first.activation)
        self.maps[number] = result
        while (readers := self.graph.readers(number)) and len(readers) == 1:
            grown = self._grown(step, number, readers[0])
            if grown is None:
                break
            step, number = grown, readers[0].target
            size = self.graph.size(number)[:2]
            self.maps[number] = Map.of(*size, result.segments)
            self.done.add((number, readers[0].offset))
        self.made.append(replace(step, target=number))

    def _grown(self, step: ConvStep, number: int, node: Node) -> ConvStep | None:
        """The step that does this node, which reads its map `number`, as well; if there is one."""
        if step.pool:
            return None
        match node:
            case Pool() if not node.average and node.window.area < 256:
                return replace(step, pool=node.window)
            case Norm() if step.norm is None and step.activation is None and step.bypass is None:
                return replace(step, norm=node)
            case Activate() if step.norm and step.activation is None and step.bypass is None:
                return replace(step, activation=node.kind)
            case Add() if step.bypass is None:
                others = [n for n in node.sources if n != number and self._is_ready(n)]
                around = self._where(others[0]) if len(others) == 1 else 0
                if around and self.maps[around] == step.result:
                    return replace(step, reads=(step.source, around))
        return None

    def _is_ready(self, number: int) -> bool:
        """Has all of this map been written?"""
        return all((w.target, w.offset) in self.done for w in self.graph.writers(number))
