"""A training run from its identity to its result: trainer, loop, optimizer, schedule."""
