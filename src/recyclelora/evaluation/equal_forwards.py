"""Forwards of a model that processes share: each gathers every block from all of them, so all must make as many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from recyclelora.models.segmenter import Segmenter
from recyclelora.system.distributed import sum_over_processes


class EqualForwards:
    """Within :meth:`together`, processes may make different numbers of forwards.

    Each forward announces itself; who is done first goes on with forwards of an empty image until all are.

    Args:
        segmenter: whose ``logits`` are replaced by those that announce themselves.
        size: (H, W) of the empty image.
        device: of the model.
        autocast: gives the precision's context.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        size: tuple[int, int],
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._segmenter, self._logits, self._autocast = segmenter, segmenter.logits, autocast
        self._empty = torch.zeros(1, 3, *size, device=device)
        self._inside = False
        segmenter.logits = self._announced  # type: ignore[method-assign]

    @contextmanager
    def together(self) -> Iterator[None]:
        """All processes must come here, and leave, even one that makes no forward at all."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
        was_training = self._segmenter.training
        self._segmenter.eval()
        while self._goes_on(False):
            with torch.inference_mode(), self._autocast():
                self._logits(self._empty)
        self._segmenter.train(was_training)

    def _announced(self, images: Tensor) -> Tensor:
        if self._inside:
            self._goes_on(True)
        return self._logits(images)

    def _goes_on(self, here: bool) -> bool:
        """Whether any process makes one more forward."""
        return bool(sum_over_processes(torch.tensor(float(here), device=self._empty.device)) > 0)
