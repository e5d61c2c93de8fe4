from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    pair_wise_dice_loss,
    pair_wise_sigmoid_cross_entropy_loss,
)

from recyclelora.models.decoders.matching import assign, matching_cost

WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0}


def test_cost_by_hand():
    """One query, one class, two points: masks of logit 0 against a target of which one point is inside."""
    classes = torch.tensor([[[1.0, 0.0]]]).log()
    cost = matching_cost(classes, torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]), **WEIGHTS)
    bce, dice = torch.log(torch.tensor(2.0)), 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    assert cost.item() == pytest.approx(-2 * 1.0 + 5 * bce + 5 * dice)


def test_cost_is_that_of_transformers():
    torch.manual_seed(0)
    classes, masks = torch.randn(2, 6, 5), 4 * torch.randn(2, 6, 50)
    targets = torch.rand(2, 4, 50)
    for image, cost in enumerate(matching_cost(classes, masks, targets, **WEIGHTS)):
        expected = (
            5 * pair_wise_sigmoid_cross_entropy_loss(masks[image], targets[image])
            + 5 * pair_wise_dice_loss(masks[image], targets[image])
            - 2 * F.softmax(classes[image], -1)[:, :4]
        )
        torch.testing.assert_close(cost, expected, atol=1e-5, rtol=1e-5)


def test_assignment_is_the_cheapest_for_every_output_and_image():
    torch.manual_seed(0)
    costs = torch.randn(3, 2, 5, 4)
    present = torch.tensor([[True, False, True, True], [False, True, False, False]])
    queries = assign(costs, present).queries
    assert queries.shape == (3, 4)
    for output, cost in zip(queries, costs, strict=True):
        columns = cost[0][:, [0, 2, 3]]
        cheapest = min(itertools.permutations(range(5), 3), key=lambda q: columns[list(q), range(3)].sum())
        assert output[:3].tolist() == list(cheapest)
        assert output[3] == cost[1][:, 1].argmin()


def test_no_class_and_broken_costs_are_survived():
    costs = torch.zeros(2, 1, 3, 2)
    assert assign(costs, torch.zeros(1, 2, dtype=torch.bool)).queries.shape == (2, 0)
    costs[0, 0, 1] = torch.nan
    costs[0, 0, 2] = torch.inf
    assert assign(costs, torch.tensor([[True, False]])).queries[0].item() == 0
