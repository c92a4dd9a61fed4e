"""What learning from pairs does besides the loop over rows: pairs of an environment, the start's scores, accuracy, the
scale of a reward model."""
