"""Reports made from workdirs alone: this room imports no other room and never imports jax."""
