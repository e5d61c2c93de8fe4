"""Second moments of the inputs of linear layers, and gradients of a loss at their weights, summed over images.

Everything is computed in float32 whatever the precision of the run, and summed in float64. Sums of at most ``memory``
bytes, but at least one layer's, are held at a time: more layers take more passes over the images, each of which stops
behind its last layer. DINOv2-L has 3.9 GB of moments, 134 MB for each fc2: four passes by default.

Several processes share the images and add their sums up. What is stored is the lower triangle of C, by the content of
everything it depends on; the first process looks, and what it finds it sends to the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.adapters.calibration.statistics import GRADIENTS, MOMENTS, Array, Statistics
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.selection import separate_qkv_bias
from recyclelora.system.distributed import from_first, is_first, process_share, sum_over_processes

VERSION = 1
"""Part of every cache key: raise it when sums change by more than rounding."""
MEMORY = 2**30
"""Bytes of sums at a time, by default."""


class _Enough(Exception):
    """The last layer that was asked for has been reached."""


@dataclass(frozen=True)
class ImagePass:
    """How images are shown to a model, one at a time.

    Attributes:
        count: how many there are.
        digest: of the images and of how they are shown.
        forward: runs the model on image number i.
        loss: the loss of image number i, for gradients; None where there are no labels.
        cache: keeps sums between runs.
        memory: bytes of sums that are held at a time.
        progress: called with the number of images shown since the last call, and of all that will be.
    """

    count: int
    digest: str
    forward: Callable[[int], object]
    loss: Callable[[int], Tensor] | None = None
    cache: FactorCache | None = None
    memory: int = MEMORY
    progress: Callable[[int, int], None] = lambda count, total: None

    def statistics(
        self, model: nn.Module, layers: Sequence[str], what: Sequence[str]
    ) -> Iterator[dict[str, Statistics]]:
        """See `statistics.Calibration`."""
        if GRADIENTS in what and self.loss is None:
            raise ValueError("calibration: gradients need labelled images, which the sources have: folder=null")
        moments, gradients = MOMENTS in what, GRADIENTS in what
        separate_qkv_bias(model, layers)
        sources = self._inputs(model, layers) if moments else {name: name for name in layers}
        key = _Key(self.digest, model)
        parts = list(_parts(model, sources, self.memory, moments=moments, gradients=gradients))
        for part in parts:
            inputs = {sources[name]: _linear(model, sources[name]) for name in part} if moments else {}
            found = self._kept(key, MOMENTS, inputs, self._moments, len(parts), model)
            own = {name: _linear(model, name) for name in part} if gradients else {}
            slopes = self._kept(key, GRADIENTS, own, self._gradients, len(parts), model)
            shared = {name: Statistics(_square(t["triangle"]), t["mean"]) for name, t in found.items()}
            yield {
                name: _joined(shared.get(sources[name]), slopes[name]["gradient"] if gradients else None)
                for name in part
            }
            del found, slopes, shared  # before the next part is summed

    # --- kept between runs --------------------------------------------------------------------------------------------

    def _kept(
        self,
        key: _Key,
        what: str,
        layers: Mapping[str, nn.Linear],
        measure: Callable[[nn.Module, Mapping[str, nn.Linear], int], dict[str, dict[str, Array]]],
        passes: int,
        model: nn.Module,
    ) -> dict[str, dict[str, Array]]:
        """Stored sums, and measured ones for the others, by layer: arrays by name."""
        found: dict[str, dict[str, Array]] = {}
        if self.cache is not None:
            here = {name: self.cache.load(key.of(what, name)) for name in layers} if is_first() else {}
            found = from_first({name: arrays for name, arrays in here.items() if arrays is not None})
        missing = {name: module for name, module in layers.items() if name not in found}
        if not missing:
            return found
        measured = measure(model, missing, passes)
        if self.cache is not None and is_first():
            for name, arrays in measured.items():
                self.cache.store(key.of(what, name), arrays)
        return found | measured

    # --- passes -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _inputs(self, model: nn.Module, layers: Sequence[str]) -> dict[str, str]:
        """Layer -> the first layer with the same input, found by one image; in the order of the forward."""
        seen: list[tuple[Tensor, int, str]] = []  # the last input is kept: its place in memory is then nobody else's
        sources: dict[str, str] = {}

        def look(name: str, x: Tensor) -> None:
            if not (seen and _same(seen[0][0], x) and seen[0][1] == x._version):
                seen[:] = [(x, x._version, name)]
            sources[name] = seen[0][2]

        self._show(model, {name: _linear(model, name) for name in layers}, look, 0)
        return sources

    @torch.no_grad()
    def _moments(self, model: nn.Module, layers: Mapping[str, nn.Linear], passes: int) -> dict[str, dict[str, Array]]:
        """The lower triangle of C, packed by rows, and the mean of every layer's inputs."""
        sums = {name: _Sum.zeros(module) for name, module in layers.items()}
        for image in process_share(self.count):
            self._show(model, layers, lambda name, x: sums[name].add(x), image)
            self.progress(1, len(process_share(self.count)) * passes)
        result = {}
        for name in list(sums):
            moment, mean = sums.pop(name).means()  # one square at a time beside its triangle
            if not np.isfinite(moment).all():
                raise ValueError(f"calibration: the inputs of {name} hold NaN or infinity")
            result[name] = {"triangle": moment[np.tril_indices(len(moment))], "mean": mean}
        return result

    def _gradients(self, model: nn.Module, layers: Mapping[str, nn.Linear], passes: int) -> dict[str, dict[str, Array]]:
        """The mean gradient of every layer's weight; only these weights ask for one."""
        assert self.loss is not None
        asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        model.requires_grad_(False)
        weights = {name: module.weight.requires_grad_(True) for name, module in layers.items()}
        sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
        try:
            for image in process_share(self.count):
                with torch.enable_grad():
                    slopes = torch.autograd.grad(self.loss(image), list(weights.values()))
                for total, slope in zip(sums.values(), slopes, strict=True):
                    total += slope
                self.progress(1, len(process_share(self.count)) * passes)
        finally:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(asked[name])
        result = {}
        for name, total in sums.items():
            gradient = (sum_over_processes(total) / self.count).cpu().numpy()
            if not np.isfinite(gradient).all():
                raise ValueError(f"calibration: the gradient of {name} holds NaN or infinity")
            result[name] = {"gradient": gradient}
        return result

    def _show(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], look: Callable[[str, Tensor], None], image: int
    ) -> None:
        """Run the model on one image as far as the last layer; ``look`` is told the input of each."""
        waiting = set(layers)

        def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def told(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                look(name, inputs[0])
                waiting.discard(name)
                if not waiting:
                    raise _Enough

            return told

        handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
        try:
            self.forward(image)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if waiting:
            raise ValueError(f"calibration: the model never calls {sorted(waiting)[0]}; narrow `targets` or `blocks`")


@dataclass
class _Sum:
    """Running sums of tokens on the device of the model; on the CPU where that knows no float64."""

    moment: Tensor
    mean: Tensor
    tokens: int = 0

    @classmethod
    def zeros(cls, module: nn.Linear) -> _Sum:
        width, device = module.in_features, module.weight.device
        if device.type == "mps":
            device = torch.device("cpu")
        zeros = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(zeros.outer(zeros), zeros)

    def add(self, x: Tensor) -> None:
        """One more image's tokens (..., in)."""
        tokens = x.detach().reshape(-1, x.shape[-1]).to(self.moment.device).double()
        self.moment.addmm_(tokens.T, tokens)
        self.mean += tokens.sum(0)
        self.tokens += len(tokens)

    def means(self) -> tuple[Array, Array]:
        """E[x x^T] and E[x] over the tokens of all processes."""
        count = sum_over_processes(torch.tensor(float(self.tokens), dtype=torch.float64, device=self.moment.device))
        moment, mean = ((sum_over_processes(part) / count).cpu().numpy() for part in (self.moment, self.mean))
        return moment, mean


class _Key:
    """Names of stored sums: a hash of all that they depend on."""

    def __init__(self, digest: str, model: nn.Module) -> None:
        content = hashlib.sha256(f"calibration v{VERSION} {digest}".encode())
        for name, tensor in model.state_dict().items():
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self.content = content.hexdigest()

    def of(self, what: str, layer: str) -> str:
        """The name of one layer's sums."""
        return hashlib.sha256(f"{self.content} {what} {layer}".encode()).hexdigest()


def _parts(
    model: nn.Module, sources: Mapping[str, str], memory: int, *, moments: bool, gradients: bool
) -> Iterator[list[str]]:
    """Layers in order, cut where their sums would pass ``memory`` bytes; layers of one input stay together."""
    part: list[str] = []
    held = 0
    for name, source in sources.items():
        height, width = _linear(model, name).weight.shape
        new = moments and source not in {sources[other] for other in part}
        size = 8 * (new * width * width + gradients * width * height)
        if part and held + size > memory and (new or not moments):
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _same(x: Tensor, y: Tensor) -> bool:
    """Whether two inputs are the same numbers in the same place."""
    return x is y or (
        x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride() and x.dtype == y.dtype
    )


def _square(triangle: Array) -> Array:
    """The symmetric matrix (n, n) of a packed lower triangle."""
    n = int((2 * len(triangle)) ** 0.5)
    matrix = np.empty((n, n))
    rows, columns = np.tril_indices(n)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


def _joined(shared: Statistics | None, gradient: Array | None) -> Statistics:
    if gradient is None:
        assert shared is not None
        return shared
    return Statistics(None, None, gradient) if shared is None else Statistics(shared.moment, shared.mean, gradient)
