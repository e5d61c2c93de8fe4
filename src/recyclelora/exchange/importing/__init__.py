"""Released checkpoints of other projects: which of their tensors is which of ours, one table for each kind."""
