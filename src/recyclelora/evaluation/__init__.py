"""Scoring a segmenter under a test protocol: evaluator, counts, metrics and scores."""
