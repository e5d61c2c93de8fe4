"""Figure 11: hostile files and configurations; none may execute anything, and no secret may be written.

    python benchmarks/reliability/hostile.py

Every case carries code that would create a file, the canary. It is given to the reader or the command that a user
would give it to; counted are refusals in one clear line, and canaries that sing. The same files go to the usual way of
reading them. A second canary, a secret in the environment and in addresses, is looked for in every byte that a run
leaves.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from harness import TINY, command, composed, run_directory, spawn, train, workspace
from safetensors.torch import save

from recyclelora.commands.launch import launched
from recyclelora.commands.train import train as train_command
from recyclelora.config.build import user_errors
from recyclelora.config.compose import load_config, to_yaml
from recyclelora.data.decode_cache import DecodeCache
from recyclelora.data.rare_classes import ClassCounts
from recyclelora.models.backbones.weights import WeightsFile, read_weights
from recyclelora.runs.checkpoint import load_checkpoint
from recyclelora.runs.weights import read_run_weights
from recyclelora.system.storage import sha256

SECRET = "canary-7f3a91c2"
SECONDS = 20.0
"""Longest time that a refusal may take."""


class _Bomb:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


Case = tuple[Callable[[], object], Callable[[], object] | None]
"""What a user would do with the file, and the usual way of reading it."""


# --- files ---------------------------------------------------------------------------------------------------------


def _weights(path: Path) -> object:
    with user_errors():  # as commands do
        return read_weights(WeightsFile(path, "", "checkpoint"))


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _zipped(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _with_header(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


def _file_cases(folder: Path, canary: Path) -> dict[str, Case]:
    """Pickles and broken safetensors wherever a file is read."""
    bomb, looped = _Bomb(canary), {}
    looped["model"] = looped
    run = folder / "run"
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    headers = {
        "longer than the file": _with_header(b"{}", 2**62),
        "negative offsets": _with_header(json.dumps({"a": header["a"] | {"data_offsets": [-16, 0]}}).encode()),
        "overlapping tensors": _with_header(json.dumps(header | {"b": header["a"]}).encode()),
        "more elements than bytes": _with_header(json.dumps({"a": header["a"] | {"shape": [2**40, 2**40]}}).encode()),
        "no JSON": _with_header(b"{" * 5000),
        "deep JSON": _with_header(b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}"),
    }
    cases: dict[str, Case] = {}
    for suffix in (".pth", ".pt", ".bin", ".safetensors", ".onnx"):
        for kind, content in {"pickle": pickle.dumps(bomb), "torch.save": _zipped({"state_dict": bomb})}.items():
            path = _written(folder / f"{kind}{suffix}", content)
            cases[f"{kind} as weights {suffix}"] = (lambda p=path: _weights(p)), (lambda p=path: _torch_load(p))
    path = _written(folder / "looped.pth", _zipped(looped))
    cases["a pickled dict that holds itself"] = (lambda p=path: _weights(p)), None
    for name, content in headers.items():
        path = _written(folder / f"{name}.safetensors", content)
        cases[f"safetensors: {name}"] = (lambda p=path: _weights(p)), None
    for name, content in {"pickle": pickle.dumps(bomb), **headers}.items():
        step = folder / f"checkpoint {name}" / "step_000001"
        _written(step / "trained.safetensors", content)
        _written(step / "state.json", b'{"step": 1}')
        _manifest(step)
        cases[f"checkpoint of ours with {name}"] = (lambda s=step: load_checkpoint(s)), None
    for name, content in {"a list": b"[]", "a number": b"3", "deep": b"[" * 100000}.items():
        step = folder / f"state {name}" / "step_000001"
        _written(step / "trained.safetensors", save({"a": torch.zeros(1)}))
        _written(step / "state.json", content)
        _manifest(step)
        cases[f"checkpoint whose state is {name}"] = (lambda s=step: load_checkpoint(s)), None
        _written(folder / f"manifest {name}" / "manifest.json", content)
        cases[f"checkpoint whose manifest is {name}"] = (lambda f=folder / f"manifest {name}": load_checkpoint(f)), None
    outside = _written(folder / "outside/step_000009/manifest.json", b"{}").parent
    _written(folder / "escape/manifest.json", json.dumps({"../outside/secret": "0" * 64}, indent=2).encode() + b"\n")
    cases["a manifest that names a file elsewhere"] = (lambda: load_checkpoint(folder / "escape")), None
    _written(run / "checkpoints/last", f"../../{outside.relative_to(folder)}\n".encode())
    cases["a pointer that leads elsewhere"] = (lambda: read_run_weights(run)), None
    _written(run / "checkpoints/best_source", b".\n")
    cases["a pointer to the folder itself"] = (lambda: read_run_weights(run, "best_source")), None
    (run / "adapter.safetensors").symlink_to(_written(folder / "linked.pkl", pickle.dumps(bomb)))
    cases["a linked pickle as an adapter"] = (lambda: read_run_weights(run)), None
    return cases


def _manifest(step: Path) -> None:
    digests = {path.name: sha256(path) for path in sorted(step.iterdir())}
    (step / "manifest.json").write_text(json.dumps(digests, indent=2) + "\n")


def _torch_load(path: Path) -> object:
    return torch.load(path, weights_only=False)


def _cache_cases(folder: Path, canary: Path) -> dict[str, Callable[[], object]]:
    """Pickles where a cache is read: nothing is found there."""
    from corruptions import _Three

    content = pickle.dumps(_Bomb(canary))
    _written(folder / "decoded/key.raw", content)
    counts = ClassCounts(folder / "counts")
    _written(counts.path(counts.name(_Three(), 5)), content)
    return {
        "a pickle in the decode cache": lambda: DecodeCache(folder / "decoded", 10**6).load("key"),
        "a pickle in the class counts": lambda: counts.known(_Three(), 5),
    }


def _config_cases(folder: Path, canary: Path) -> dict[str, Case]:
    """A run's config.yaml."""
    whole = to_yaml(composed(folder))
    bombed = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    texts = {
        "!!python/object/apply": f"backbone: !!python/object/apply:os.system ['touch {canary}']\n",
        "!!python/object/new": f"seed: !!python/object/new:os.system ['touch {canary}']\n",
        "!!python/name": "seed: !!python/name:os.system\n",
        "an alias bomb": bombed,
        "deep nesting": "[" * 20000,
        "_target_ beside known keys": whole + f"_target_: os.system\ncommand: touch {canary}\n",
        "_target_ in the adapter": whole.replace("adapter:\n", "adapter:\n  _target_: os.system\n"),
        "an interpolation of the environment": whole.replace("objective: source_val", "objective: ${oc.env:HOME}"),
        "another kind of adapter": whole.replace("kind: low_rank", "kind: os.system"),
        "a name with ..": whole.replace("name: recyclelora", "name: ../../escaped"),
        "bytes": "\x00\x01\x02",
        "a list": "- 1\n- 2\n",
        "nothing": "",
        "broken YAML": "a: [1,\nb: {",
    }
    cases: dict[str, Case] = {}
    for name, text in texts.items():
        path = _written(folder / f"config {name.replace('/', ' ')}" / "config.yaml", text.encode())
        unsafe = (lambda t=text: yaml.unsafe_load(t)) if "!!" in text else None
        cases[f"config.yaml: {name}"] = (lambda p=path: load_config(p)), unsafe
    return cases


# --- commands -------------------------------------------------------------------------------------------------------

TARGETS = {
    "os.system": "command: 'touch {canary}'", "subprocess.run": "args: [touch, '{canary}']",
    "subprocess.Popen": "args: [touch, '{canary}']", "builtins.open": "file: '{canary}', mode: w",
    "builtins.eval": "source: 'open(\"{canary}\", \"w\")'", "builtins.exec": "source: 'open(\"{canary}\", \"w\")'",
    "torch.load": "f: '{pickle}', weights_only: false", "numpy.load": "file: '{pickle}', allow_pickle: true",
    "pickle.load": "file: '{pickle}'", "shutil.copyfile": "src: /etc/hostname, dst: '{canary}'",
    "pathlib.Path.touch": "self: '{canary}'", "os.mkdir": "path: '{canary}'", "shutil.rmtree": "path: '{folder}/gone'",
    "importlib.import_module": "name: this", "recyclelora.system.storage.write_text": "path: '{canary}', text: x",
}  # fmt: skip


def _command_cases(folder: Path, canary: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> arguments of train.py and the target that the usual `instantiate` is given."""
    pickled = _written(folder / "arguments.npy", pickle.dumps(_Bomb(canary)))
    values = {target: text.format(canary=canary, pickle=pickled, folder=folder) for target, text in TARGETS.items()}
    cases = {}
    for target, text in values.items():
        cases[f"_target_={target} as a callback"] = ([f"+hydra.callbacks.x={{_target_: {target}, {text}}}"], target)
        cases[f"_target_={target} in the adapter"] = ([f"+adapter._target_={target}"], target)
    evil = folder / "conf"
    copied = f"{{_target_: shutil.copyfile, src: /etc/hostname, dst: {canary}}}"
    made = f"{{class: logging.FileHandler, (): os.system, command: touch {canary}}}"
    for name, text in {
        "evil": f"# @package _global_\nhydra:\n  callbacks:\n    x: {copied}\n",
        "log": f"# @package hydra.hydra_logging\nhandlers:\n  x: {made}\n",
        "tag": f"x: !!python/object/apply:os.system ['touch {canary}']\n",
    }.items():
        _written(evil / f"experiment/{name}.yaml", text.encode())
    several = {
        "a callback in a folder of option files": [f"--config-dir={evil}", "experiment=evil"],
        "a logging factory in a folder of option files": [f"--config-dir={evil}", "experiment=log"],
        "a python tag in an option file": [f"--config-dir={evil}", "experiment=tag"],
        "another launcher class": ["-m", "hydra.launcher._target_=subprocess.Popen"],
        "another sweeper class": ["-m", "hydra.sweeper._target_=subprocess.Popen"],
        "a study elsewhere": ["-m", "study=../../escaped"],
        "an absolute study": ["-m", f"study={canary}"],
        "an adapter's name elsewhere": ["adapter.name=../../../escaped"],
        "a backbone's name elsewhere": ["backbone.name=/tmp/escaped"],
        "a pair's name elsewhere": ["data.name=.."],
        "a target's name elsewhere": ["data.targets=[{dataset: streets, split: night, name: ..}]"],
        "own images outside their folder": [
            "data=folder", f"data.folder.root={folder}", "data.folder.splits.train.images=../*/*.png",
        ],
        "a backbone that is a pickle": [f"backbone.checkpoint={_written(folder / 'b.pth', _zipped(_Bomb(canary)))}",
                                        "backbone.pretrained=true"],
        "a model name that is a path": ["backbone.model=../../etc/passwd"],
        "a model from the hub": ["backbone.model=hf-hub:evil/model"],
        "a local model folder": ["backbone.model=local-dir:/tmp"],
        "a constructor argument with code": ["+backbone.model_args.act_layer=os.system"],
        "a start that is no run": [f"init_from={folder}"],
    }  # fmt: skip
    return cases | {name: (arguments, "") for name, arguments in several.items()}


def _train(folder: Path, arguments: list[str]) -> None:
    places = [f"output_dir={folder / 'outputs'}", f"cache={folder / 'cache'}", f"data.root={folder / 'data'}"]
    given = {argument.split("=")[0] for argument in arguments}
    fitting = [
        t for t in TINY if t.split("=")[0] not in given and not (t.startswith("data.") and "data=folder" in given)
    ]
    sys.argv = ["train.py", *fitting, "trainer.max_steps=1", *places, *arguments]
    with launched("train", train_command) as job:
        job()


# --- the figure -----------------------------------------------------------------------------------------------------


def measure(seed: int, count: int) -> dict[str, Any]:
    """Give every ``count``-th case to the reader it is meant for; 1 for all."""
    with workspace() as folder:
        canary = folder / "canary"
        files = _file_cases(folder / "files", canary) | _config_cases(folder / "configs", canary)
        commands = _command_cases(folder / "commands", canary)
        found = {"cases": 0, "refused": 0, "executed": 0, "longest_s": 0.0}
        wrong: dict[str, str] = {}
        for name, (read, _) in list(files.items())[::count]:
            _judge(name, read, folder, canary, found, wrong)
        for name, (arguments, _) in list(commands.items())[::count]:
            _judge(name, lambda a=arguments: _train(folder / "place", a), folder, canary, found, wrong)
        for read in _cache_cases(folder / "caches", canary).values():
            found["cases"] += 1
            found["refused"] += read() is None and not canary.exists()
        escaped = [p for p in (folder, folder.parent, Path("/tmp")) if (p / "escaped").exists()]
        stock = _stock(files, canary)
        leaks = _leaks(folder / "secrets")
    return {**found, "escaped": len(escaped), "what": wrong, "stock": stock, "secrets": leaks}


def _judge(
    name: str, read: Callable[[], object], folder: Path, canary: Path, found: dict[str, Any], wrong: dict[str, str]
) -> None:
    """A refusal is one clear line and exit code 2; anything else is wrong."""
    child = spawn(folder / "log.txt", read)
    began = time.monotonic()
    code = child.wait(60)
    found["longest_s"] = max(found["longest_s"], round(time.monotonic() - began, 1))
    found["cases"] += 1
    said = child.text()
    if canary.exists():
        found["executed"] += 1
        wrong[name] = "executed"
        canary.unlink() if canary.is_file() else canary.rmdir()
    elif code != 2 or "Traceback" in said:
        wrong[name] = f"exit code {code}: {(said.strip() or 'silent').splitlines()[-1][:200]}"
    else:
        found["refused"] += 1
    if name in wrong:
        print(f"{name}: {wrong[name]}", flush=True)
    child.log.unlink()


def _stock(files: dict[str, Case], canary: Path) -> dict[str, dict[str, int]]:
    """The same files under torch.load with pickles, and yaml.unsafe_load."""
    found = {
        "torch.load(weights_only=False)": {"files": 0, "executed": 0},
        "yaml.unsafe_load": {"files": 0, "executed": 0},
    }
    for name, (_, usual) in files.items():
        if usual is None:
            continue
        mine = found["yaml.unsafe_load" if name.startswith("config") else "torch.load(weights_only=False)"]
        mine["files"] += 1
        child = spawn(canary.with_name("stock.log"), usual)
        child.wait(30)
        if canary.exists():
            mine["executed"] += 1
            canary.unlink()
    return found


def _leaks(folder: Path) -> dict[str, Any]:
    """Search all that a run leaves for a secret that was in its environment, its arguments and its addresses."""
    child = spawn(folder / "run.log", _secretive, folder)
    assert child.wait() == 0, child.text()
    files = [path for path in folder.rglob("*") if path.is_file()]
    holding = [str(path.relative_to(folder)) for path in files if SECRET.encode() in path.read_bytes()]
    assert run_directory(folder) / "run.json" in files
    return {"files_searched": len(files), "files_with_the_secret": len(holding), "what": holding}


def _secretive(folder: Path) -> None:
    os.environ |= {
        "RECYCLELORA_TOKEN": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET, "HF_TOKEN": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET, "MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9/",
    }  # fmt: skip
    sys.argv = ["train.py", f"tracking.uri=http://me:{SECRET}@127.0.0.1:9/", f"storage=postgresql://me:{SECRET}@db/x"]
    config = composed(folder, "trainer.max_steps=1", "trainer.eval_every=1", "tracking=mlflow")
    train(config)


if __name__ == "__main__":
    command(measure, "hostile", 1)
