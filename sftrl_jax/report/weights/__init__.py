"""What runs have changed in the weights of their starts: weights.json as rows, a table and a figure."""
