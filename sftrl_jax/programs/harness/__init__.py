"""Tasks of lm-eval, asked of our decoder in this process: by `evaluate --tasks`, and along a run by evals.tasks."""
