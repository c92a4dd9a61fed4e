"""`python -m sftrl_jax VERB ...` is the same as `sftrl VERB ...`."""

import sys

from sftrl_jax.main import main

if __name__ == "__main__":
  sys.exit(main())
