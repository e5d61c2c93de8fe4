"""Mask2Former (Cheng et al., 2022), the decoder of the published recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from transformers import Mask2FormerConfig

from recyclelora.models.decoders import pixel_decoder, query_decoder
from recyclelora.models.decoders.mask_decoder import MaskDecoder
from recyclelora.models.decoders.mask_loss import MaskLoss
from recyclelora.models.decoders.pixel_decoder import PixelDecoder
from recyclelora.models.decoders.pyramid import Kind, build_pyramid
from recyclelora.models.decoders.query_decoder import QueryDecoder

# RecycleLoRA's configuration switches the weight decay off by name: of these two, but of neither the first features of
# the queries nor the pixel decoder's level embedding, which mmdetection calls query_feat and level_encoding.
UNDECAYED = ("transformer.queries_embedder.weight", "transformer.level_embed.weight")
QUERY_FEATURES = "transformer.queries_features.weight"


class Mask2Former(MaskDecoder):
    """Pixel decoder, transformer decoder and the two heads; as published with the defaults.

    Args:
        channels: of the four levels
        num_classes: C
        width: of everything between the features and the masks; a multiple of 32
        num_queries: Q
        num_heads: of every attention
        encoder_layers: deformable layers of the pixel decoder
        encoder_width: hidden width of their feed-forward networks
        decoder_layers: layers of the transformer decoder; one output more than these is supervised
        decoder_width: hidden width of their feed-forward networks
        pyramid: how the four levels get their sizes
        own_queries: whether the queries' position embedding is learnt here; otherwise every call must bring ``query``
        own_features: whether the queries' first features are a table; otherwise a layer makes them from ``query``
        decay_query_feat: whether the table of the queries' first features decays, as in RecycleLoRA's configuration; in
            SoMA's it does not
        loss: compares predictions with labels
    """

    has_queries: ClassVar[bool] = True
    class_layer: ClassVar[str] = "class_predictor"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        width: int = 256,
        num_queries: int = 100,
        num_heads: int = 8,
        encoder_layers: int = 6,
        encoder_width: int = 1024,
        decoder_layers: int = 9,
        decoder_width: int = 2048,
        pyramid: Kind = "bilinear",
        own_queries: bool = True,
        own_features: bool = True,
        decay_query_feat: bool = True,
        loss: MaskLoss | None = None,
    ) -> None:
        super().__init__(loss or MaskLoss(), num_classes, num_queries)
        self.exempt = UNDECAYED if decay_query_feat else (*UNDECAYED, QUERY_FEATURES)
        config = Mask2FormerConfig(
            feature_size=width, mask_feature_size=width, hidden_dim=width, num_queries=num_queries,
            num_attention_heads=num_heads, encoder_layers=encoder_layers, encoder_feedforward_dim=encoder_width,
            decoder_layers=decoder_layers + 1, dim_feedforward=decoder_width,
        )  # fmt: skip
        self.pixel_decoder = PixelDecoder(config, channels, build_pyramid(pyramid, channels))
        self.transformer = QueryDecoder(config, own_queries, own_features)
        self.class_predictor = nn.Linear(width, num_classes + 1)
        pixel_decoder.initialise(self.pixel_decoder)
        query_decoder.initialise(self.transformer)

    def predict(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`MaskDecoder`; masks have stride 4."""
        pixels, levels, positions = self.pixel_decoder(features)
        states, masks = self.transformer(pixels, levels, positions, query)
        return [self.class_predictor(state) for state in states], masks

    def undecayed(self) -> set[str]:
        """Norms, and the embeddings whose decay the published recipe switches off."""
        own = {name for name, _ in self.named_parameters()}
        return super().undecayed() | own.intersection(self.exempt)
