from __future__ import annotations

import numpy as np
import pytest
import torch

from recyclelora.system.devices import check_launched_processes, copied, fetched, only_deterministic, sent, set_numerics
from recyclelora.system.errors import UserError


def test_torchrun_must_start_as_many_processes_as_were_asked_for(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launched_processes(devices=2, num_nodes=2)
    with pytest.raises(UserError, match=r"torchrun started 4 processes, but .* asks for 2"):
        check_launched_processes(devices=2, num_nodes=1)


def test_without_torchrun_nothing_is_compared(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launched_processes(devices=1, num_nodes=1)


@pytest.fixture
def numerics(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    set_numerics()


def test_float32_is_float32_unless_tf32_is_asked_for(numerics):
    set_numerics()
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert not torch.are_deterministic_algorithms_enabled()
    set_numerics(deterministic=True, tf32=True)
    assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic


def test_an_operation_without_a_deterministic_kernel_ends_the_run_with_one_line(numerics):
    set_numerics(deterministic=True)
    with (
        pytest.raises(UserError, match=r"deterministic=true: put_ .* use another decoder") as refused,
        only_deterministic(),
    ):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))
    assert "\n" not in str(refused.value)
    with pytest.raises(RuntimeError, match="another"), only_deterministic():
        raise RuntimeError("another error")


def test_on_a_cpu_copies_are_what_they_were():
    cpu, image = torch.device("cpu"), np.arange(12, dtype=np.uint8).reshape(3, 4)
    ((first, second),) = copied([(torch.ones(2), torch.zeros(3))], cpu)
    assert torch.equal(first, torch.ones(2)) and torch.equal(second, torch.zeros(3))
    assert np.array_equal(fetched(sent(image, cpu))(), image)


@pytest.mark.gpu
def test_on_a_gpu_copies_are_the_same():
    device, image = torch.device("cuda", 0), np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    batches = [(torch.full((256, 256), i).pin_memory(), torch.tensor([i]).pin_memory()) for i in range(20)]
    sums = [int(a.sum() + b.sum()) for a, b in copied(batches, device)]
    assert sums == [i * 256 * 256 + i for i in range(20)]
    assert np.array_equal(fetched(sent(image, device) + 0)(), image)
