"""Runs beside each other: who is better by how much, on what evidence, as a page and as tables for a paper."""
