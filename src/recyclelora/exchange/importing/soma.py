"""SoMA's checkpoints (github.com/ysj9909/SoMA, named SoRA at first; read for their names only).

Confirmed in its public code: all names below (q, k and v are layers of their own, the factors bias-free linear layers,
the transformer lies in ``backbone.model``); that biases of adapted layers train; that its tool for releases keeps the
factors, every bias of the backbone, ``mask_token`` and the head, and expects the frozen weights from the converted
DINOv2 file. Where training kept an average (EMA), mmengine puts it into ``state_dict`` and the trained values into
``ema_state_dict``; the published scores are those of the average.
"""

from __future__ import annotations

from recyclelora.exchange.importing.keys import Kind

LAYERS = {
    "attn.q": "attn.qkv.q",
    "attn.k": "attn.qkv.k",
    "attn.v": "attn.qkv.v",
    "attn.proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
FACTORS = {"lora_A.weight": "main.lora_a", "lora_B.weight": "main.lora_b"}
ADAPTER = {
    f"blocks.*.{layer}.{factor}": f"blocks.*.{our_layer}.{our_factor}"
    for layer, our_layer in LAYERS.items()
    for factor, our_factor in FACTORS.items()
}

KIND = Kind("soma", "backbone.model.", ADAPTER)
