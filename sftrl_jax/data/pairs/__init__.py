"""Pairs of responses, of which one is preferred: rows of a file, and packed batches."""
