"""The networks of a run: its own model and tokenizer, and a reward model."""
