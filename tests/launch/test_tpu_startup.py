"""A machine that is made anew goes on by itself: the start-up script and the worker's, with a systemd and a bucket that
are stand-ins. The package is taken as installed; restart.sh and what it runs are real."""

import os
import shutil
import subprocess

import pytest

GCLOUD = """#!/usr/bin/env bash
case "$1 $2" in
  "storage ls") [ -e "${3/gs:\\/\\//$BUCKET/}" ] ;;
  "storage cp") cp "${3/gs:\\/\\//$BUCKET/}" "${4/gs:\\/\\//$BUCKET/}" "$5" ;;
  "secrets versions") [ "$5" = --secret=good ] && printf 'hf_secret' ;;
esac
"""
CURL = """#!/bin/sh
[ -n "$RECORD" ] && printf %s "$RECORD"
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"$BUCKET/units"
[ "$1" != is-active ] || [ -e "$BUCKET/active" ]
"""
# Drops the flags and waits for the unit, so that a test knows when it is done.
SYSTEMD_RUN = """#!/usr/bin/env bash
echo "systemd-run $*" >>"$BUCKET/units"
while [[ $1 == --* ]]; do shift; done
"$@" >>log.txt 2>&1
"""
SFTRL = """#!/bin/sh
echo "sftrl $*" >>"$BUCKET/ran"
echo "$JAX_COMPILATION_CACHE_DIR|$HF_TOKEN_PATH" >>"$BUCKET/variables"
echo a line of the run
exit "$(cat "$BUCKET/code" 2>/dev/null || echo 0)"
"""


class Worker:
  """A machine: its home as root has it, and a bucket that outlives it."""

  def __init__(self, folder, made):
    self.home, self.bucket, self.bin = folder / "vm", folder / "bucket", folder / "system"
    self.made = made
    self.bucket.mkdir()
    self.bin.mkdir()
    for name, text in (("gcloud", GCLOUD), ("curl", CURL), ("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
      (self.bin / name).write_text(text)
      (self.bin / name).chmod(0o755)
    self.anew()

  def anew(self):
    """A new machine, on which the package is installed already: that much is left out here."""
    shutil.rmtree(self.home, ignore_errors=True)
    (self.home / ".venv" / "bin").mkdir(parents=True)
    told = subprocess.run(["bash", "-c", "cksum <pyproject.toml"], cwd=self.made, capture_output=True, text=True,
                          check=True)
    (self.home / ".venv" / "installed[tpu,hf]").write_text(f"{self.home} {told.stdout.strip()}")
    for name, text in (("sftrl", SFTRL), ("python", "#!/bin/sh\necho 3.12\n")):
      (self.home / ".venv" / "bin" / name).write_text(text)
      (self.home / ".venv" / "bin" / name).chmod(0o755)

  def run(self, *words, record="gs://b/launch/pod"):
    environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "BUCKET": str(self.bucket),
                   "RECORD": record, "SFTRL_HOME": str(self.home), "HOSTNAME": "t1v-n-0-w-3"}
    return subprocess.run(["bash", *words], env=environment, capture_output=True, text=True, timeout=60, check=False)

  def boot(self, **where):
    return self.run(self.made / "launch" / "tpu_startup.sh", **where)

  def said(self, name):
    path = self.bucket / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def worker(made, tmp_path):
  return Worker(tmp_path, made)


@pytest.fixture
def recorded(checkout, worker):
  """The worker's bucket holds what tpu_create.sh with a command puts there."""
  def record(*flags):
    done = checkout.run("tpu_create.sh", "pod", "--zone=us-west4-a", "--type=v4-8", "--bucket=gs://b", *flags, "sftrl",
                        "sft", "--config=run.py", "--workdir=gs://b/my runs")
    assert done.code == 0
    (worker.bucket / "b" / "launch" / "pod").mkdir(parents=True, exist_ok=True)
    for name in ("code.tar.gz", "job.sh"):
      shutil.copy(checkout.home / "runs/launch/pod" / name, worker.bucket / "b" / "launch" / "pod" / name)
  return record


COMMAND = "sftrl sft --config=run.py --workdir=gs://b/my runs"


def test_a_new_machine_runs_what_is_recorded_and_the_one_after_it_goes_on(worker, recorded):
  recorded()
  assert worker.boot().returncode == 0
  assert worker.said("ran") == [COMMAND]
  assert worker.said("variables") == ["gs://b/cache|"]
  log = (worker.home / "log.txt").read_text()
  assert "started up" in log and "a line of the run" in log and "t1v-n-0-w-3: sftrl sft" in log
  unit = next(line for line in worker.said("units") if line.startswith("systemd-run"))
  assert "--unit=sftrl" in unit and "--property=KillMode=mixed" in unit and unit.endswith("tpu_worker.sh supervise")
  worker.anew()   # preempted: nothing is left of the first machine
  assert worker.boot().returncode == 0
  assert worker.said("ran") == [COMMAND, COMMAND]


def test_a_config_that_is_wrong_is_not_begun_again(worker, recorded):
  recorded()
  (worker.bucket / "code").write_text("1")
  worker.boot()
  assert worker.said("ran") == [COMMAND]


def test_nothing_recorded_and_nothing_sent(worker):
  assert worker.boot().returncode == 0 and worker.boot(record="").returncode == 0
  log = (worker.home / "log.txt").read_text()
  assert "No command is recorded in gs://b/launch/pod" in log and "No command was sent here yet" in log
  assert worker.said("units") == []


def test_a_machine_without_a_bucket_goes_on_after_a_restart(worker, recorded):
  recorded()
  worker.boot()
  worker.boot(record="")
  assert worker.said("ran") == [COMMAND, COMMAND]


def test_two_starts_are_one_run_and_another_command_is_refused(worker, recorded):
  recorded()
  worker.boot()
  (worker.bucket / "active").touch()
  start = (worker.home / "launch" / "tpu_worker.sh", "start")
  again = worker.run(*start)
  assert again.returncode == 0 and "it runs already" in again.stderr
  (worker.home / "job.sh").write_text("command=(sftrl rl)\n")
  other = worker.run(*start)
  assert other.returncode == 1 and "runs another command" in other.stderr
  assert worker.said("ran") == [COMMAND]
  assert worker.run(*start[:1], "stop").returncode == 0 and not (worker.home / "job.sh").exists()
  assert worker.said("units")[-1] == "systemctl stop sftrl"
  assert "no command was sent here" in worker.run(*start).stderr


def test_a_secret_becomes_a_file_for_root_alone(worker, recorded):
  recorded("--hf-secret=good")
  worker.boot()
  token = worker.home / "hf_token"
  assert token.read_text() == "hf_secret" and token.stat().st_mode & 0o777 == 0o600
  assert worker.said("variables") == [f"gs://b/cache|{token}"]
  assert "hf_secret" not in (worker.home / "log.txt").read_text() + str(worker.said("units"))
  recorded("--hf-secret=bad")
  assert worker.boot().returncode == 1
  assert "cannot read bad: its service account needs" in (worker.home / "log.txt").read_text()


def test_a_dry_run_does_nothing(worker, recorded):
  done = worker.run(worker.made / "launch" / "tpu_startup.sh", "--dry-run")
  assert done.stdout.count("\n") == 3 and not (worker.home / "log.txt").exists()
  recorded()
  worker.boot()
  begun = worker.said("units")
  done = worker.run(worker.home / "launch" / "tpu_worker.sh", "start", "--dry-run")
  assert "systemd-run --unit=sftrl" in done.stdout and worker.said("units") == begun
