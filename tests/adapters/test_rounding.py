from __future__ import annotations

import numpy as np
import pytest
import torch

from recyclelora.adapters.rounding import stored_eps

RANDOM = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_the_format_is_known_by_all_values_not_by_the_first(kind: torch.dtype):
    stored = RANDOM.to(kind).float()
    assert stored_eps(stored) == stored_eps(stored.numpy()) == torch.finfo(kind).eps
    stored[-1, -1] = 1 + torch.finfo(torch.float32).eps
    assert stored_eps(stored) == torch.finfo(torch.float32).eps


def test_values_of_no_other_format_are_float64():
    assert stored_eps(RANDOM.double().numpy() + np.pi) == torch.finfo(torch.float64).eps
    assert stored_eps(np.zeros((0, 3))) == torch.finfo(torch.bfloat16).eps
