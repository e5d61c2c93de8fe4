"""The low-rank family: one layer with named branches, its initial factors, and how it gets into a model."""
