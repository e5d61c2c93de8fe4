"""Write docs/reliability.md from the JSON files beside this script.

python benchmarks/reliability/page.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/reliability.md"

Figure = dict[str, Any]
Row = tuple[str, Any, Any]
"""What is counted, here, and with the usual tool under the same harness."""

HEAD = """# Reliability

Every figure on this page was counted by a script in [`benchmarks/reliability`](../benchmarks/reliability) that kills
real processes, fills real disks and damages real files; those that draw at random have a seed, and each writes the JSON
file that the page is made from. `make faults` runs the whole campaign again; `make test` has small samples of it.

What a run promises: after a SIGKILL at any moment the same command goes on from the last complete checkpoint and ends
bit for bit as if nothing had happened; a full or failing disk costs one clear line and no checkpoint; a damaged file is
noticed and the one before is used; nothing that is read can execute anything.
"""


def _kills(f: Figure) -> tuple[str, list[Row]]:
    t, s = f["training"], f["saving"]
    ours, stock = s["recyclelora"], s["torch.save in place"]
    return (
        f"SIGKILL at a random moment of a training run that saves every {f['interval']} steps, then the same run "
        f"again; and of a process that does nothing but save {s['megabytes']} MB.",
        [
            ("training runs killed", t["kills"], None),
            ("checkpoints that cannot be read", t["unreadable"], None),
            ("runs that lost more than one interval", t["lost_beyond_interval"], None),
            ("ends equal to the undisturbed run, bit for bit", f"{t['identical']} of {t['kills']}", None),
            ("savers killed", ours["kills"], f"{stock['kills']} (`torch.save` in place)"),
            ("unreadable afterwards", ours["unreadable"], stock["unreadable"]),
        ],
    )


def _crash_points(f: Figure) -> tuple[str, list[Row]]:
    stock = f["stock"]["torch.save in place"]
    rows: list[Row] = [
        (f"{name}: bad states of faults", f"{p['bad_states']} of {p['faults']}", None)
        for name, p in f["protocols"].items()
    ]
    rows.insert(1, ("`torch.save` in place", None, f"{stock['bad_states']} of {stock['faults']}"))
    rows.append(("together", f"{f['bad_states']} of {f['faults']}", None))
    return (
        "Every write, sync, rename, mkdir and unlink of everything that is written, in turn answered by SIGKILL, a "
        "full disk and an I/O error (`strace -e inject`). A state is bad when neither the old nor the new content is "
        "there, when a failure shows a traceback, or when the same cannot be done again. What may not be lost is "
        "synced before the rename that makes it visible; caches of images and scenes rely on their checksums.",
        rows,
    )


def _resume(f: Figure) -> tuple[str, list[Row]]:
    return (
        f"A run of {f['steps']} steps, gone on with from single steps as if killed there, before the pointers were "
        "written. Weights, optimizer, averaged weights, curves and scores are compared bit for bit.",
        [
            (f"ends equal, with {name}", f"{found['identical']} of {found['resumed']}", None)
            for name, found in f.items()
            if name.endswith("workers")
        ],
    )


def _cold_start(f: Figure) -> tuple[str, list[Row]]:
    stock, ours = f["stock"]["MLflow client on a fresh SQLite store"], f["one_sweep"]
    sweeper = f["stock"]["hydra-optuna-sweeper"]
    return (
        "16 processes at once where nothing is yet: no cache, no outputs, no database. Two pairs of them want the same "
        "run; of each one may be told who holds it. Then 16 commands of one and the same sweep of four trials; beside "
        "it hydra-optuna-sweeper with SQLite.",
        [
            ("processes", f["processes"], stock["processes"]),
            ("failed", f["failed"], f"{stock['failed']} (MLflow client on a fresh SQLite store)"),
            ("told that their twin holds the run", f["lost_to_a_twin"], None),
            ("runs missing in MLflow", f["mlflow_runs_missing"], None),
            ("commands of one sweep", ours["commands"], sweeper["commands"]),
            ("failed, but for those told who drives it", ours["failed"], sweeper["failed"]),
            ("sweeps", ours["sweeps"], sweeper["sweeps"]),
            ("sweeps with exactly 4 trials, none run twice", ours["exactly_4_complete"], sweeper["exactly_4_complete"]),
        ],
    )


def _corruptions(f: Figure) -> tuple[str, list[Row]]:
    c, both = f["checkpoints"], f["both_damaged"]
    rows: list[Row] = [
        ("checkpoints damaged (a byte changed, or cut off)", c["damaged"], None),
        ("noticed, with the file's name", f"{c['detected_by_name']} of {c['damaged']}", None),
        ("the checkpoint before used", f"{c['previous_used']} of {c['damaged']}", None),
        ("both damaged: refused", f"{both['refused']} of {both['damaged']}", None),
    ]
    studies = f["studies"]
    rows.append(("a sweep's study rebuilt from its ledger", f"{studies['rebuilt']} of {studies['damaged']}", None))
    rows += [
        (f"{name}: wrong without a word", f"{p['wrong_without_a_word']} of {p['damaged']}", None)
        for name, p in f["caches"].items()
    ]
    rows += [
        (f"the same weights, {name}: wrong without a word", None, f"{p['wrong_without_a_word']} of {p['damaged']}")
        for name, p in f["stock"].items()
    ]
    return (
        "One byte changed, or the end cut off, in a random file of the newest checkpoint, of every cache, and of a "
        "sweep's study.",
        rows,
    )


def _ranks(f: Figure) -> tuple[str, list[Row]]:
    (default,) = f["stock"].values()
    rows: list[Row] = []
    for fault in ("killed", "stopped"):
        p = f[fault]
        rows.append((f"{fault}: the other hangs", f"{p['hangs']} of {p['times']}", None))
        rows.append((f"{fault}: longest wait, s", p["longest_wait_s"], default if fault == "stopped" else None))
    return (
        f"One of two training processes is killed or stopped; `trainer.stall_timeout={f['timeout_s']}` (default "
        f"{default:g} s, which is also the libraries').",
        rows,
    )


def _refusals(f: Figure) -> tuple[str, list[Row]]:
    k, s, d, h = (f[n] for n in ("keys_and_values", "shapes_and_patterns", "data_defects", "drawn_configurations"))
    return (
        "Mistakes typed as commands, defects in data, and configurations drawn by hypothesis.",
        [
            ("wrong keys and values refused by name", f"{k['refused_by_name']} of {k['cases']}", None),
            ("of these with torch imported", k["with_torch"], None),
            ("longest, s (5 allowed)", k["longest_s"], None),
            ("wrong shapes and patterns refused by name", f"{s['refused_by_name']} of {s['cases']}", None),
            ("longest, s (20 allowed)", s["longest_s"], None),
            ("data defects whose file is named", f"{d['named']} of {d['defects']}", None),
            ("drawn configurations", h["drawn"], None),
            ("raw tracebacks", h["raw"], None),
        ],
    )


def _hostile(f: Figure) -> tuple[str, list[Row]]:
    s = f["secrets"]
    rows: list[Row] = [
        ("hostile files and commands refused", f"{f['refused']} of {f['cases']}", None),
        ("executed", f["executed"], None),
        ("folders made elsewhere", f["escaped"], None),
    ]
    rows += [
        (f"the same files, {name}: executed", None, f"{p['executed']} of {p['files']}")
        for name, p in f["stock"].items()
    ]
    rows.append(("files of a run that hold a secret", f"{s['files_with_the_secret']} of {s['files_searched']}", None))
    return (
        "Pickles as weights, checkpoints and caches, broken safetensors, YAML tags and alias bombs, `_target_` of "
        "os.system and its like, names that lead elsewhere. Each would create a file if it executed.",
        rows,
    )


def _driver_kills(f: Figure) -> tuple[str, list[Row]]:
    ours, stock = f["recyclelora"], f["hydra-optuna-sweeper"]
    keys = {
        "kills": "drivers killed", "sweeps": "sweeps", "exactly_20_complete": "sweeps with exactly 20 complete trials",
        "begun_twice": "trials that were begun more than once", "running": "trials left RUNNING",
    }  # fmt: skip
    pausing, racing = f["pausing"], f["racing"]
    return (
        f"SIGKILL of the driver at random moments of a sweep of {f['trials_per_sweep']} trials with 2 workers, four in "
        "five of them after a trial has begun, and the same command again until it ends by itself. The usual tool is "
        "hydra-optuna-sweeper with joblib and SQLite. "
        "Then of searches whose trials pause, and of races over seeds, neither of which it has.",
        [
            *((words, ours[key], stock[key]) for key, words in keys.items()),
            ("searches that pause: drivers killed", pausing["kills"], None),
            ("searches; with the right best trial", f"{pausing['sweeps']}; {pausing['right_best']}", None),
            (
                "trials; complete; paused",
                "; ".join(str(pausing[key]) for key in ("trials", "complete", "paused")),
                None,
            ),
            ("begun again after they were complete", pausing["begun_after_their_end"], None),
            ("races: drivers killed", racing["kills"], None),
            ("races; with the verdicts of an undisturbed one", f"{racing['sweeps']}; {racing['same_verdicts']}", None),
            ("runs; complete", f"{racing['runs']}; {racing['complete']}", None),
            ("begun again after they were complete", racing["begun_after_their_end"], None),
        ],
    )


def _sabotage(f: Figure) -> tuple[str, list[Row]]:
    ours, stock = f["recyclelora"], f["hydra-optuna-sweeper"]
    return (
        "A grid of 20 trials of which 8 raise, run out of memory, return NaN or None, exit, are killed, or hang. The "
        "usual tool is hydra-optuna-sweeper with joblib and max_failure_rate=1, which had "
        "two minutes.",
        [
            (f"{f['healthy']} healthy trials: as undisturbed", ours["healthy_equal"], stock["healthy_equal"]),
            (f"{f['sabotaged']} sabotaged trials: the right reason", ours["reasons_right"], stock["reasons_right"]),
            ("exit code", ours["exit_code"], stock["exit_code"]),
        ],
    )


SERVERS = {
    "healthy": "healthy server", "flaky": "server that fails at random", "full": "503 for a third of the run",
    "absent": "no server for all of the run",
}  # fmt: skip
CLIENTS = {"mlflow_sync": "synchronous", "mlflow_async": "asynchronous"}


def _tracking(f: Figure) -> tuple[str, list[Row]]:
    rows: list[Row] = []
    for mode, server in SERVERS.items():
        ours, clients = f["results"][mode]["here"], {w: f["results"][mode][name] for name, w in CLIENTS.items()}
        for key, words in (
            ("start_delay_s", "delay at the start, s"),
            ("slowdown_wall_percent", "slower than without, %"),
            ("points_lost", "points lost"),
            ("points_doubled", "points doubled"),
        ):
            stock = ", ".join(f"{_client(found, key)} ({way})" for way, found in clients.items())
            rows.append((f"{server}: {words}", ours[key], stock))
    long = f["results"]["absent_long"]["here"]
    rows.append((f"no server, training of {long['training_s']:.0f} s: slower than without, %",
                 long["slowdown_wall_percent"], None))  # fmt: skip
    return (
        f"A loop of {f['steps']} steps that logs {f['metrics']} metrics a step, medians of {f['repeats']} repeats. "
        "Here the points lie in a file and a process of its own sends them; what is left is sent by `sync` afterwards. "
        "The usual tool is `mlflow.log_metrics` with its defaults; it has no such command. "
        f"A client that was not done after {f['patience_s']} s was given up.",
        rows,
    )


def _client(found: Figure, key: str) -> str:
    """What a client of MLflow's own did; it may have ended the training instead, in every repeat."""
    return str(found[key]) if key in found else "the training ended"


def _soak(f: Figure) -> tuple[str, list[Row]]:
    lives, killed = f["driver lives"], f["driver is killed"]
    both = [(what, sum(sweep[key] for sweep in (lives, killed))) for what, key in (
        ("trials", "trials"), ("healthy", "healthy"), ("healthy with the right value", "healthy_right"),
        ("sabotaged", "sabotaged"), ("sabotaged with the right reason", "reasons_right"), ("attempts", "attempts"),
        ("begun again after they were complete", "begun_after_their_end"),
    )]  # fmt: skip
    faults = ", ".join(f"{number} x {name}" for name, number in f["faults"].items())
    return (
        f"{f['minutes']:g} minutes of two sweeps on a real SLURM of three nodes, with a fault every few seconds: "
        f"{faults}.",
        [
            *((what, number, None) for what, number in both),
            ("jobs and processes left", f["jobs_left"] + f["processes_left"], None),
            ("memory of the driver that lived, MB, after a fifth of the time and at the end",
             " -> ".join(map(str, lives["memory_mb"])), None),
            ("open files of it", " -> ".join(map(str, lives["open_files"])), None),
        ],
    )  # fmt: skip


FIGURES: dict[str, tuple[str, Callable[[Figure], tuple[str, list[Row]]]]] = {
    "training_kills": ("1. Kills of a training run", _kills),
    "crash_points": ("2. Every point at which a write can fail", _crash_points),
    "driver_kills": ("3. Kills of a sweep's driver", _driver_kills),
    "resume": ("4. Going on from every step", _resume),
    "cold_start": ("5. Sixteen starts at once on nothing", _cold_start),
    "tracking": ("6. MLflow failing, or absent for a whole run", _tracking),
    "sabotage": ("7. Sabotaged trials", _sabotage),
    "corruptions": ("8. Damaged files", _corruptions),
    "ranks": ("9. A lost process of several", _ranks),
    "refusals": ("10. Mistakes and broken data", _refusals),
    "hostile": ("11. Hostile files", _hostile),
    "soak": ("12. Half an hour of faults", _soak),
}
"""JSON file -> title and how its rows are made."""


def page() -> str:
    """The text of docs/reliability.md."""
    sections = {}
    for name, (title, rows_of) in FIGURES.items():
        if (figure := _read(name)) is not None:
            words, rows = rows_of(figure)
            sections[title] = _section(title, name, figure, words, rows)
    ordered = sorted(sections.items(), key=lambda item: (float(item[0].split(".")[0]), item[0]))
    return "\n".join([HEAD, *(text for _, text in ordered)])


def _read(name: str) -> Figure | None:
    path = HERE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _section(title: str, name: str, figure: Figure, words: str, rows: list[Row]) -> str:
    usual = any(row[2] is not None for row in rows)
    lines = [f"## {title}", "", words, ""]
    lines += ["| | here | usual tool |", "|---|---:|---:|"] if usual else ["| | |", "|---|---:|"]
    for what, ours, stock in rows:
        cells = [what, "" if ours is None else str(ours), *(["" if stock is None else str(stock)] if usual else [])]
        lines.append("| " + " | ".join(cells) + " |")
    seed = f"seed {figure['seed']}, " if "seed" in figure else ""
    script = SCRIPTS.get(name, name)
    link = f"[`{name}.json`](../benchmarks/reliability/{name}.json)"
    lines += ["", f"`benchmarks/reliability/{script}.py`, {seed}{link}", ""]
    return "\n".join(lines)


SCRIPTS = {"training_kills": "kills"}
"""JSON files whose script has another name."""

if __name__ == "__main__":
    PAGE.write_text(page())
