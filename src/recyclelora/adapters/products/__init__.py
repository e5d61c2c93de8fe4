"""Products of two small factors in other forms than LoRA's: KaSA, DeLoRA, HiRA."""
