from __future__ import annotations

import pytest
import torch
from torch import nn

from recyclelora.models.decoders.config import LinearDecoderConfig
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.models.decoders.pixel_loss import cross_entropy
from recyclelora.models.segmenter import Segmenter, windows


class Patches(nn.Module):
    """Means of 4 x 4 patches as features of four levels."""

    patch_size = 4

    def forward(self, images):
        assert images.shape[-1] % 4 == images.shape[-2] % 4 == 0
        return [nn.functional.avg_pool2d(images, 4)] * 4


class Identity(DenseDecoder):
    """Logits = the last level, blown up."""

    def forward(self, features, size, query=None):
        return nn.functional.interpolate(features[-1], size=size)


def segmenter(decoder=None, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3):
    return Segmenter(Patches(), decoder or Identity(), mean=mean, std=std, ignore_index=255).eval()


def test_windows_cover_the_image_and_the_last_ones_move_inside():
    boxes = list(windows((1024, 2048), 512, 341))
    assert [b[0].start for b in boxes[:: len(boxes) // 3]] == [0, 341, 512]
    assert [b[1].start for b in boxes[:6]] == [0, 341, 682, 1023, 1364, 1536]
    assert len(boxes) == 18
    assert list(windows((100, 200), 512, 341)) == [(slice(0, 100), slice(0, 200))]


def test_overlapping_windows_are_averaged():
    """A decoder that answers with the window's own mean: overlaps must get the mean of the windows' answers."""

    class Mean(nn.Module):
        def forward(self, features, size, query=None):
            return features[-1].mean((2, 3), keepdim=True).expand(-1, -1, *size)

    images = torch.zeros(1, 3, 8, 12)
    images[..., 8:] = 6.0
    out = segmenter(Mean()).sliding_logits(images, window=8, stride=4)
    assert out[0, 0, 0].tolist() == pytest.approx([0.0] * 4 + [1.5] * 4 + [3.0] * 4, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sliding_does_not_depend_on_how_windows_are_batched(batch_size):
    torch.manual_seed(0)
    model = segmenter(LinearDecoderConfig().build([3] * 4, 5))
    images = 255 * torch.rand(2, 3, 30, 41)
    whole = model.sliding_logits(images, 16, 10, batch_size=4)
    torch.testing.assert_close(model.sliding_logits(images, 16, 10, batch_size=batch_size), whole)


def test_any_image_size_is_padded_and_cut_back():
    assert segmenter()(torch.zeros(1, 3, 9, 13)).shape == (1, 3, 9, 13)


def test_normalisation_is_in_units_of_the_mean_and_std():
    model = segmenter(mean=(0.5, 0.0, 0.0), std=(0.25, 1.0, 1.0))
    logits = model(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    assert logits[0, :, 0, 0].tolist() == pytest.approx([2.0, 1.0, 1.0])


def test_linear_decoder_parameter_count_and_shape():
    decoder = LinearDecoderConfig().build([384] * 4, 19)
    assert sum(p.numel() for p in decoder.parameters()) == 4 * 384 * 19 + 19 + 4 * 2 * 384
    features = [torch.randn(2, 384, 4, 8) for _ in range(4)]
    assert decoder(features, (64, 128)).shape == (2, 19, 64, 128)


def test_linear_decoder_ignores_the_scale_of_a_level():
    decoder = LinearDecoderConfig().build([6] * 4, 3)
    features = [torch.randn(1, 6, 2, 2) for _ in range(4)]
    torch.testing.assert_close(
        decoder(features, (4, 4)), decoder([1000 * f for f in features], (4, 4)), atol=1e-4, rtol=0
    )


def test_loss_counts_labelled_pixels_only_and_survives_none():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 4))
    labels[0] = 255
    expected = nn.functional.cross_entropy(logits[1:], labels[1:])
    torch.testing.assert_close(cross_entropy(logits, labels, 255), expected)
    empty = cross_entropy(logits, torch.full_like(labels, 255), 255)
    empty.backward()
    assert empty.item() == 0 and logits.grad.abs().max() == 0


def test_training_returns_losses_evaluation_logits():
    model = segmenter()
    images, labels = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert set(model(images, labels)) == {"loss_ce"}
    assert model(images).shape == (1, 3, 8, 8)


def test_pixels_outside_the_image_are_exactly_zero_behind_the_normalisation_and_unlabelled():
    """As a batch that was normalised, then padded with 0.0: ImageNet's means are no whole grey levels."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, 12, 12), dtype=torch.uint8)
    labels[0, 8:], labels[0, :, 4:] = 254, 254
    seen = {}

    class Watched(Patches):
        def forward(self, images):
            seen["images"] = images
            return super().forward(images)

    class Labels(Identity):
        def losses(self, features, labels, *rest):
            seen["labels"] = labels
            return super().losses(features, labels, *rest)

    Segmenter(Watched(), Labels(), mean=mean, std=std, ignore_index=255, padding_index=254)(images, labels)
    shape = (1, 3, 1, 1)
    expected = (images.float() - 255 * torch.tensor(mean).view(shape)) / (255 * torch.tensor(std).view(shape))
    expected[0, :, 8:], expected[0, :, :, 4:] = 0.0, 0.0
    torch.testing.assert_close(seen["images"], expected, atol=0, rtol=0)
    torch.testing.assert_close(seen["labels"], torch.where(labels == 254, 255, labels))
