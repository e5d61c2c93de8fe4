"""What a way of adapting a backbone has to offer, whatever its mathematics.

A method freezes the backbone, changes it in place and says how its parameters learn. Everything it adds lives in the
model as modules, so that names, state and devices need no further code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from recyclelora.adapters.calibration.statistics import Calibration
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.linalg.factorize import Progress
from recyclelora.adapters.state import ParameterRule


@dataclass(frozen=True)
class AdapterContext:
    """What a method is given besides the model.

    Attributes:
        seed: of every random draw.
        max_steps: training steps, for methods with a schedule of their own.
        cache: keeps decompositions between runs.
        initial: the initial tensors of the run that is resumed, by name; nothing is computed then.
        progress: called with (layers done, layers in all, layer).
        has_queries: whether the decoder has queries that an adapter can speak to.
        autocast: whether forwards run under autocast, in bfloat16 or float16.
        calibration: images that tell of the inputs and gradients of layers; None where there are none to look at.
    """

    seed: int = 0
    max_steps: int = 1
    cache: FactorCache | None = None
    initial: Mapping[str, Tensor] | None = None
    progress: Progress | None = None
    has_queries: bool = False
    autocast: bool = False
    calibration: Calibration | None = None


Setting = AdapterContext
"""Its name in the first release, which packages of other people import."""


class TrainingState(Protocol):
    """What a method must remember from step to step besides the model, such as running averages."""

    def state_dict(self) -> dict[str, Tensor]:
        """All of it, by name."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes:
        rules: how every trainable parameter of the model learns, by its name in the model.
        query: queries (num_queries, width) lent to a decoder that has queries.
        penalty: a loss of the method's own, asked for once a step after the forward.
        after_step: called with the number of finished steps when the optimizer has stepped, gradients still there.
        training_state: kept in checkpoints, never in adapter files: it means nothing once training is over.
        query_features: whether the decoder also makes its queries' first features from ``query``, by a linear layer of
            its own that trains, instead of starting from a table.
        constrain: imposes on other values of the model's tensors, by name and in place, what the method promises of its
            own weights and a running mean of them would not keep, such as zeros.

    Callables should be bound methods of modules in the model, so that a deep copy of the model brings its own.
    """

    rules: Mapping[str, ParameterRule] = field(default_factory=dict)
    query: Callable[[], Tensor] | None = None
    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[int], None] | None = None
    training_state: TrainingState | None = None
    query_features: bool = False
    constrain: Callable[[Mapping[str, Tensor]], None] | None = None


class Method(Protocol):
    """One way of adapting a vision transformer whose blocks are in ``model.blocks``.

    It may have ``check(model)`` as well, which raises what `apply` would for names and shapes alone: ``model`` is then
    on the meta device, and nothing has been downloaded or decomposed yet.
    """

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """Freeze ``model`` and adapt it in place.

        Raises:
            ValueError: naming the layer, pattern or value at fault; the model is then unchanged.
        """
