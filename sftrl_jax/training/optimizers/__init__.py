"""Optimizers and schedules by config."""
