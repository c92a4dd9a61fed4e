"""`python -m sftrl_jax VERB ...` is the same as `sftrl VERB ...`."""

import os
import sys
import threading
import time

from sftrl_jax.programs.runtime import interrupt

LINGERS = 3.0   # seconds that threads of libraries may keep the process of a failed command alive


def run() -> int:
  """Runs the command of this process and returns its exit code."""
  interrupt.install()   # before anything that takes long to import
  from sftrl_jax.main import main
  code = main()
  if interrupt.received:
    os._exit(code)   # the exception may have left libraries half imported
  if code:
    threading.Thread(target=_end, args=(code,), daemon=True).start()
  return code


def _end(code: int) -> None:
  time.sleep(LINGERS)
  sys.stdout.flush()
  os._exit(code)


if __name__ == "__main__":
  sys.exit(run())
