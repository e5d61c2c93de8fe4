"""Adapters: RecycleLoRA and its relatives. Knows torch, numpy and scipy, and nothing of the rest of the project."""
