"""Layers that all of an image passes, residual branches and rectifiers, read off the graph of one
pass.

A *cut* of the graph is an operation that lies on every path from the network's input to its answer,
such as the end of a residual block. Between two cuts work may run side by side, in a residual
branch and past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from attnshift.errors import ModelError

__all__ = ["find_layer", "output_of", "way_back"]


_NAMED = 6
"""Layers that a message lists."""


@dataclass(frozen=True)
class _Graph:
    """Operations between a network's input and its answer, each after all that it depends on.

    ``depth`` is an operation's longest distance from the input.
    """

    places: dict[Node, int]
    depth: dict[Node, int]
    cuts: frozenset[Node]

    @classmethod
    def of(cls, inputs: Tensor, answer: Tensor) -> _Graph:
        first, last = get_gradient_edge(inputs).node, get_gradient_edge(answer).node
        depth: dict[Node, int] = {first: 0}
        dead: set[Node] = set()
        waiting = [last]
        while waiting:
            node = waiting[-1]
            before = _inputs(node)
            unseen = [each for each in before if each not in depth and each not in dead]
            if node in depth or node in dead:
                waiting.pop()
            elif unseen:
                waiting += unseen
            elif reached := [depth[each] for each in before if each in depth]:
                depth[waiting.pop()] = 1 + max(reached)
            else:
                dead.add(waiting.pop())
        places = {node: place for place, node in enumerate(depth)}
        return cls(places, depth, _cuts(places))

    def rectifiers(self) -> Iterator[Node]:
        """Operations that pass no gradient where a value is out of their range: ReLU and ReLU6."""
        return (node for node in self.places if node.name().startswith(("ReluBackward", "HardtanhBackward")))

    def branches(self) -> Iterator[tuple[Node, int]]:
        """Sums at which a residual branch meets what passed it by, with the number of the branch
        among the sum's inputs: it is the longer way."""
        for node in self.cuts:
            ways = [each for each, _ in node.next_functions]
            if not node.name().startswith("AddBackward") or len(ways) != 2:
                continue
            lengths = [self.depth.get(each, -1) if each else -1 for each in ways]
            if min(lengths) >= 0 and lengths[0] != lengths[1]:
                yield node, lengths.index(max(lengths))


def _inputs(node: Node) -> list[Node]:
    return [each for each, _ in node.next_functions if each is not None]


def _cuts(places: dict[Node, int]) -> frozenset[Node]:
    """Operations that no edge passes by, in an order in which every edge leads forward."""
    passing = [0] * (len(places) + 1)
    for node, place in places.items():
        for before in _inputs(node):
            if before in places:
                passing[places[before] + 1] += 1
                passing[place] -= 1
    cuts, open_edges = set(), 0
    for node, place in places.items():
        open_edges += passing[place]
        if not open_edges:
            cuts.add(node)
    return frozenset(cuts)


def find_layer(name: str, network: nn.Module, inputs: Tensor, layer: float | str) -> nn.Module:
    """The module of ``network`` that ``layer`` means: its name, or a share of the depth in (0,1).

    A share is that of the operations of one pass that are done: the nearest module that all of the
    image passes, and that still has several positions. ``inputs`` [batch,3,rows,columns] are what
    ``network`` is called with. ``name`` is the classifier's, for messages.

    Raises ``ModelError`` if there is no such module.
    """
    places = _passed(network, inputs)
    if isinstance(layer, str):
        modules = dict(network.named_modules())
        if layer and layer in modules:
            return modules[layer]
        some = [*places][:: max(1, len(places) // _NAMED)][:_NAMED]
        raise ModelError(f"classifier '{name}' has no layer '{layer}'; some that it has are {', '.join(some)}")
    if not places:
        raise ModelError(
            f"classifier '{name}' has no layer that all of the image passes; leave features out for this classifier"
        )
    return network.get_submodule(min(places, key=lambda each: abs(places[each] - layer)))


def _passed(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Names of the modules that all of the image passes, with the share of the depth that is done
    there, in (0,1), in the order of the pass; the outermost of those that end together."""
    ends: dict[Node, list[str]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            values = output_of(output)
            if values is not None and values.grad_fn is not None and _has_positions(values):
                ends.setdefault(values.grad_fn, []).append(name)

        return note

    leaf = inputs.detach().requires_grad_()
    with ExitStack() as stack, torch.enable_grad():
        for name, module in network.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(noting(name)))
        graph = _Graph.of(leaf, output_of(network(leaf)))  # type: ignore[arg-type]
    cuts = sorted((graph.places[node], min(names, key=_nesting)) for node, names in ends.items() if node in graph.cuts)
    return {name: place / len(graph.places) for place, name in cuts}


def _nesting(name: str) -> int:
    return name.count(".")


def output_of(output: Any) -> Tensor | None:
    """The tensor of a module's ``output``: itself, or the first of several; None without one."""
    several = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
    return next((each for each in several if isinstance(each, Tensor)), None)


def _has_positions(values: Tensor) -> bool:
    """True for features [batch,...] with more than one position, so not for an average or
    logits."""
    return values.ndim > 2 and values[0].numel() > max(values.shape[1:])


def lacking(network: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """Kinds of places that ``way_back`` acts on and a pass of ``inputs`` does not meet: residual
    branches, rectifiers."""
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        graph = _Graph.of(leaf, output_of(network(leaf)))  # type: ignore[arg-type]
    found = {"residual branches": graph.branches(), "rectifiers": graph.rectifiers()}
    return tuple(kind for kind, places in found.items() if next(places, None) is None)


@contextmanager
def way_back(network: nn.Module, skip_decay: float = 1.0, relu_leak: float = 0.0) -> Iterator[None]:
    """Change what a gradient does in ``network``, for each pass that is made meanwhile.

    Values stay.

    ``skip_decay`` multiplies what goes back into a residual branch, and not what passes the branch
    by: Wu et al., "Skip connections matter", ICLR 2020, eq. 3. Where the way past a branch has
    layers of its own, the longer way is the branch. ``relu_leak`` is the share of a gradient that a
    rectifier passes where it is off; 1 is the linear backpropagation of Guo et al., NeurIPS 2020,
    section 3. 1 and 0 change nothing, and so do networks without such places (see ``lacking``).
    """
    entered: list[Tensor] = []

    def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        entered[:] = [inputs[0]]

    def leave(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        answer = output_of(output)
        if answer is None or not answer.requires_grad:
            return
        graph = _Graph.of(entered[0], answer)
        if skip_decay != 1.0:
            for node, branch in [*graph.branches()]:
                node.register_hook(_damping(branch, skip_decay))
        if relu_leak:
            for node in [*graph.rectifiers()]:
                node.register_hook(_leaking(relu_leak))

    with network.register_forward_pre_hook(enter), network.register_forward_hook(leave):
        yield


def _damping(branch: int, factor: float) -> Callable[..., tuple[Tensor, ...]]:
    def damp(gradients: tuple[Tensor, ...], _later: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(factor * each if at == branch else each for at, each in enumerate(gradients))

    return damp


def _leaking(share: float) -> Callable[..., tuple[Tensor, ...]]:
    def leak(gradients: tuple[Tensor, ...], later: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.lerp(gradients[0], later[0], share), *gradients[1:])

    return leak
