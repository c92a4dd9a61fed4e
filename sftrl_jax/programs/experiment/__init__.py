"""From a resolved config to the parts of a run, and a run read back."""
