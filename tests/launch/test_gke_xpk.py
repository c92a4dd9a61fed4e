"""What xpk is asked, and what is refused before it is."""

import re

import pytest

ZONE = "--zone=us-west4-a"
GKE = ("gke_xpk.sh", "run-1", ZONE, "--cluster=c1")
SFT = ("sftrl", "sft", "--config=run.py", "--workdir=gs://b/my runs")
RUN = "exec bash launch/restart.sh sftrl sft --config=run.py '--workdir=gs://b/my runs'"
WHERE = ["--workload=run-1", "--cluster=c1", ZONE]


def test_a_workload_over_a_base_image(checkout):
  done = checkout.run(*GKE, "--type=v5e-16", "--slices=2", "--bucket=gs://b", *SFT[:2], "--config=run.py:hub",
                      *SFT[3:], HF_TOKEN="hf_secret")
  folder = "runs/launch/run-1"
  assert done.code == 0 and done.calls == [
      ["xpk", "workload", "create", *WHERE, "--tpu-type=v5litepod-16", "--num-slices=2",
       "--base-docker-image=python:3.12", f"--script-dir={folder}/code", f"--env-file={folder}/variables",
       "--max-restarts=50", "--restart-on-exit-codes=75", "--termination-grace-period-seconds=120",
       "--command=source launch/venv.sh && make_venv && install '[tpu,hf]' && export PATH=$PWD/.venv/bin:$PATH && "
       + RUN.replace("run.py", "run.py:hub")]]
  assert "hf_secret" not in done.out + done.err
  assert (checkout.home / folder / "variables").read_text().split() == [
      "PYTHONUNBUFFERED=1", "JAX_COMPILATION_CACHE_DIR=gs://b/cache", "HF_TOKEN"]
  assert (checkout.home / folder / "code" / "launch" / "restart.sh").exists()


def test_a_workload_of_an_image_in_a_cluster_made_for_it(checkout):
  done = checkout.run(*GKE, "--type=v6e-16", "--create-cluster", "--spot", "--image=gcr.io/p/i:1",
                      "--project=my-project", *SFT)
  assert done.calls[0] == ["xpk", "cluster", "create", "--cluster=c1", ZONE, "--project=my-project",
                           "--tpu-type=v6e-16", "--num-slices=1", "--spot"]
  assert "--docker-image=gcr.io/p/i:1" in done.calls[1] and f"--command={RUN}" in done.calls[1]
  assert not any(word.startswith(("--base-docker-image", "--script-dir")) for word in done.calls[1])


def test_a_workload_is_deleted(checkout):
  assert checkout.run(*GKE, "--delete").calls == [["xpk", "workload", "delete", *WHERE, "--force"]]


def test_a_dry_run_calls_nothing(checkout):
  done = checkout.run(*GKE, "--type=v6e-16", "--create-cluster", "--dry-run", *SFT)
  assert done.code == 0 and done.calls == [] and not (checkout.home / "runs").exists()
  assert "xpk cluster create --cluster=c1" in done.out and "xpk workload create --workload=run-1" in done.out


@pytest.mark.parametrize(("words", "told"), [
    (("gke_xpk.sh", "my run", ZONE, "--cluster=c", *SFT), "the name is 'my run'"),
    (("gke_xpk.sh", "r" * 41, ZONE, "--cluster=c", *SFT), "40 characters at most"),
    (("gke_xpk.sh", "run", "--cluster=c", "--type=v4-8", *SFT), "--zone is missing"),
    (("gke_xpk.sh", "run", ZONE, "--type=v4-8", *SFT), "--cluster is missing"),
    (("gke_xpk.sh", "run", ZONE, "--cluster=My C", *SFT), "--cluster is 'My C'"),
    ((*GKE, *SFT), "--type is missing"), ((*GKE, "--type=v6e-8"), "there is no command"),
    ((*GKE, "--type=v6e-8", "--slices=two", *SFT), "--slices is 'two'"),
    ((*GKE, "--type=v6e-8", "--image=a", "--base-image=b", *SFT), "two ways"),
    ((*GKE, "--type=v6e-8", "--spot", "--reservation=r", *SFT), "two kinds"), ((*GKE, "--delete", *SFT), "no command"),
])
def test_refused_before_anything_is_called(checkout, words, told):
  done = checkout.run(*words)
  assert done.code == 2 and done.calls == [] and re.search(told, done.err) and done.err.count("\n") == 1
