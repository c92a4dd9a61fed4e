"""What the runs of the paper share: their tasks and methods (task.py), and the models of each choice (models.py)."""
