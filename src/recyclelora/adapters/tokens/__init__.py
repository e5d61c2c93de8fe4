"""Methods that refine the features between the blocks by learned tokens: Rein and its spectral descendants."""
