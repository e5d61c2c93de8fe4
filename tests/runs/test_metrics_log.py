"""What is read of a file of points, whatever has become of it."""

from pathlib import Path

from recyclelora.runs.metrics_log import MetricsLog, read_points


def test_damaged_lines_are_left_out_and_dropped_on_resume(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        log.append(step, {"loss_ce": float(step)})
    first, second, third, fourth = log.path.read_bytes().splitlines(keepends=True)
    bad = [b"1\n", b"[1]\n", b'{"step": "x", "time": 1}\n', b"\xff" + second, b'{"step": 2}\n']
    log.path.write_bytes(b"".join([first, *bad, third, fourth[:-9]]))
    assert [point["step"] for point in read_points(log.path)] == [1, 3]
    log.rewind(2)
    assert log.path.read_bytes() == first
