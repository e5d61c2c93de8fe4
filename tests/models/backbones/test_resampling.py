import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.layers.patch_embed import resample_patch_embed

from recyclelora.models.backbones.resampling import (
    resize_patch_kernel,
    resize_position_grid,
    resize_position_tokens,
    resize_relative_positions,
)


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel, as torch uses it for bicubic interpolation without antialias."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def cubic_matrix(old: int, new: int) -> torch.Tensor:
    """(new, old) matrix of one axis: half-pixel centres, borders repeated."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        first = int(torch.floor(torch.tensor(centre)))
        for tap in range(first - 1, first + 3):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(centre - tap)
    return matrix


def by_hand(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    rows, columns = cubic_matrix(image.shape[-2], size[0]), cubic_matrix(image.shape[-1], size[1])
    return (rows @ image.double() @ columns.T).float()


@pytest.mark.parametrize("resampling", ["bicubic", "timm"])
def test_equal_sizes_return_the_same_tensor(resampling):
    kernel, grid, tokens, bias = (
        torch.randn(4, 3, 14, 14),
        torch.randn(1, 5, 7, 4),
        torch.randn(1, 26, 4),
        torch.ones(9, 2),
    )
    assert resize_patch_kernel(kernel, (14, 14), resampling) is kernel
    assert resize_position_grid(grid, (5, 7), resampling) is grid
    assert torch.equal(resize_position_tokens(tokens, (5, 5), 1, resampling), tokens)
    assert resize_relative_positions(bias, 9) is bias


def test_kernel_is_plain_bicubic():
    kernel = torch.randn(5, 3, 14, 14)
    resized = resize_patch_kernel(kernel, (16, 16))
    assert torch.equal(resized, F.interpolate(kernel, (16, 16), mode="bicubic", align_corners=False))
    torch.testing.assert_close(resized, by_hand(kernel, (16, 16)), rtol=1e-4, atol=1e-5)


def test_constant_kernel_keeps_its_height():
    torch.testing.assert_close(
        resize_patch_kernel(torch.full((2, 3, 14, 14), 0.25), (16, 16)), torch.full((2, 3, 16, 16), 0.25)
    )


def test_half_precision_is_resampled_in_float32():
    kernel = torch.randn(2, 3, 14, 14).bfloat16()
    assert torch.equal(resize_patch_kernel(kernel, (16, 16)), resize_patch_kernel(kernel.float(), (16, 16)))


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
def test_prefix_entries_survive_and_the_grid_is_plain_bicubic(num_prefix):
    tokens = torch.randn(1, num_prefix + 37 * 37, 6)
    resized = resize_position_tokens(tokens, (32, 16), num_prefix)
    assert torch.equal(resized[:, :num_prefix], tokens[:, :num_prefix])
    grid = tokens[:, num_prefix:].reshape(37, 37, 6).permute(2, 0, 1)
    expected = by_hand(grid, (32, 16)).permute(1, 2, 0).reshape(1, 512, 6)
    torch.testing.assert_close(resized[:, num_prefix:], expected, rtol=1e-4, atol=1e-5)


def test_timm_way_is_timms_own():
    kernel, tokens = torch.randn(2, 3, 14, 14), torch.randn(1, 1 + 81, 4)
    assert torch.equal(resize_patch_kernel(kernel, (16, 16), "timm"), resample_patch_embed(kernel, [16, 16]))
    resized = resize_position_tokens(tokens, (6, 4), 1, "timm")
    torch.testing.assert_close(resized, resample_abs_pos_embed(tokens, new_size=[6, 4], num_prefix_tokens=1))
    assert not torch.allclose(resized, resize_position_tokens(tokens, (6, 4), 1))


def test_tokens_without_a_square_grid_are_refused():
    with pytest.raises(ValueError, match="12 patches is no square grid"):
        resize_position_tokens(torch.zeros(1, 13, 4), (2, 2), 1)


def test_relative_positions_are_linear_along_the_axis():
    ramp = torch.arange(7.0)[:, None].expand(7, 3)
    assert resize_relative_positions(ramp, 3).shape == (3, 3)
    centres = (torch.arange(3) + 0.5) * 7 / 3 - 0.5
    torch.testing.assert_close(resize_relative_positions(ramp, 3), centres[:, None].expand(3, 3))
