"""What supervised training reads."""
