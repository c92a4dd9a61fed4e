"""The token of the hub: asked for before anything is paid for, and seen by nobody on its way."""

import os
import pty
import re

import pytest

TOKEN = "hf_secretsecretsecret"
ZONE = "--zone=us-west4-a"
HUB = ("sftrl", "sft", "--config=run.py:hub", "--workdir=gs://b/runs/x")
OWN = ("sftrl", "sft", "--config=run.py", "--workdir=gs://b/runs/x")
CREATE = ("tpu_create.sh", "pod", ZONE, "--type=v4-8")
RUN = ("tpu_run.sh", "pod", ZONE)
GKE = ("gke_xpk.sh", "pod", ZONE, "--cluster=c", "--type=v6e-8")


@pytest.mark.parametrize("script", [CREATE, RUN, GKE], ids=lambda words: words[0])
def test_without_a_token_nothing_is_called(checkout, script):
  done = checkout.run(*script, *HUB)
  assert done.code == 2 and done.calls == []
  assert "HF_TOKEN is not set, and the command reads meta-llama/Llama-3.2-1B from the hub" in done.err


def test_what_counts_is_what_the_run_would_read(checkout):
  assert checkout.run(*CREATE, *OWN).code == 0
  assert checkout.run(*CREATE, *OWN, "--config.start=Qwen/Qwen3-8B").code == 2
  assert checkout.run(*CREATE, *OWN, "--config.data.path=owner/rows").code == 2
  assert checkout.run(*CREATE, *HUB, "--config.start=scratch").code == 0
  assert checkout.run(*CREATE, *HUB, HF_TOKEN="none").code == 0


@pytest.mark.parametrize("script", [CREATE, RUN, GKE], ids=lambda words: words[0])
def test_a_mistake_in_the_config_is_told_before_anything_is_called(checkout, script):
  done = checkout.run(*script, "sftrl", "sft", "--config=rum.py")
  assert done.code == 1 and done.calls == [] and "there is no file rum.py" in done.err


def test_a_person_is_asked_and_the_answer_is_kept_for_the_next_command(checkout):
  ours, theirs = pty.openpty()
  os.write(ours, f"{TOKEN}\n".encode())
  done = checkout.run(*CREATE, *HUB, stdin=theirs)
  assert "create" in done.calls[0] and done.code == 0
  kept = checkout.recorded / ".cache" / "huggingface" / "token"
  assert kept.read_text() == TOKEN and kept.stat().st_mode & 0o777 == 0o600
  assert TOKEN not in done.out + done.err + str(done.calls)
  assert checkout.run(*RUN, *HUB).code == 0 and TOKEN in (checkout.recorded / "token").read_text()
  os.close(ours)
  os.close(theirs)


def test_it_travels_as_a_file_for_one_user_and_in_no_command(checkout):
  done = checkout.run(*RUN, *HUB, HF_TOKEN=TOKEN)
  assert "runs/launch/pod/hf_token" in done.calls[0]
  assert (checkout.recorded / "token").read_text() == f"600\n{TOKEN}"
  assert not (checkout.home / "runs" / "launch" / "pod" / "hf_token").exists()
  left = [path.read_bytes() for path in (checkout.home / "runs").rglob("*") if path.is_file()]
  assert not any(TOKEN.encode() in text for text in left)
  assert TOKEN not in done.out + done.err + str(done.calls)


@pytest.mark.parametrize("script", [(*CREATE, "--bucket=gs://b"), RUN, (*RUN, "--bucket=gs://b"), GKE])
def test_a_dry_run_never_shows_it(checkout, script):
  done = checkout.run(*script, "--dry-run", *HUB, HF_TOKEN=TOKEN)
  assert done.code == 0 and TOKEN not in done.out + done.err


def test_what_does_not_read_the_hub_gets_no_token(checkout):
  assert "runs/launch/pod/hf_token" not in checkout.run(*RUN, *OWN, HF_TOKEN=TOKEN).calls[0]
  assert "storage" in checkout.run(*CREATE, "--bucket=gs://b", *OWN, HF_TOKEN=TOKEN).calls[0]


def test_a_dry_run_asks_nobody(checkout):
  done = checkout.run(*RUN, "--dry-run", *HUB)
  assert done.code == 0 and "you are asked for a token" in done.err


def test_a_pod_that_begins_by_itself_waits_for_its_token_or_reads_a_secret(checkout):
  bucket = (*CREATE, "--bucket=gs://b")
  waits = checkout.run(*bucket, *HUB, HF_TOKEN=TOKEN)
  assert len(waits.calls) == 1 and "waits for tpu_run.sh" in waits.err
  reads = checkout.run(*bucket, "--hf-secret=my-token", *HUB)
  assert [call[1] for call in reads.calls] == ["storage", "compute"]
  assert re.search("^secret=my-token$", (checkout.home / "runs/launch/pod/job.sh").read_text(), re.M)


def test_a_token_with_a_line_break_is_refused(checkout):
  assert "no token of the hub" in checkout.run(*RUN, *HUB, HF_TOKEN="a\nb").err


def test_without_a_python_that_reads_configs_it_is_up_to_the_person(checkout):
  python = checkout.home / ".venv" / "bin" / "python"
  there = python.read_text()
  other = checkout.recorded / "bin" / "python3"
  for path in (python, other):   # 3: too old, or without ml_collections
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
  done, told = checkout.run(*RUN, *HUB), checkout.run(*RUN, *HUB, HF_TOKEN=TOKEN)
  python.write_text(there)
  assert done.code == 0 and "no Python here reads configs" in done.err
  assert "runs/launch/pod/hf_token" not in done.calls[0]
  assert "runs/launch/pod/hf_token" in told.calls[0]
