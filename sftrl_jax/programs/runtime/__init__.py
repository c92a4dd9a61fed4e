"""The process around a run: signals, locks, hanging steps, the environment that JAX reads."""
