"""What XLA does slowly on CPUs, in forms that it does fast."""
