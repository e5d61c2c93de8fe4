"""TensorBoard and Weights & Biases as views of the run directory, for those who live there.

Like the mirror of MLflow, a process of its own reads ``metrics.jsonl`` and ``figures/``: a tracker that is slow or
broken can neither delay nor stop a run. One file for each tracker; both packages are optional.
"""
