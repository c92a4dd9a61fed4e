"""Losses and advantages: functions of arrays, independent of the model that computed the log-probabilities."""
