"""Vision foundation models: their pretrained weights, and their features at four depths."""
