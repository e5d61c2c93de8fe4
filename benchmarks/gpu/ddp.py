"""Two processes on one GPU: do they learn what one process would, and how fast are they?

Each takes half of a batch through DistributedDataParallel (gloo: NCCL refuses two processes on one device); their
gradients are compared with those of the whole batch on one process, in float32. The decoder is linear: a matching
draws random points, of which two processes draw others than one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Figures, device, options
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from train_step import SIZES, batch, build

from recyclelora.models.decoders.config import LinearDecoderConfig
from recyclelora.models.segmenter import Segmenter


def model(dry: bool, where: str) -> tuple[Segmenter, Any]:
    """The same model and batch in every process."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    name, size, _ = SIZES["tiny" if dry else "full"]
    backbone = build(name, size, where, published=False).backbone
    decoder = LinearDecoderConfig().build([backbone.embed_dim] * 4, 19)
    segmenter = Segmenter(backbone, decoder, mean=(0.5,) * 3, std=(0.2,) * 3, ignore_index=255)
    images, labels = batch(size, 4, where)
    labels[0, : size[0] // 2] = 255  # the halves have unequally many labelled pixels
    return segmenter.to(where).train(), (images, labels)


def gradients(segmenter: Segmenter) -> dict[str, torch.Tensor]:
    """Of all that trains."""
    return {name: p.grad.double().cpu() for name, p in segmenter.named_parameters() if p.grad is not None}


def one_of_two(dry: bool, folder: Path) -> None:
    """What each of two processes does."""
    dist.init_process_group("gloo")
    rank, where = dist.get_rank(), device(dry)
    segmenter, (images, labels) = model(dry, where)
    wrapped = DistributedDataParallel(segmenter)
    half = slice(2 * rank, 2 * rank + 2)

    def step() -> None:
        segmenter.zero_grad()
        torch.stack(list(wrapped(images[half], labels[half]).values())).sum().backward()

    step()
    if rank == 0:
        torch.save(gradients(segmenter), folder / "gradients.pt")
    began = time.perf_counter()
    for _ in range(2 if dry else 10):
        step()
        if not dry:
            torch.cuda.synchronize()
    if rank == 0:
        taken = (time.perf_counter() - began) / (2 if dry else 10)
        (folder / "seconds.json").write_text(json.dumps(taken))
    dist.destroy_process_group()


def main() -> None:
    if "RANK" in os.environ:
        one_of_two("--dry" in sys.argv, Path(sys.argv[-1]))
        return
    given = options(__doc__)
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        command = [sys.executable, __file__, *(["--dry"] if given.dry else []), folder]
        processes = [subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}) for rank in (0, 1)]
        codes = [process.wait() for process in processes]
        if any(codes):
            sys.exit(f"the two processes ended with {codes}")
        two = torch.load(Path(folder) / "gradients.pt", weights_only=True)
        taken = json.loads((Path(folder) / "seconds.json").read_text())
    segmenter, (images, labels) = model(given.dry, device(given.dry))
    torch.stack(list(segmenter(images, labels).values())).sum().backward()
    one = gradients(segmenter)
    worst = max(float((two[name] - one[name]).norm() / one[name].norm().clamp(min=1e-12)) for name in one)
    figures = Figures(given.output)
    figures.add(same_parameters=two.keys() == one.keys(), largest_relative_difference=worst, seconds_per_step=taken)
    if worst > 1e-3 or two.keys() != one.keys():
        sys.exit("two processes learn something else than one")


if __name__ == "__main__":
    main()
