"""A released checkpoint becomes a run directory; also ``python -m recyclelora.import_checkpoint``."""

from __future__ import annotations

from recyclelora.config.commands import ImportConfig
from recyclelora.system.stopping import ctrl_c_in_one_line


def import_checkpoint(config: ImportConfig, trial: int | None = None) -> None:
    """Write a run directory that ``evaluate.py``, ``predict.py`` and ``recyclelora.load`` read; it has no result.json.

    Raises:
        UserError: the file is no checkpoint of this kind; lists every tensor that has no place, and what is missing.
    """
    from recyclelora.exchange.importing.conversion import convert
    from recyclelora.exchange.importing.writing import write_run
    from recyclelora.system.progress import Reporter

    reporter = Reporter()
    converted = convert(config)
    for remark in converted.remarks:
        reporter.note(remark)
    run_dir = write_run(converted)
    protocol, data = converted.config.data.protocol, converted.config.data
    reporter.note(f"run directory: {run_dir}")
    reporter.note(f"python evaluate.py run={run_dir} data={data.name} data/protocol={protocol.name}")


def main() -> None:
    """``python import_checkpoint.py checkpoint=<file.pth> kind=rein|soma|recyclelora``."""
    with ctrl_c_in_one_line("import_checkpoint"):
        from recyclelora.commands.launch import launch

        launch("import_checkpoint", import_checkpoint)


if __name__ == "__main__":
    main()
