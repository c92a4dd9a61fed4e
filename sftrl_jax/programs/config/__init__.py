"""From a config file and a command line to one resolved config, without JAX."""
