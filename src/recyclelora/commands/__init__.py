"""One file a command, each with its door ``main``; ``launch`` brings them from Hydra to one clear line."""
