"""Everything that is measured on the weights of a run: one function for each table, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from recyclelora.adapters.analysis import (
    Product,
    column_norms,
    cosines,
    effective_rank,
    mean_abs_cosine,
    norm,
    rounding_of,
    singular_values,
)
from recyclelora.adapters.calibration.statistics import Statistics
from recyclelora.adapters.changes import ALL, INIT, TRAINED, UPDATE, ChangedLayer, Factored
from recyclelora.adapters.changes import changed_layers as changed_layers  # which go into `measure`
from recyclelora.adapters.subspaces import (
    energy_along,
    grassmann_similarity,
    orthonormal_basis,
    principal_angles,
    random_similarity,
    singular_vectors,
)
from recyclelora.reports.analysis.tables import Row, Tables

CURVE_STEPS = 10
"""Cumulative shares are taken at every tenth of the singular directions."""

SIDES = {"b": "columns of B", "a": "rows of A"}


@dataclass(frozen=True)
class CosineMaps:
    """Cosines between the columns of B and between the rows of A of all branches of a layer, and their ranks."""

    b: Tensor
    a: Tensor
    ranks: dict[str, int]


@dataclass
class Measured:
    """What was found on the weights of one run.

    Attributes:
        tables: by file name.
        cosines: layer -> maps, of the blocks that were asked for.
        spaces: layer -> side (``b``, ``a``) -> orthonormal basis of all branches after training.
    """

    tables: Tables = field(default_factory=dict)
    cosines: dict[str, CosineMaps] = field(default_factory=dict)
    spaces: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def add(self, table: str, rows: Iterable[Row]) -> None:
        """Append rows to a table; one without any does not come to be."""
        for row in rows:
            self.tables.setdefault(table, []).append(row)


def measure(
    layers: Iterable[ChangedLayer],
    *,
    map_blocks: Iterable[int] = (),
    subspaces: bool = True,
    progress: Callable[[int], None] = lambda count: None,
) -> Measured:
    """Measure layers one after the other.

    Args:
        layers: see `layers.changed_layers`.
        map_blocks: blocks whose cosine maps are kept.
        subspaces: decompose W0 to see in which of its directions the update lies (the slow part).
        progress: called with 1 after each layer.
    """
    found = Measured()
    kept = set(map_blocks)
    for layer in layers:
        found.add("rank", rank_rows(layer))
        found.add("spectra", spectrum_rows(layer))
        found.add("size", size_rows(layer))
        if subspaces:
            found.add("shares", share_rows(layer))
        if layer.branches:
            found.add("similarity", similarity_rows(layer))
            found.add("angles", angle_rows(layer))
            found.add("column_norms", norm_rows(layer))
            maps = cosine_maps(layer)
            found.add("cosines", cosine_rows(layer, maps))
            if layer.block in kept:
                found.cosines[layer.name] = maps
            found.spaces[layer.name] = {side: _space([*layer.branches.values()], side, TRAINED) for side in SIDES}
        progress(1)
    return found


def rank_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Effective rank, the greatest possible rank, and their ratio, for every branch and stage.

    Undefined where a matrix is numerically zero: lost in the rounding of its own factors, or of W0 when it is added.
    """
    for branch, stages in layer.stages().items():
        for stage, matrix in stages.items():
            scale = layer.scale if isinstance(matrix, Product) else 1.0
            zero = max(rounding_of(matrix), layer.rounding / scale)
            effective = effective_rank(singular_values(matrix), zero)
            bound = matrix.rank if isinstance(matrix, Product) else min(matrix.shape)
            yield _row(layer, branch, stage, "effective_rank", effective)
            yield _row(layer, branch, stage, "rank", bound)
            yield _row(layer, branch, stage, "rank_efficiency", effective / bound)


def spectrum_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Singular values of s B0 A0, s B A and of what was added to W0."""
    stages = layer.stages()[ALL]
    scaled = {stage: stages[stage] * layer.scale for stage in (INIT, TRAINED) if stage in stages}
    for stage, matrix in (scaled | {UPDATE: layer.update}).items():
        for index, value in enumerate(singular_values(matrix).tolist()):
            yield _row(layer, ALL, stage, "singular_value", value, index)


def size_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Frobenius norm of the update, and relative to W0's."""
    size = norm(layer.update)
    yield _row(layer, ALL, UPDATE, "norm", size)
    yield _row(layer, ALL, UPDATE, "relative_norm", size / float(torch.linalg.vector_norm(layer.weight)))


def share_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Energy of the update in major and minor singular subspaces of W0, and a random matrix's expectation.

    ``top`` and ``bottom``: the first and the last k = rank singular vectors. ``cumulative``: the first 0 %, 10 %, ...,
    100 % of them. ``left`` are W0's output, ``right`` its input directions.
    """
    if not norm(layer.update) > layer.rounding:
        return
    u, v = singular_vectors(layer.weight)
    yield from _shares_along(layer, "left", u)
    yield from _shares_along(layer, "right", v, rows=True)


def data_share_rows(layer: ChangedLayer, data: Statistics) -> Iterator[Row]:
    """The same in the eigenvectors of C = E[x x^T], which are input directions (``moments``), and in the singular
    vectors of the mean gradient at W0, its output and input directions (``gradient_left``, ``gradient_right``)."""
    if not norm(layer.update) > layer.rounding:
        return
    device = layer.weight.device
    if data.moment is not None:
        _, vectors = data.spectrum
        yield from _shares_along(layer, "moments", torch.from_numpy(vectors).flip(1).to(device), rows=True)
    if data.gradient is not None:
        u, v = singular_vectors(torch.from_numpy(data.gradient).to(device))
        yield from _shares_along(layer, "gradient_left", u)
        yield from _shares_along(layer, "gradient_right", v, rows=True)


def _shares_along(layer: ChangedLayer, name: str, basis: Tensor, *, rows: bool = False) -> Iterator[Row]:
    """Shares of the update's energy along a basis (out, count), largest first; with ``rows`` (in, count)."""
    count, smaller = basis.shape[1], min(layer.weight.shape)
    rank = min(count, sum(b.trained.left.shape[1] for b in layer.branches.values()) or smaller // CURVE_STEPS)
    energy, chance = energy_along(layer.update, basis, rows=rows), 1 / len(basis)
    yield _row(layer, ALL, UPDATE, f"{name}_top_share", float(energy[:rank].sum()))
    yield _row(layer, ALL, UPDATE, f"{name}_bottom_share", float(energy[count - rank :].sum()))
    yield _row(layer, ALL, UPDATE, f"{name}_random_share", rank * chance)
    for step in range(CURVE_STEPS + 1):
        first = round(count * step / CURVE_STEPS)
        yield _row(layer, ALL, UPDATE, f"{name}_cumulative_share", float(energy[:first].sum()), step)
        yield _row(layer, ALL, UPDATE, f"{name}_cumulative_random", first * chance, step)


def similarity_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Grassmann similarity of every two branches, at the start and now, and of each branch with its own start."""
    for side in SIDES:
        for (first, x), (second, y) in combinations(layer.branches.items(), 2):
            for stage in (INIT, TRAINED):
                p, q = _space([x], side, stage), _space([y], side, stage)
                pair = f"{first}-{second}"
                yield _row(layer, pair, stage, f"grassmann_{side}", grassmann_similarity(p, q))
                yield _row(layer, pair, stage, f"grassmann_{side}_random", random_similarity(p, q))
        for name, branch in layer.branches.items():
            start, now = _space([branch], side, INIT), _space([branch], side, TRAINED)
            yield _row(layer, name, TRAINED, f"grassmann_{side}_to_start", grassmann_similarity(start, now))


def angle_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Principal angles of every two branches in degrees, smallest first."""
    for side in SIDES:
        for (first, x), (second, y) in combinations(layer.branches.items(), 2):
            for stage in (INIT, TRAINED):
                angles = principal_angles(_space([x], side, stage), _space([y], side, stage)).rad2deg()
                for index, value in enumerate(angles.tolist()):
                    yield _row(layer, f"{first}-{second}", stage, f"angle_{side}", value, index)


def norm_rows(layer: ChangedLayer) -> Iterator[Row]:
    """Mean column norm of A and of A - A0 at the positions of A0's ones and elsewhere, and the ratio of the two."""
    for name, branch in layer.branches.items():
        if branch.positions is None:
            continue
        step = branch.trained.right - branch.initial.right
        for stage, a in ((TRAINED, branch.trained.right), (UPDATE, step)):
            inside, outside = column_norms(a, branch.positions)
            yield _row(layer, name, stage, "column_norm_initialised", inside)
            yield _row(layer, name, stage, "column_norm_elsewhere", outside)
            yield _row(layer, name, stage, "column_norm_ratio", inside / outside if outside else math.nan)


def cosine_maps(layer: ChangedLayer) -> CosineMaps:
    """Cosines of all branches' trained vectors, branch after branch."""
    branches = layer.branches.values()
    b = torch.cat([branch.trained.left.T for branch in branches])
    a = torch.cat([branch.trained.right for branch in branches])
    ranks = {name: branch.trained.left.shape[1] for name, branch in layer.branches.items()}
    return CosineMaps(cosines(b), cosines(a), ranks)


def cosine_rows(layer: ChangedLayer, maps: CosineMaps) -> Iterator[Row]:
    """Mean size of the cosines within each branch and between every two."""
    ends = torch.tensor([0, *maps.ranks.values()]).cumsum(0).tolist()
    parts = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(maps.ranks)}
    pairs = [(name, name) for name in parts] + list(combinations(parts, 2))
    for side, table in (("b", maps.b), ("a", maps.a)):
        for first, second in pairs:
            value = mean_abs_cosine(table, parts[first], parts[second])
            branch = first if first == second else f"{first}-{second}"
            yield _row(layer, branch, TRAINED, f"mean_abs_cosine_{side}", value)


def _space(branches: list[Factored], side: str, stage: str) -> Tensor:
    """Orthonormal basis of the columns of B or the rows of A of branches taken together."""
    products = [branch.initial if stage == INIT else branch.trained for branch in branches]
    vectors = [product.left if side == "b" else product.right.T for product in products]
    return orthonormal_basis(torch.cat(vectors, dim=1))


def _row(layer: ChangedLayer, branch: str, stage: str, quantity: str, value: float, index: int | None = None) -> Row:
    return Row(layer.name, layer.block, layer.type, branch, stage, quantity, value, index)
