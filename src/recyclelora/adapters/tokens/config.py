"""Options of the methods that refine the features between blocks by learned tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from recyclelora.adapters.layers import BlocksConfig
from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, one_of

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.adapters.method import Method

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045

FORMS = ("published", "released")


@dataclass
class ReinConfig(BlocksConfig):
    """Rein: tokens that refine the features between blocks."""

    kind: str = "rein"
    name: str = "rein"
    num_tokens: int = checked(100, at_least, 2)
    """tokens of a refined block; the first takes part in the softmax but adds nothing"""
    token_rank: int = checked(16, at_least, 1)
    """inner size of the product that makes the tokens"""
    scale: float = checked(0.001, above_zero)
    """where the scale of the refinement starts"""
    link: Optional[bool] = None
    """lend the decoder queries; null: where it has any"""
    query_width: int = checked(256, at_least, 1)
    """channels of these queries"""
    weight_decay: Optional[float] = None
    """of the linear layers; null takes the optimizer's. Tokens and scale do not decay"""
    link_features: Optional[bool] = added(False)
    """make the queries' first features from the tokens too, as published; null: where queries are lent; false, as in
    runs of the first release, leaves the decoder a table of its own"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        if self.link_features and self.link is False:
            yield "link_features", "must be null or false with link=false: there are no lent queries then"

    def check_with(self, decoder: Any, max_steps: int) -> Iterator[Problem]:
        if not getattr(decoder, "has_queries", False):
            if self.link:
                yield "link", f"needs a decoder with queries, which {decoder.name} has not: decoder=mask2former"
            elif self.link_features:
                yield "link_features", f"needs lent queries, for which {decoder.name} has no place"
            return
        lent, wanted = (self.num_tokens, self.query_width), (decoder.num_queries, decoder.width)
        if self.link is not False and lent != wanted:
            yield (
                "num_tokens" if lent[0] != wanted[0] else "query_width",
                f"lends {lent[0]} queries of width {lent[1]}; decoder={decoder.name} has {wanted[0]} of {wanted[1]}",
            )

    def method(self) -> Method:
        from recyclelora.adapters.tokens.rein import Rein

        return Rein(self)


@dataclass
class SpectralConfig(ReinConfig):
    """What SET and Causal-Tune share."""

    form: str = checked("published", one_of, FORMS)
    """``published``, or ``released``, what the public code does instead: an output depends on the other images of its
    batch"""


@dataclass
class SetConfig(SpectralConfig):
    """SET: one set of tokens refines the phase of the features' spectrum, another its amplitude."""

    kind: str = "set"
    name: str = "set"

    def method(self) -> Method:
        from recyclelora.adapters.tokens.spectral import SET

        return SET(self)


@dataclass
class CausalTuneConfig(SpectralConfig):
    """Causal-Tune: tokens refine the middle frequencies of the features."""

    kind: str = "causal_tune"
    name: str = "causal_tune"

    def method(self) -> Method:
        from recyclelora.adapters.tokens.spectral import CausalTune

        return CausalTune(self)
