"""Kills runs at random moments, goes on with them, and compares them with runs that nobody killed.

  PYTHONPATH=. python tests/kills.py --count=200 --home=/tmp/kills [--seed=0] [--runs=sft,ppo,evaluated]

A signal (SIGKILL, SIGTERM, SIGINT, at times two) comes at any moment between the start of a process and its end:
imports, compilation, steps, evaluations, saves, the report, the exit. Then the same command goes on, is killed again
up to seven times, and ends. A kill is lost when an exit code, a message or the finished run is wrong:

- the exit code is 75 after SIGTERM and 130 after SIGINT, or 0 where the run was complete; nothing prints a traceback
- the checkpoint that the last line of a stopped run names is there
- every line of metrics.jsonl, evals.jsonl and episodes.jsonl, and every array of the last checkpoint, equals that of
  the straight run, bit for bit (clocks and the number of compilations apart)

It is no part of the suite: 200 kills take about half an hour. The last line says how many were lost (exit code 1).
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs" / "general_points"
EVALUATED = ["--config.evals.variants=('id_seen',)", "--config.evals.temperatures=(0.0,)", "--config.evals.kl=False",
             "--config.evals.episodes=16", "--config.evals.every=4"]
PLAIN = ["--config.log.writers=()", "--config.checkpoint.every=4"]
SFT = ["sft", f"--config={CONFIGS / 'sft.py'}:smoke", "--config.steps=30", *PLAIN]
PPO = ["rl", f"--config={CONFIGS / 'ppo.py'}:smoke", "--config.steps=10", "--config.rollout.shrink=()", *PLAIN]
RUNS = {   # a few seconds of a processor each, once they are compiled
    "sft": [*SFT, "--config.evals.variants=()"], "ppo": [*PPO, "--config.evals.variants=()"],
    "evaluated": [*SFT, *EVALUATED]}   # and draws its report
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}
FIRST = 0.5   # seconds in which Python itself starts: before it runs our first line, a signal has the system's effect
FILES = ("metrics.jsonl", "evals.jsonl", "episodes.jsonl")
CLOCKS = ("seconds", "timing_s", "throughput", "memory", "compute/chip_hours", "compile/count")


def start(words: list[str], workdir: Path, cache: Path) -> subprocess.Popen:
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache),
                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
  command = [sys.executable, "-m", "sftrl_jax", *words, f"--workdir={workdir}"]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def contents(workdir: Path) -> tuple[dict, dict, dict]:
  """(lines of every file without clocks, arrays of the last checkpoint as bytes, its position without seconds)."""
  import jax
  import orbax.checkpoint as ocp
  files = [workdir / name for name in FILES if (workdir / name).is_file()]
  lines = {file.name: [{key: value for key, value in json.loads(line).items() if not key.startswith(CLOCKS)}
                       for line in file.read_text().splitlines()] for file in files}
  step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
  home = (workdir / "checkpoints" / str(step)).absolute()
  arrays = jax.tree_util.tree_leaves_with_path(ocp.StandardCheckpointer().restore(home / "state"))
  position = json.loads((home / "meta" / "metadata").read_text())["position"]
  return lines, {jax.tree_util.keystr(path): jax.device_get(leaf).tobytes() for path, leaf in arrays}, {
      key: value for key, value in position.items() if key != "seconds"}


def differences(straight: tuple[dict, dict, dict], workdir: Path) -> list[str]:
  lines, arrays, position = contents(workdir)
  wrong = [f"{name} differs" for name in FILES if lines.get(name) != straight[0].get(name)]
  wrong += [f"array {name} differs" for name in straight[1] if arrays.get(name) != straight[1][name]]
  return wrong + ([f"position {position}"] if position != straight[2] else [])


def kill(words: list[str], workdir: Path, cache: Path, seconds: float, random_: random.Random) -> list[str] | None:
  """Starts the command, sends a signal within so many seconds; returns what is wrong with the way it ended.

  None where it had ended before the signal.
  """
  number, delay, twice = random_.choice(SIGNALS), random_.uniform(0.0, seconds), random_.random() < 0.15
  child = start(words, workdir, cache)
  time.sleep(delay)
  if child.poll() is not None:
    child.communicate()
    return None
  child.send_signal(number)
  if twice:
    time.sleep(random_.uniform(0.0, 0.5))
    child.send_signal(random_.choice(SIGNALS[1:]))
  began = time.monotonic()
  try:
    text, code = child.communicate(timeout=60)[0], child.returncode
  except subprocess.TimeoutExpired:
    child.kill()
    return [f"{number.name} after {delay:.2f} s: still there 60 s later"]
  where = f"{number.name}{' and another' if twice else ''} after {delay:.2f} s, {time.monotonic() - began:.1f} s to end"
  allowed = {CODES[number], 0, *((-number, 1) if delay < FIRST else ()), *((75, 130) if twice else ())}
  wrong = [f"{where}: exit code {code}\n{text[-600:]}"] if code not in allowed else []
  if "Traceback" in text and delay >= FIRST:
    wrong.append(f"{where}: a traceback\n{text[-600:]}")
  stopped = re.search(r"stopped after step (\d+)", text)
  if stopped and int(stopped[1]) and not (workdir / "checkpoints" / stopped[1]).is_dir():
    wrong.append(f"{where}: step {stopped[1]} is not there")
  return wrong


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--count", type=int, default=200)
  parser.add_argument("--home", type=Path, required=True, help="an empty directory")
  parser.add_argument("--cache", type=Path, help="a directory of compiled programs (default: HOME/cache)")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--runs", default="sft,ppo", help=f"of {', '.join(RUNS)}")
  options = parser.parse_args()
  random_, cache, straight, seconds = random.Random(options.seed), options.cache or options.home / "cache", {}, {}
  for name in options.runs.split(","):
    for number in (1, 2):   # the first run compiles, the second one shows how long the others take
      began = time.monotonic()
      workdir = options.home / f"{name}-straight-{number}"
      child = start(RUNS[name], workdir, cache)
      text = child.communicate()[0]
      assert child.returncode == 0, text
      seconds[name] = time.monotonic() - began
    straight[name] = contents(workdir)
    assert differences(straight[name], options.home / f"{name}-straight-1") == []
    print(f"{name}: {seconds[name]:.1f} s without a kill", flush=True)
  kills = lost = chains = 0
  while kills < options.count:
    name = options.runs.split(",")[chains % len(straight)]
    chains += 1
    workdir, wrong, done = options.home / f"{name}-{chains}", [], 0
    planned = min(random_.randint(1, 8), options.count - kills)
    while done < planned:
      problems = kill(RUNS[name], workdir, cache, seconds[name], random_)
      if problems is None:
        break
      wrong, done = wrong + problems, done + 1
    child = start(RUNS[name], workdir, cache)
    text = child.communicate()[0]
    if child.returncode:
      wrong.append(f"the last start ended with exit code {child.returncode}\n{text[-600:]}")
    else:
      wrong += differences(straight[name], workdir)
    kills, lost = kills + done, lost + len(wrong)
    print(f"{workdir.name}: {done} kills, {len(wrong)} lost ({kills} of {options.count})", flush=True)
    for problem in wrong:
      print(f"  {problem}", flush=True)
  print(f"{kills} kills in {chains} runs: {lost} lost")
  return 1 if lost else 0


if __name__ == "__main__":
  sys.exit(main())
