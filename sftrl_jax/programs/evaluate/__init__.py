"""`sftrl evaluate`: variants of an environment, or tasks of lm-eval, by a checkpoint or by a model without a run."""
