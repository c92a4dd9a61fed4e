"""A worker's Python is too old: where a newer one comes from, and what is installed into it. Everything that would
install is a stand-in which says that it was called."""

import os
import shutil
import subprocess

import pytest

PYTHONS = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
# Too old for `is_good`; pip, where there is one, brings uv.
OLD = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$CALLS"
if [ "$2 $*" = "pip -m pip install -q uv" ] && [ "$HAS" = pip ]; then cp "$STANDS/uv" "$STANDS/bin/uv"; exit 0; fi
exit 1
"""
# A virtual environment whose python installs whatever it is told to.
MADE = """mkdir -p .venv/bin
printf '#!/bin/sh\\necho "venv $*" | head -n 1 >>"$CALLS"\\n' >.venv/bin/python
chmod 755 .venv/bin/python
"""
UV = f"""#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
{MADE}"""
CURL = """#!/usr/bin/env bash
echo "curl $*" >>"$CALLS"
[ "$HAS" = curl ] && echo 'cp "$STANDS/uv" "$STANDS/bin/uv"'
"""
GOOD = f"""#!/usr/bin/env bash
if [ "$1" = -c ]; then exit 0; fi
{MADE}"""
APT = """#!/usr/bin/env bash
echo "apt-get $*" >>"$CALLS"
cp "$STANDS/good" "$STANDS/bin/python3.11"
"""


@pytest.fixture
def worker(made, tmp_path):
  """worker(has) -> (exit code, what was called, stderr) of `tpu_worker.sh install hf,gguf` where only `has` works."""
  (tmp_path / "bin").mkdir()
  shutil.copytree(made / "launch", tmp_path / "launch")
  shutil.copy(made / "pyproject.toml", tmp_path)
  for name, text in ((*((f"bin/{python}", OLD) for python in PYTHONS), ("uv", UV), ("bin/curl", CURL), ("good", GOOD),
                      ("bin/apt-get", APT), ("bin/id", "#!/bin/sh\necho 0\n"))):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)

  def run(has):
    calls = tmp_path / "calls"
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(calls), "HAS": has,
                   "STANDS": str(tmp_path), "PYENV_ROOT": str(tmp_path / "pyenv")}
    done = subprocess.run(["bash", "launch/tpu_worker.sh", "install", "hf,gguf"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in calls.read_text().splitlines() if not {"-c", "--version"} & set(line.split())]
    return done.returncode, told, done.stderr

  return run


INSTALLED = "venv -m pip install -qq --no-compile -e .[tpu,hf,gguf]"


@pytest.mark.parametrize(("has", "brought"), [
    ("pip", ["python3 -m pip install -q uv", "uv venv --clear --seed --python >=3.11 .venv"]),
    ("curl", ["python3 -m pip install -q uv", "curl -LsSf https://astral.sh/uv/install.sh",
              "uv venv --clear --seed --python >=3.11 .venv"]),
    ("apt", ["python3 -m pip install -q uv", "curl -LsSf https://astral.sh/uv/install.sh", "apt-get update -qq",
             "apt-get install -y -qq python3.11 python3.11-venv"]),
])
def test_a_newer_python_comes_with_uv_or_else_with_apt(worker, has, brought):
  code, calls, said = worker(has)
  assert code == 0, said
  assert calls == [*brought, INSTALLED]
  assert ("apt is asked" in said) == (has == "apt")
  again, calls, _ = worker(has)
  assert again == 0 and calls == [*brought, INSTALLED], "what is installed is not installed again"


def test_an_unknown_verb_is_refused(made):
  done = subprocess.run(["bash", made / "launch" / "tpu_worker.sh", "instal"], capture_output=True, text=True,
                        timeout=10, check=False)
  assert done.returncode == 2 and "'instal' is none of install, start, supervise, stop" in done.stderr
