"""Objectives of RL that imitate: targets at the states that the policy reached, and no rewards."""
