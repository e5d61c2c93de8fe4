"""The directory of a run: who it is, what it wrote, how it ended, and what its sweep wants of it."""
