"""Where the scalars of a run go besides its own metrics.jsonl and evals.jsonl."""
