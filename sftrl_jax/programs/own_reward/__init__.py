"""A user's own reward function: its two forms, and the process in which it runs."""
