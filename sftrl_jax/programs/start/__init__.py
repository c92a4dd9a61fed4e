"""Where a run's parameters come from (config.start), and which of them are trained."""
