"""What is shown is what was asked for, also where it looks like markup."""

from rich.table import Table

from recyclelora.sweep.table import SweepTable
from recyclelora.system.progress import Reporter


def test_brackets_are_text(tmp_path, capsys):
    table = Table("what", title="[red]")
    for text in ("adapter.targets=[attn.qkv]", "[enforce fail at alloc.cpp:1]", "closing [/data/a]"):
        table.add_row(text)
    SweepTable("mine", tuned=False).console.print(table)
    Reporter(tmp_path / "log").table(table)
    for shown in (capsys.readouterr().out, (tmp_path / "log").read_text()):
        for text in ("[red]", "=[attn.qkv]", "[enforce fail", "[/data/a]"):
            assert text in shown
