"""RecycleLoRA's checkpoints (github.com/chanseul01/RecycleLoRA, read for its names only).

Confirmed in its public code: all names below; that ``weight`` is the residual W_res while the model trains, which is
when mmengine saves it; that nothing is left out of a saved state, so the residuals are in the file.
Assumed, as no checkpoint is released: that a release keeps all of it. A file with the factors alone is refused, since
its residuals would follow from a pivoted QR whose float32 pivots differ between machines.
"""

from __future__ import annotations

from recyclelora.exchange.importing.keys import Kind

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
FACTORS = {
    "lora_A_main": "main.lora_a",
    "lora_B_main": "main.lora_b",
    "lora_A_sub": "sub.lora_a",
    "lora_B_sub": "sub.lora_b",
}
ADAPTER = {
    f"blocks.*.{layer}.{factor}": f"blocks.*.{layer}.{our_factor}"
    for layer in LAYERS
    for factor, our_factor in FACTORS.items()
}

KIND = Kind("recyclelora", "backbone.", ADAPTER, own_weights=True)
