"""Mask2Former (Cheng et al., 2022), the decoder of the published recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from transformers import Mask2FormerConfig

from recyclelora.models.decoders import pixel_decoder, query_decoder
from recyclelora.models.decoders.config import Mask2FormerDecoderConfig
from recyclelora.models.decoders.mask_decoder import MaskDecoder
from recyclelora.models.decoders.mask_loss import MaskLoss
from recyclelora.models.decoders.pixel_decoder import PixelDecoder
from recyclelora.models.decoders.pyramid import build_pyramid
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
        options: its sizes, and how it learns
        own_queries: whether the queries' position embedding is learnt here; otherwise every call must bring ``query``
        own_features: whether the queries' first features are a table; otherwise a layer makes them from ``query``
    """

    class_layer: ClassVar[str] = "class_predictor"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        options: Mask2FormerDecoderConfig,
        *,
        own_queries: bool = True,
        own_features: bool = True,
    ) -> None:
        o = options
        super().__init__(MaskLoss(o.loss), num_classes, o.num_queries)
        self.exempt = UNDECAYED if o.decay_query_feat else (*UNDECAYED, QUERY_FEATURES)
        config = Mask2FormerConfig(
            feature_size=o.width, mask_feature_size=o.width, hidden_dim=o.width, num_queries=o.num_queries,
            num_attention_heads=o.num_heads, encoder_layers=o.encoder_layers, encoder_feedforward_dim=o.encoder_width,
            decoder_layers=o.decoder_layers + 1, dim_feedforward=o.decoder_width,
        )  # fmt: skip
        self.pixel_decoder = PixelDecoder(config, channels, build_pyramid(o.pyramid, channels))
        self.transformer = QueryDecoder(config, own_queries, own_features)
        self.class_predictor = nn.Linear(o.width, num_classes + 1)
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
