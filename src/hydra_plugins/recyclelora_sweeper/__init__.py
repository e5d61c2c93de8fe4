"""Hydra's door to the sweep: option classes and a thin sweeper; the machinery is ``recyclelora.sweep``.

Hydra imports these files at every start, so nothing heavy is imported at their top.
"""
