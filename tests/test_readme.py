"""README.md and the pages: short, in plain English, every path exists, and every command is run or at least parsed."""

import ast
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest

from sftrl_jax.alarms import ALARMS
from sftrl_jax.main import main, scan
from sftrl_jax.programs.config import resolve, smoke
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.study import config as study_config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "configs/README.md", ROOT / "configs/study/README.md",
         ROOT / "configs/study/GENERAL_POINTS.md", ROOT / "configs/study/VIRL.md",
         ROOT / "configs/study/ALIGNMENT.md", ROOT / "configs/study/VISION.md", ROOT / "configs/study/CONTINUUM.md",
         ROOT / "launch/README.md",
         *sorted((ROOT / "sftrl_jax").glob("*/README.md")), ROOT / "sftrl_jax/data/pairs/README.md",
         ROOT / "sftrl_jax/models/vision/README.md", ROOT / "sftrl_jax/programs/own_reward/README.md",
         ROOT / "sftrl_jax/programs/evaluate/README.md"]
MOST_LINES, WIDTH = 120, 120
HOUSE_WORDS = re.compile(r"\b(told|said|born|newborn|lies|whoever)\b", re.IGNORECASE)
# Files of a reader, and files that a run writes.
EXAMPLES = {"file.py", "FILE.py", "my_optimizer.py", "my_task.py"}
PATH = re.compile(r"(?<![\w/.@:<>-])([\w{},.-]+/)*[\w{},.-]+\.(?:py|sh|md|png|jsonl|json|toml)(?![\w/])")
FOLDER = re.compile(r"^(?:sftrl_jax|configs|launch|tests)/(?:[\w.-]+/)*$")
# What a workdir holds, by name.
WORKDIR_FILES = {"config.json", "metrics.jsonl", "evals.jsonl", "episodes.jsonl", "data.json", "own.json", "base.json",
                 "progress.json", "labels.json", "reference.json", "report.md", "weights.json",
                 "pairs.jsonl", "pairs.json", "tasks.jsonl", "VARIANT.jsonl", "reward_scale.json"}
# And a directory of Hugging Face.
HUB_FILES = {"preprocessor_config.json", "processor_config.json"}
ALONE = {"quickstart.sh", "test.sh", "smollm2.sh", "bases.sh"}   # scripts without --dry-run
REQUESTS = ("objective of `sftrl preference`", "reward model", "images in `Inputs`", "a verb", "a writer",
            "a second environment", "when evaluation happens", "an optimizer that is not in optax", "an MoE projection",
            "a metric")


def named(pages):
  return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
  """The fenced code blocks of a page in this language."""
  return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands():
  """((page, words of a command), ...) of all ```bash blocks; `&&` and line ends separate commands."""
  for page in PAGES:
    for block in blocks(page, "bash"):
      for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
          end = words.index("&&") if "&&" in words else len(words)
          yield page, tuple(words[:end])
          words = words[end + 1:]


COMMANDS = list(commands())
SFTRL = [words[1:] for _, words in COMMANDS if words[0] == "sftrl"]
SCRIPTS = [words for _, words in COMMANDS if any(word.startswith("./launch/") for word in words[:2])]


def exists(name, page):
  """Whether a path of a page exists: from the root, the page's folder or the package."""
  return any((home / name).exists() for home in (ROOT, page.parent, ROOT / "sftrl_jax"))


def unbraced(path):
  """a/{b,c}.py is a/b.py and a/c.py."""
  match = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
  return [f"{match[1]}{name}{match[3]}" for name in match[2].split(",")] if match else [path]


def paths(text):
  return [name for match in PATH.finditer(text) for name in unbraced(match[0])]


@dataclasses.dataclass(frozen=True)
class Addition:
  """One row of a table `| To add | Edit | New |`."""
  page: pathlib.Path
  name: str
  edit: tuple[str, ...]
  new: tuple[str, ...]


def additions():
  table = r"^\| To add \| Edit \| New \|\n\|---\|---\|---\|\n((?:\|.*\|\n?)+)"
  for page in PAGES:
    for rows in re.findall(table, page.read_text(), re.MULTILINE):
      for row in rows.splitlines():
        name, edit, new = (cell.strip() for cell in row[1:-1].split("|"))
        yield Addition(page, name, tuple(paths(edit)), tuple(paths(new)))


ADDITIONS = list(additions())


@named(PAGES)
def test_a_page_is_short_and_plain(page):
  lines = page.read_text().splitlines()
  assert len(lines) <= MOST_LINES
  for number, line in enumerate(lines, start=1):
    assert len(line) <= WIDTH, f"{page.name}, line {number}: {len(line)} characters"
    assert not HOUSE_WORDS.search(line), f"{page.name}, line {number}: {line}"


def test_the_readme_links_every_page():
  links = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()))
  assert {str(page.relative_to(ROOT)) for page in PAGES[1:]} <= links


@named(PAGES)
def test_every_path_of_a_page_exists(page):
  text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
  for link in re.findall(r"\]\(([^)]+)\)", text):
    assert (page.parent / link).exists(), f"{page}: there is no {link}"
  planned = {name for addition in ADDITIONS for name in addition.new}
  for quoted in re.findall(r"`([^`]+)`", text):
    names = [quoted] if FOLDER.match(quoted) else paths(quoted)
    for name in names:
      skipped = {name, name.rpartition("/")[2]} & {*WORKDIR_FILES, *HUB_FILES, *EXAMPLES, *planned} or "VERB" in name
      assert skipped or exists(name, page), f"{page}: there is no {name}"


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.name)
def test_an_addition_edits_at_most_three_files_that_exist(addition):
  assert len(addition.edit) <= 3
  for name in addition.edit:
    assert exists(name, addition.page), f"{addition.page}: there is no {name}"
  for name in addition.new:   # a row whose file has come is out of date
    assert not exists(name, addition.page), f"{addition.page}: {name} exists now"


def test_the_pages_name_the_files_of_ten_requests():
  for request in REQUESTS:
    rows = [addition for addition in ADDITIONS if request in addition.name]
    assert any(row.edit or row.new for row in rows), request


def imports_of(code):
  """(module, name) of every `from sftrl_jax... import name` in Python code, perhaps inside a shell script."""
  for module, names in re.findall(r"^ *from (sftrl_jax[\w.]*) import (.+)$", code, re.MULTILINE):
    yield from ((module, name.strip().split(" ")[0]) for name in names.split(","))


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "launch").glob("*.sh"))], ids=lambda path: path.name)
def test_python_outside_modules_compiles_and_imports_what_exists(path):
  text = path.read_text()
  codes = [*blocks(path, "python"), *re.findall(r"<<'PYTHON'.*?\n(.*?)^PYTHON$", text, re.MULTILINE | re.DOTALL)]
  for code in codes:
    ast.parse(code)
    for module, name in imports_of(code):
      imported = importlib.import_module(module)
      assert hasattr(imported, name) or importlib.util.find_spec(f"{module}.{name}"), f"{path}: {module} has no {name}"


def test_the_training_page_names_every_alarm():
  page = (ROOT / "sftrl_jax/training/README.md").read_text()
  assert all(f"`{name}`" in page for name in ALARMS)


def test_every_command_has_a_rule():
  """A page has no command but of these kinds; the tests below try each kind."""
  extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  scripts = "".join(path.read_text() for path in (ROOT / "launch").glob("*.sh"))
  for page, words in COMMANDS:
    if words[0] == "pip":
      asked = re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")
      assert words[:3] == ("pip", "install", "-e") and set(asked) <= set(extras), f"{page}: {words}"
    elif words[0] == "export":
      assert all(word.partition("=")[0] in scripts for word in words[1:]), f"{page}: {words}"
    else:
      assert words in SCRIPTS or words[0] == "sftrl", f"{page}: no test knows {' '.join(words)}"
  assert len(SFTRL) > 40 and len(SCRIPTS) > 12


@pytest.mark.parametrize("words", SFTRL, ids=" ".join)
def test_a_command_is_parsed_and_its_config_resolves(words, monkeypatch):
  monkeypatch.chdir(ROOT)
  if words == ("--help",):
    return
  command = scan(list(words))
  if "--config" not in command.flags or ("optimizer.name", "help") in command.overrides:
    return
  config = resolve.load(command.flags["--config"])
  verb = run_config.verb_of(config, command.overrides)
  assert command.verb in (verb, "check", "plan", "bench", "data", "evaluate"), f"{command.verb} of a config for {verb}"
  if verb == "study":
    study = resolve.resolve(config, command.overrides, study_config.SCHEMA).study
    resolve.build(study_config.StudyConfig, study, "config.study")
  else:
    run_config.resolve_for(verb, config, list(command.overrides), lambda _: None)


@pytest.fixture
def in_process(monkeypatch, tmp_path):
  """in_process(*words): a command on one device from the root, with runs/ in a temporary directory."""
  import jax

  from sftrl_jax.parallel import mesh
  make_mesh = mesh.make
  monkeypatch.setattr(mesh, "make", lambda config, devices=None: make_mesh(config, devices or jax.devices()[:1]))
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", *smoke.ENVIRONMENT):
    monkeypatch.setenv(name, os.environ.get(name, smoke.ENVIRONMENT.get(name, "")))
  monkeypatch.chdir(ROOT)

  def run(*words):
    moved = [re.sub(r"(^|=)(runs/|demonstrations)", rf"\g<1>{tmp_path}/\g<2>", word) for word in words]
    assert main(moved) == 0, " ".join(words)

  return run


def test_help_and_lists_print(in_process, capsys):
  cheap = [words for words in SFTRL if "--help" in words or words[0] == "configs"]
  for words in cheap:
    in_process(*words)
    assert len(capsys.readouterr().out.splitlines()) > 5
  assert len(cheap) >= 4


def test_toy_runs_reports_and_rows_are_made(in_process, tmp_path, capsys):
  # One of each verb: tests/programs/config/test_smoke.py runs every config.
  small = [words for words in SFTRL if words[0] in ("sft", "rl") and words[1].endswith(":smoke")]
  toys = [next(words for words in small if words[0] == verb) for verb in ("sft", "rl")]
  workdirs = [word.partition("=")[2] for words in toys for word in words if word.startswith("--workdir=")]
  for words in toys:
    in_process(*words, "--config.log.report=False", "--config.rollout.shrink=()", "--config.evals.temperatures=(0.0,)")
  metrics = {key for workdir in workdirs for line in (tmp_path / workdir / "metrics.jsonl").read_text().splitlines()
             for key in json.loads(line)}
  page = (ROOT / "sftrl_jax/training/README.md").read_text()
  for metric in metrics:
    group, _, name = metric.rpartition("/")
    assert f"`{metric}`" in page or (f"`{group}/" in page and f"`/{name}`" in page) or group == "alarm", metric
  in_process("report", *workdirs, "--out=runs/overlay")
  assert (tmp_path / "runs" / "overlay" / "report.html").is_file()
  data = next(words for words in SFTRL if words[0] == "data")
  in_process(*(word for word in data if not word.startswith("--count=")), "--count=8")
  assert len((tmp_path / "demonstrations.jsonl").read_text().splitlines()) == 8


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
  """launch/ and configs/ in a commit of their own: tpu_run.sh sends the last commit."""
  home = tmp_path_factory.mktemp("checkout")
  for name in ("launch", "configs"):
    shutil.copytree(ROOT / name, home / name)
  git = ("git", "-c", "user.name=t", "-c", "user.email=t@t")
  for words in (("git", "init", "-q"), ("git", "add", "."), (*git, "commit", "-qm", "all")):
    subprocess.run(words, cwd=home, check=True, capture_output=True)
  return home


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_a_script_exists_and_takes_its_words(words, checkout):
  place = next(index for index, word in enumerate(words) if word.startswith("./launch/"))
  script = checkout / words[place]
  assert script.is_file() and os.access(script, os.X_OK)
  inner = words[words.index("sftrl") + 1:] if "sftrl" in words else ()
  if inner:
    assert inner in SFTRL or scan(list(inner))
  if script.name in ALONE:
    subprocess.run(["bash", "-n", script], check=True)
    return
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(checkout)}
  environment |= dict(word.split("=", 1) for _, export in COMMANDS if export[0] == "export" for word in export[1:])
  environment |= dict(word.split("=", 1) for word in words[:place])
  done = subprocess.run([script, "--dry-run", *words[place + 1:]], cwd=checkout, env=environment, capture_output=True,
                        text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
  assert done.returncode == 0 and done.stdout, done.stderr


def test_the_quickstart_runs_a_study_that_exists(monkeypatch):
  monkeypatch.chdir(ROOT)
  words = re.search(r"-m sftrl_jax (study .*?) \"\$@\"", (ROOT / "launch/quickstart.sh").read_text())[1].split()
  command = scan(words)
  assert resolve.load(command.flags["--config"]).study.methods
