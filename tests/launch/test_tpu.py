"""A pod's life as gcloud hears of it: the exact commands, in order; and what is refused before it hears anything."""

import pathlib
import re
import subprocess
import tarfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
PEOPLE = ["tpu_create.sh", "tpu_setup.sh", "tpu_run.sh", "tpu_logs.sh", "tpu_delete.sh", "gke_xpk.sh", "restart.sh",
          "local_pod.sh", "tpu_worker.sh", "tpu_startup.sh"]
ZONE = "--zone=us-west4-a"
SFT = ("sftrl", "sft", "--config=run.py", "--workdir=gs://b/runs/x")
PUT = ('set -eu; sudo mkdir -p /opt/sftrl; cd /opt/sftrl; sudo rm -rf sftrl_jax configs launch tests; sudo tar -xzf '
       '"$HOME/code.tar.gz"; for file in job.sh hf_token; do if [ -f "$HOME/$file" ]; then sudo install -m 600 '
       '"$HOME/$file" .; fi; done; rm -f "$HOME/code.tar.gz" "$HOME/job.sh" "$HOME/hf_token"; '
       'sudo bash launch/tpu_worker.sh ')
CODE, JOB = "runs/launch/pod/code.tar.gz", "runs/launch/pod/job.sh"
BOOT = ["--scopes=https://www.googleapis.com/auth/cloud-platform"]
SCRIPT = ["--metadata-from-file=startup-script=launch/tpu_startup.sh"]


def tpu(*words):
  return ["gcloud", "compute", "tpus", *words]


def test_a_tpu_vm_from_nothing_to_nothing(checkout):
  made = checkout.run("tpu_create.sh", "pod", "--type=v4-32", "--zone", "us-central2-b", "--project=my-project")
  where = ["--zone=us-central2-b", "--project=my-project"]
  assert made.calls == [tpu("tpu-vm", "create", "pod", *where, "--accelerator-type=v4-32",
                            "--version=tpu-ubuntu2204-base", *BOOT, *SCRIPT)]
  assert checkout.run("tpu_setup.sh", "pod", *where).calls == [
      tpu("tpu-vm", "scp", CODE, "pod:", *where, "--worker=all"),
      tpu("tpu-vm", "ssh", "pod", *where, "--worker=all", f"--command={PUT}install hf")]
  ran = checkout.run("tpu_run.sh", "pod", *where, *SFT)
  assert ran.calls == [tpu("tpu-vm", "scp", CODE, JOB, "pod:", *where, "--worker=all"),
                       tpu("tpu-vm", "ssh", "pod", *where, "--worker=all", f"--command={PUT}start")]
  assert checkout.run("tpu_logs.sh", "pod", *where, "--follow").calls == [
      tpu("tpu-vm", "ssh", "pod", *where, "--worker=all",
          '--command=sudo tail -n 50 -F /opt/sftrl/log.txt | sed -u "s/^/[$HOSTNAME] /"')]
  assert checkout.run("tpu_run.sh", "pod", *where, "--stop").calls == [
      tpu("tpu-vm", "ssh", "pod", *where, "--worker=all",
          "--command=cd /opt/sftrl && sudo bash launch/tpu_worker.sh stop")]
  assert checkout.run("tpu_delete.sh", "pod", *where, "--yes").calls == [
      tpu("tpu-vm", "delete", "pod", *where, "--quiet")]
  assert [done.code for done in (made, ran)] == [0, 0]


def test_a_queued_spot_pod_created_run_preempted_resumed_deleted(checkout):
  queue = {"CLOUDSDK_COMPUTE_ZONE": "us-west4-a", "SFTRL_QUEUED": "yes", "SFTRL_BUCKET": "gs://b/d/"}
  create = ("tpu_create.sh", "pod", "--type=v5e-16", "--spot", "--valid-for=6h", "--poll=1")
  made = tpu("queued-resources", "create", "pod", ZONE, "--accelerator-type=v5litepod-16",
             "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=pod", "--valid-until-duration=6h", "--spot", *BOOT,
             "--metadata=sftrl-record=gs://b/d/launch/pod", *SCRIPT)
  asked = tpu("queued-resources", "describe", "pod", ZONE, "--format=value(state.state)")
  everyone = ["--worker=all", "--node=all"]
  checkout.states("ACTIVE")
  assert checkout.run(*create, **queue).calls == [made, asked]
  sent = [["gcloud", "storage", "cp", CODE, JOB, "gs://b/d/launch/pod/"],
          tpu("queued-resources", "scp", CODE, JOB, "pod:", ZONE, *everyone),
          tpu("queued-resources", "ssh", "pod", ZONE, *everyone, f"--command={PUT}start")]
  assert checkout.run("tpu_run.sh", "pod", *SFT, **queue).calls == sent
  job = (checkout.home / JOB).read_text()
  # Preempted: what is left of it is in the way, and the new one starts what is recorded in the bucket.
  checkout.states("SUSPENDED")
  lost = checkout.run(*create, **queue)
  assert lost.code == 1 and "pod is SUSPENDED" in lost.err and "--replace" in lost.err
  checkout.states("ACTIVE")
  deleted = tpu("queued-resources", "delete", "pod", ZONE, "--force", "--quiet")
  assert checkout.run(*create, "--replace", **queue).calls == [deleted, made, asked]
  # Or by hand.
  again = checkout.run("tpu_run.sh", "pod", "--again", **queue)
  assert again.calls == sent and (checkout.home / JOB).read_text() == job
  assert "again: sftrl sft --config=run.py --workdir=gs://b/runs/x" in again.err
  assert checkout.run("tpu_delete.sh", "pod", "--yes", **queue).calls == [
      ["gcloud", "storage", "rm", "--recursive", "gs://b/d/launch/pod"], deleted]


def test_a_pod_with_its_command_begins_by_itself(checkout):
  done = checkout.run("tpu_create.sh", "pod", ZONE, "--type=v6e-8", "--bucket=gs://b", "--cache=gs://c/x", *SFT)
  assert [call[1:3] for call in done.calls] == [["storage", "cp"], ["compute", "tpus"]]
  assert "--metadata=sftrl-record=gs://b/launch/pod" in done.calls[1]
  assert "command=(sftrl sft --config=run.py --workdir=gs://b/runs/x)" in (checkout.home / JOB).read_text()
  assert "environment=(JAX_COMPILATION_CACHE_DIR=gs://c/x)" in (checkout.home / JOB).read_text()


def test_keep_makes_a_pod_again_until_it_is_deleted(checkout):
  (checkout.recorded / "bin" / "sleep").symlink_to("/bin/true")
  checkout.states("ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", "PROVISIONING", "ACTIVE")
  done = checkout.run("tpu_create.sh", "pod", ZONE, "--type=v6e-8", "--queued", "--spot", "--keep", "--bucket=gs://b")
  assert [call[4] for call in done.calls] == [
      "create", *["describe"] * 4, "delete", "create", *["describe"] * 5]
  assert done.code == 0 and "pod is SUSPENDED: made again" in done.err and "pod is gone" in done.err
  assert done.calls[0] == done.calls[6]
  checkout.states("READY", "PREEMPTED")
  done = checkout.run("tpu_create.sh", "pod", ZONE, "--type=v6e-8", "--spot", "--keep", "--bucket=gs://b")
  assert [call[4] for call in done.calls] == ["create", *["describe"] * 2, "delete", "create", *["describe"] * 3]
  assert done.calls[1][-1] == "--format=value(state)"


def test_slices_workers_files_and_further_flags(checkout):
  done = checkout.run("tpu_create.sh", "pod", ZONE, "--type=v5p-16", "--queued", "--slices=2", "--no-wait",
                      "--runtime=image-1", "--gcloud=--network=n --tags=a,b")
  assert {"--node-count=2", "--node-prefix=pod", "--runtime-version=image-1", "--network=n", "--tags=a,b"} < set(
      done.calls[0]) and len(done.calls) == 1
  done = checkout.run("tpu_logs.sh", "pod", ZONE, "--worker=1-3", "--out=logs dir", "--lines=7")
  assert done.calls[0][6:9] == ["--zone=us-west4-a", "--worker=1-3", "--output-directory=logs dir"]
  assert "tail -n 7 " in done.calls[0][9] and (checkout.home / "logs dir").is_dir()
  (checkout.home / "logs dir").rmdir()


def test_what_is_sent_is_the_commit_and_what_is_not_is_told(checkout):
  changed = checkout.home / "launch" / "venv.sh"
  before = changed.read_text()
  changed.write_text(before + "# another line\n")
  done = checkout.run("tpu_run.sh", "pod", ZONE, "sftrl", "sft", "--config=run.py", "--workdir=runs/it's; $HOME")
  changed.write_text(before)
  assert "1 files differ from the last commit" in done.err and "(All there is)" in done.err
  assert "stays on the machines" in done.err
  with tarfile.open(checkout.home / CODE) as code:
    assert code.extractfile("launch/venv.sh").read().decode() == before
  # Whatever a shell could make of the words, the workers get them as they were.
  show = subprocess.run(["bash", "-c", f'source {JOB}; printf "%s\\n" "${{command[@]}}"'], cwd=checkout.home,
                        capture_output=True, text=True, check=True)
  assert show.stdout.splitlines()[-1] == "--workdir=runs/it's; $HOME"


POD = ("tpu_create.sh", "pod", "--type=v4-8", ZONE)
REFUSED = [
    (("tpu_create.sh", "my pod", "--type=v4-8", ZONE), r"the name is 'my pod'.*for example my-pod-1"),
    (("tpu_create.sh", "Pod", "--type=v4-8", ZONE), "the name is 'Pod'"),
    (("tpu_create.sh", "p" * 64, "--type=v4-8", ZONE), "63 characters at most"),
    (("tpu_create.sh", "pod-", "--type=v4-8", ZONE), "the name is 'pod-'"),
    (("tpu_create.sh", "--type=v4-8", ZONE), "there is no NAME"),
    (("tpu_create.sh", "pod", "--type=v4-8"), "--zone is missing.*CLOUDSDK_COMPUTE_ZONE"),
    (("tpu_create.sh", "pod", "--type=v4-8", "--zone=us-central2"), "--zone is 'us-central2', but"),
    (("tpu_create.sh", "pod", "--type=v4-8", ZONE, "--project=My Project"), "--project is 'My Project'"),
    (("tpu_create.sh", "pod", ZONE), "--type is missing"),
    (("tpu_create.sh", "pod", ZONE, "--type=v7-8"), "--type is 'v7-8', but should be v4-N, v5e-N"),
    ((*POD, "--bucket=b"), "--bucket is 'b', but should be gs://BUCKET"),
    ((*POD, "--slices=2"), "--slices is for queued resources"), ((*POD, "--keep"), "--keep needs --bucket"),
    ((*POD, "--valid-for=1h"), "--valid-for is for queued"), ((*POD, "--spot", "--reserved"), "two kinds of machines"),
    ((*POD, "--spot=yes"), "--spot takes no value"), ((*POD, "--sopt"), "--sopt is no flag of tpu_create.sh"),
    ((*POD, "--queued", "--slices=0"), "--slices is '0'"), ((*POD, "--extras=hf tpu"), "--extras is 'hf tpu'"),
    ((*POD, "python", "train.py"), "the command is 'python train.py', but should be as on one machine: sftrl"),
    (("tpu_setup.sh", "my pod", ZONE), "the name is"), (("tpu_setup.sh", "pod"), "--zone is missing"),
    (("tpu_setup.sh", "pod", ZONE, "more"), "'more' is one word too many"),
    (("tpu_run.sh", "my pod", ZONE, *SFT), "the name is"), (("tpu_run.sh", "pod", *SFT), "--zone is missing"),
    (("tpu_run.sh", "pod", ZONE), "there is no command"),
    (("tpu_run.sh", "pod", ZONE, "--stop", *SFT), "take no command"),
    (("tpu_run.sh", "pod", ZONE, "--stop", "--again"), "two things to do"),
    (("tpu_logs.sh", "my pod", ZONE), "the name is"), (("tpu_logs.sh", "pod"), "--zone is missing"),
    (("tpu_logs.sh", "pod", ZONE, "--worker=one"), "--worker is 'one'"),
    (("tpu_logs.sh", "pod", ZONE, "--lines=none"), "--lines is 'none'"),
    (("tpu_logs.sh", "pod", ZONE, "--follow", "--out=x"), "--follow never ends"),
    (("tpu_delete.sh", "my pod", ZONE, "--yes"), "the name is"),
    (("tpu_delete.sh", "pod", "--yes"), "--zone is missing"),
    (("tpu_delete.sh", "pod", ZONE), "nobody is here to be asked"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_refused_before_anything_is_called(checkout, words, told):
  done = checkout.run(*words)
  assert done.code == 2 and done.calls == [] and not (checkout.home / "runs").exists()
  assert re.search(told, done.err) and done.err.startswith("error: ") and done.err.count("\n") == 1


@pytest.mark.parametrize("words", [
    (*POD, "--replace", "--keep", "--bucket=gs://b", *SFT), ("tpu_setup.sh", "pod", ZONE),
    ("tpu_run.sh", "pod", ZONE, *SFT), ("tpu_run.sh", "pod", ZONE, "--stop"),
    ("tpu_logs.sh", "pod", ZONE), ("tpu_delete.sh", "pod", ZONE, "--queued")])
def test_a_dry_run_calls_nothing_and_prints_what_would_be_called(checkout, words):
  dry = checkout.run(*words[:2], "--dry-run", *words[2:])
  assert dry.code == 0 and dry.calls == [] and not (checkout.home / "runs").exists()
  (checkout.recorded / "bin" / "sleep").symlink_to("/bin/true")
  wet = checkout.run(*words[:2], *(["--yes"] if "delete" in words[0] else []), *words[2:])
  printed = subprocess.run(["bash", "-c", dry.out], cwd=checkout.home, capture_output=True, check=True, env={
      "PATH": f"{checkout.recorded / 'bin'}:/usr/bin:/bin", "RECORDED": str(checkout.recorded)})
  assert printed.returncode == 0
  both = checkout.calls()
  asked = [call for call in wet.calls if "describe" not in call]
  assert both == wet.calls + asked, "the printed commands, taken by a shell, are those that are run"


def test_a_pod_that_cannot_be_made_ends_it(checkout):
  checkout.fails("create pod")
  assert checkout.run(*POD).code == 1
  assert checkout.run("tpu_run.sh", "pod", ZONE, "--again").code == 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_well_formed(path):
  text = path.read_text()
  assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
  if text.startswith("#!"):
    assert text.startswith("#!/usr/bin/env bash\n# ") and "\nset -euo pipefail\n" in text
  assert max(map(len, text.splitlines())) <= 120 or path.name == "smollm2.sh"


@pytest.mark.parametrize("script", PEOPLE)
def test_help_says_what_it_is_for(checkout, script):
  done = checkout.run(script, "--help")
  assert done.code == 0 and done.calls == [] and script in done.out and "dry-run" in done.out
