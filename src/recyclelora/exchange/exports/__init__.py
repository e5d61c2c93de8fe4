"""A run's model in forms that need nothing of this project: one file for each format."""
