"""What every training run does, whatever its kind."""
