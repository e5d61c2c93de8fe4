"""Everything a report consists of, written to one folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.table import Table as RichTable

from recyclelora.config.commands import ReportConfig
from recyclelora.reports import numbers, race_section, tables
from recyclelora.reports.arranging import AS_IT_IS, Arrangement
from recyclelora.reports.charts import draw
from recyclelora.reports.comparison import Comparison, Difference, compare
from recyclelora.reports.groups import MEAN
from recyclelora.reports.page import command_line, state_counts, write_page
from recyclelora.reports.records import Study, read_runs, read_sweep
from recyclelora.reports.table import Table
from recyclelora.runs.directory import CONFIG, FIGURES, is_run, outputs_of
from recyclelora.sweep.record import is_sweep
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import as_typed_here, next_steps, typed_as, with_run
from recyclelora.system.progress import Reporter, shown
from recyclelora.system.storage import make_folder, write_text


def write_report(config: ReportConfig, reporter: Reporter) -> Path:
    """Read, compare and write; returns the folder."""
    study = read_sweep(Path(config.sweep)) if config.sweep is not None else read_runs(run_paths(config.runs))
    c = compare(study, config.selection, config.reference, config.resamples)
    folder = Path(config.output) if config.output else _folder(study)
    make_folder(folder, "; give output=<folder>")
    scores, differences = main = main_tables(c)
    arrangement = Arrangement.of(config, scores, differences)
    labelled = arrangement.named(c)
    charts = draw(arrangement.ordered(labelled), folder / FIGURES)
    write_text(folder / "table.md", markdown(c, main, config.max_rows, arrangement))
    write_text(folder / "table.tex", latex(main, config.max_rows, arrangement))
    write_text(folder / "table.csv", numbers.groups_csv(c))
    write_text(folder / "runs.csv", numbers.runs_csv(c))
    write_text(folder / "report.html", write_page(labelled, charts, config.resamples))
    _tell(c, scores, folder, reporter)
    return folder


def run_paths(runs: str | list[str]) -> list[Path]:
    """Run directories out of paths and patterns.

    Raises:
        UserError: naming what is no run directory.
    """
    found: list[Path] = []
    for text in [runs] if isinstance(runs, str) else runs:
        pattern = Path(text)
        hits = (
            [pattern]
            if pattern.exists()
            else sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        )
        good = [path for path in hits if is_run(path)]
        if not good:
            instead = f"; it is a sweep's: sweep={text}" if is_sweep(pattern) else ""
            raise UserError(f"runs={text}: no run directory (a folder with {CONFIG}) is there{instead}")
        found += good
    return list(dict.fromkeys(found))


def main_tables(c: Comparison) -> tuple[Table, Table]:
    """Scores, and differences to the reference."""
    return tables.scores(c, c.groups), race_section.difference_table(c)


def markdown(c: Comparison, main: tuple[Table, Table], most: int, arrangement: Arrangement = AS_IT_IS) -> str:
    """``table.md``: what was compared, and the tables, which begin with the `main_tables`."""
    scores, differences = main
    named = arrangement.named(c)
    lines = [f"# {c.study.name}", "", *(["**Tuned on targets.**", ""] if c.tuned_on_targets else [])]
    lines += [f"Trials: {_counts(c)}. {named.winner}", *(f"Note: {remark}." for remark in c.remarks), ""]
    lines += [f"Groups: {named.points}.", ""] if named.points else []
    parts = [scores, *([differences, tables.target_differences(c)] if c.differences else [])]
    parts += [tables.worst(c), tables.selections(c), tables.figures(c), tables.figure_differences(c)]
    parts = arrangement.arranged(parts)
    if c.search:
        parts.append(tables.scores(c, c.search, f"{c.study.kind}, not ranked: mIoU in %"))
    return "\n".join(lines) + "\n" + "\n".join(table.markdown(most) for table in parts if table.rows)


def latex(main: tuple[Table, Table], most: int, arrangement: Arrangement = AS_IT_IS) -> str:
    """``table.tex``: the `main_tables`; needs the package booktabs."""
    parts = (table.latex(most) for table in arrangement.arranged(main) if table.rows)
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def _counts(c: Comparison) -> str:
    return ", ".join(f"{count} {state}" for state, count in state_counts(c).items())


def _folder(study: Study) -> Path:
    """``<sweep>/report``, or ``outputs/reports/<number>_runs-<hash>`` in the outputs that hold the first run."""
    if study.is_sweep:
        return study.folder / "report"
    paths = [run.path.resolve() for run in study.runs]
    outputs = outputs_of(paths[0]) or Path("outputs")
    digest = hashlib.sha256("\n".join(sorted(map(str, paths))).encode()).hexdigest()[:8]
    return outputs / "reports" / f"{len(paths)}_runs-{digest}"


def _difference(d: Difference | None) -> str:
    """Of the mean of targets in points of mIoU, with the verdict."""
    if d is None:
        return "reference"
    return f"{100 * d.scores[MEAN].mean:+z.2f} {d.verdict}" if MEAN in d.scores else d.verdict


def _tell(c: Comparison, scores: Table, folder: Path, reporter: Reporter) -> None:
    """A short table on the terminal, and where everything is."""
    table = RichTable(title=f"{c.study.name}, mIoU in % ({c.basis})", title_justify="left", caption_justify="left")
    table.add_column("group", overflow="fold")
    shown_scores = ("targets", "source") if not c.alone else (c.title(MEAN),)
    for heading in ("seeds", *shown_scores, "difference"):
        table.add_column(heading, justify="right")
    for group, row in list(zip(c.groups, scores.rows, strict=True))[:10]:
        table.add_row(*(cell.text for cell in row[: 2 + len(shown_scores)]), _difference(c.difference(group)))
    if len(c.groups) > 10:
        table.caption = f"the first 10 of {len(c.groups)} groups"
    if c.groups:
        reporter.table(table)
    reporter.note(f"trials: {_counts(c)}")
    reporter.note(c.winner)
    for remark in c.remarks:
        reporter.warn(remark)
    resume = command_line(c)
    unfinished = any(trial.state not in ("complete", "pruned", "paused") for trial in c.study.trials)
    reporter.note(
        f"written: {shown(folder.resolve() / 'report.html')}, table.md, table.csv, runs.csv, table.tex, figures/"
    )
    steps = [("go on with the sweep", resume)] if resume and unfinished else []
    steps += _with_the_first(c)
    if steps:
        reporter.note(next_steps(*steps))


def _with_the_first(c: Comparison) -> list[tuple[str, str]]:
    """What may be done with a run of the first group, and with it and one of the second."""
    if not c.groups:
        return []
    first, *others = (group.runs[0] for group in c.groups[:2])
    fit = first.result.get("protocol_settings", {}).get("fit", {}).get("folder")
    steps = with_run(first.run.path, "predict", "export", size=None if fit is None else fit[0])
    command = first.run.command or ""
    alone = command.startswith("train.py ") and not command.startswith("train.py -m ")  # no sweep, which has its values
    if not others and alone and " adapter=" not in command:
        steps.append(("have something to compare", f"{as_typed_here(command)} adapter=frozen"))
    if others:
        beside = f"run=[{shown(first.run.path)},{shown(others[0].run.path)}]"
        steps.append(("see what changed", typed_as("analyze", beside)))
    return steps
