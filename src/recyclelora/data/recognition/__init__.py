"""A look at a folder that nobody has described: which files are images and masks, and what the masks hold."""
