"""Floor 4: where a config becomes a run. One file per verb; `settings` reads config files, `setup` builds from them.

This package imports nothing by itself, so that the command line can refuse a wrong word before JAX is loaded.
"""
