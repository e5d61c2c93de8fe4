"""``recyclelora.testing``: checks for authors of adapters, decoders and losses."""

from recyclelora.config.testing import check_adapter as check_adapter
from recyclelora.config.testing import check_decoder as check_decoder
from recyclelora.config.testing import check_loss as check_loss
from recyclelora.config.testing import tiny_vit as tiny_vit
