"""Datasets as they are downloaded, the built-in streets, augmentation and loaders."""
