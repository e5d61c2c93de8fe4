from __future__ import annotations

import numpy as np
import pytest

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.system.errors import UserError


def counted(matrices: np.ndarray) -> ImageCounts:
    counts = ImageCounts(matrices.shape[-1])
    for matrix in matrices:
        counts.add(matrix)
    return counts


@pytest.fixture
def matrices() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.integers(0, 2_000_000, (5, 19, 19)) * (rng.random((5, 19, 19)) < 0.2)
    found[3] = 0  # an image without any labelled pixel
    return found


def test_matrices_come_back_from_the_file_and_from_json(tmp_path, matrices):
    counts = counted(matrices)
    counts.save(tmp_path / "evaluations" / "day.safetensors")
    for found in (ImageCounts.load(tmp_path / "evaluations/day.safetensors"), counts.from_json(counts.to_json(), 19)):
        assert len(found) == 5 and found.num_classes == 19
        np.testing.assert_array_equal(found.dense(), matrices)
        np.testing.assert_array_equal(found.dense(1, 3), matrices[1:3])
        np.testing.assert_array_equal(found.total(), matrices.sum(0))


def test_the_file_holds_what_is_not_zero_only(tmp_path, matrices):
    counted(matrices).save(tmp_path / "day")
    assert (tmp_path / "day").stat().st_size < 6 * np.count_nonzero(matrices) + 600
    ImageCounts(19).save(tmp_path / "none")
    assert len(ImageCounts.load(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    "change", [lambda data: data[:-9], lambda data: b"", lambda data: data.replace(b"cells", b"cellz")]
)
def test_a_damaged_file_is_one_clear_line(tmp_path, matrices, change):
    path = tmp_path / "day"
    counted(matrices).save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match="day: not the confusion matrices of single images"):
        ImageCounts.load(path)


def test_cells_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="number of classes"):
        ImageCounts.from_json([[[9], [1]]], 3)
