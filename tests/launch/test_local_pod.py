"""Several processes as the hosts of a pod: variables, lines, exit codes, signals."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "local_pod.sh"


def pod(*words, **variables):
  environment = {name: value for name, value in os.environ.items() if not name.startswith(("SFTRL_", "JAX_"))}
  return subprocess.run([SCRIPT, *map(str, words)], env=environment | variables, capture_output=True, text=True,
                        timeout=30, check=False)


def test_every_copy_knows_its_number_and_where_the_others_are():
  done = pod(3, "sh", "-c", "echo $SFTRL_PROCESS of $SFTRL_PROCESSES at $SFTRL_COORDINATOR; echo e$SFTRL_PROCESS >&2")
  lines = sorted(done.stdout.splitlines())
  port = int(lines[0].rpartition(":")[2])
  assert lines == [f"[{i}] {i} of 3 at 127.0.0.1:{port}" for i in range(3)]
  assert 20000 <= port < 30000
  assert sorted(done.stderr.splitlines()) == ["[0] e0", "[1] e1", "[2] e2"]
  assert done.returncode == 0


def test_pretended_devices():
  show = "echo $JAX_NUM_CPU_DEVICES $JAX_PLATFORMS"
  assert pod(1, "sh", "-c", show, LOCAL_DEVICES="2").stdout == "[0] 2 cpu\n"
  assert pod(1, "sh", "-c", show).stdout == "[0] \n"
  refused = pod(1, "true", LOCAL_DEVICES="two")
  assert refused.returncode == 2 and "LOCAL_DEVICES is 'two'" in refused.stderr


def test_the_code_is_that_of_the_first_which_failed_and_all_are_waited_for(tmp_path):
  # Copy 0 fails last, copy 2 first; copy 1 ends well, and the last line of each has no end.
  # Codes are in the folder that local_pod.sh makes under TMPDIR.
  wait = "until grep -q 7 tmp.*/codes 2>/dev/null; do sleep 0.02; done"
  order = (f"cd {tmp_path}; case $SFTRL_PROCESS in 2) printf a; exit 7 ;; 1) {wait}; printf b; exit 0 ;; "
           f"0) {wait}; sleep 0.1; printf c; exit 3 ;; esac")
  done = pod(3, "sh", "-c", order, TMPDIR=str(tmp_path))
  assert sorted(done.stdout.splitlines()) == ["[0] c", "[1] b", "[2] a"]
  assert done.returncode == 7
  assert not list(tmp_path.glob("tmp.*"))


RUN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("begun", flush=True)
try:
  time.sleep(30)
except KeyboardInterrupt:
  sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_reach_all(number, code):
  child = subprocess.Popen([SCRIPT, "2", sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
  assert {child.stdout.readline(), child.stdout.readline()} == {"[0] begun\n", "[1] begun\n"}
  child.send_signal(number)
  assert child.wait(10) == code
  child.stdout.close()


def test_all_are_begun_again_together_by_the_rule_of_restart(tmp_path):
  command = f'cd {tmp_path}; echo >>lives$SFTRL_PROCESS; [ "$(wc -l <lives$SFTRL_PROCESS)" = 2 ] || exit $CODE'
  again = pod(2, "--restart", "sh", "-c", f"sleep() {{ :; }}; {command}", CODE="137", PATH=fast(tmp_path))
  assert again.returncode == 0 and "exit code 137" in again.stderr
  assert [len((tmp_path / f"lives{i}").read_text()) for i in (0, 1)] == [2, 2]
  assert pod(2, "--restart", "sh", "-c", "exit 1").returncode == 1


def fast(folder):
  """PATH with a `sleep` that does not."""
  (folder / "bin").mkdir()
  (folder / "bin" / "sleep").symlink_to("/bin/true")
  return f"{folder / 'bin'}:{os.environ['PATH']}"


@pytest.mark.parametrize("words", [(), (2,), ("two", "true"), (0, "true"), (2, "--nonsense", "true")])
def test_wrong_words_are_refused(words):
  done = pod(*words)
  assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_a_dry_run_starts_nothing(tmp_path):
  done = pod(2, "--dry-run", "touch", tmp_path / "made")
  assert [line.split()[1:3] for line in done.stdout.splitlines()] == [
      ["SFTRL_PROCESSES=2", f"SFTRL_PROCESS={i}"] for i in (0, 1)]
  assert not (tmp_path / "made").exists()
