"""Episodes: a policy in conversation with an environment."""
