"""Formulas: what a batch of arrays is worth, whichever model gave the log-probabilities."""
