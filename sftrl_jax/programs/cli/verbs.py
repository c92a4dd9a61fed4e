"""The table of verbs: what each is for, which words it takes, and the function that runs it.

To add a verb: an entry here, its function in commands.py, and what it calls in programs/. No JAX is imported: `sftrl
--help` and a wrong word answer at once.
"""

import dataclasses
from collections.abc import Callable

from sftrl_jax.programs.cli import commands
from sftrl_jax.programs.cli.commands import Command


@dataclasses.dataclass(frozen=True)
class Verb:
  """One verb of the command line.

  run: the function that runs a command of this verb
  meaning: one line of `sftrl --help`
  usage: the words after `sftrl VERB`, the first line of `sftrl VERB --help`, with what it says of its flags
  flags: that take a value
  required: the flags that must be given
  positionals: the least and the greatest number of them
  overrides: whether --config.KEY=VALUE is taken
  repeated: flags that may be given several times; their value is a list
  switches: flags without a value, besides those of every verb
  """

  run: Callable[[Command], None]
  meaning: str
  usage: str
  flags: tuple[str, ...] = ()
  required: tuple[str, ...] = ()
  positionals: tuple[int, int] = (0, 0)
  overrides: bool = True
  repeated: tuple[str, ...] = ()
  switches: tuple[str, ...] = ()


RUN_FLAGS = ("--config", "--workdir")
PROCESS_FLAGS = ("--coordinator", "--processes", "--process")
RUN_USAGE = "--config=FILE.py[:choice][:smoke] --workdir=DIR [--config.some.key=value ...]"
STUDY_USAGE = f"""{RUN_USAGE}
  --list   prints the commands of its runs, one a line, and trains nothing: run them on several machines that see DIR,
           and then  sftrl report DIR"""
PROCESS_USAGE = """
  --coordinator=HOST:PORT --processes=N --process=I   one of N processes that train together, of which the first is
  found there; the same as SFTRL_COORDINATOR, SFTRL_PROCESSES, SFTRL_PROCESS. A TPU pod or GKE needs none of them"""
SAMPLE_USAGE = """FROM [--prompt=TEXT] [--in=ROWS.jsonl --out=ANSWERS.jsonl] [FLAGS] [--config.some.key=value ...]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, a .gguf file, or smollm2
  without --prompt and --in: a prompt that is piped in, or a conversation in a terminal
  rows of --in have `prompt` (a text) or `messages`; those of --out repeat them and add response, finish (stop,
  stop_string or length), tokens (how many) and logprob (their sum); the same command goes on with the missing ones
  --on-bad-row=skip     leaves out rows that cannot be answered (default: error)
  --rows=16             rows that are answered together
  --temperature=0.7     0 is greedy; with top-k and top-p, the model's generation_config.json has the default
  --top-k=0 --top-p=1   0 and 1: all tokens
  --stop=TEXT           ends a response, and is left out of it; may be given several times
  --max-new-tokens=512  tokens of a response at most
  --seed=0              with the same seed and rows, the same answers
  --system=TEXT         the system message
  --dtype=float32       or bfloat16 (default: a run's own; else float32 on CPUs, bfloat16 on accelerators)
  --raw                 the prompt as it is, without the chat template"""
DATA_USAGE = """--config=FILE.py[:choice] --out=FILE.jsonl|.parquet [--variant=V --count=N] [--config.KEY=VALUE ...]
  --variant=V    of the task, instead of what it trains on
  --count=1000   rows"""
PLAN_USAGE = """--config=FILE.py[:choice] [--topology=v5e-16] [FLAGS] [--config.some.key=value ...]
  --topology=v5e-16     a slice of v4, v5e (v5litepod), v5p or v6e by its name, 2xv5e-16 for two of them: compiled by
                        the TPU's own compiler, nothing runs. local (the default): compiled and run on what is here
  --optimizer=a,b       the train step with each of these, a line each
  --only=train,score    only functions whose names begin so: a rollout's take the compiler longest
  --show=sharding       how every parameter is split
  --json=FILE           writes the plan there
  --price=1.2           of a chip-hour, for what the run costs
  --tries=6             knobs that are compiled when it does not fit"""
CHECK_USAGE = f"""--config=FILE.py[:choice][:smoke] [FLAGS] [--config.some.key=value ...]
  --plan=FILE    of `sftrl plan --json=FILE`, here or at gs://: steps are held against it, seconds and memory
  --within=2     times what was planned above which they are refused; of a slice, seconds are planned as a bound
  --workdir=DIR  where the steps write meanwhile, into a directory that is removed (default: a temporary one here);
                 several hosts need one that they share, or gs://...{PROCESS_USAGE}"""
BENCH_USAGE = """--config=FILE.py[:choice][:smoke] [--against=hf] [--out=DIR] [--config.some.key=value ...]
  --against=hf  transformers and torch on the same shapes and weights, in turns with ours
  --only=KINDS  some of prefill,decode,sft,rl     --pairs=5  repetitions of each
  --out=DIR     writes bench.json there"""
EVALUATE_USAGE = f"""FROM [--config=FILE.py[:choice]] [--workdir=DIR] [--config.some.key=value ...]
  FROM is the workdir of a run, workdir@step, or workdir@best:VARIANT
  --config=FILE.py   the task, for a model without a run: FROM is then a Hugging Face directory or id, a .gguf file,
                     smollm2, base:NAME or scratch
  --workdir=DIR      where evals.jsonl goes (default: evaluate/STEP in the run's workdir, or
                     runs/evaluate/NAME){PROCESS_USAGE}"""
CONVERT_USAGE = """FROM TO [--dtype=DTYPE]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, a .gguf file, or smollm2
  TO is a new directory, or an earlier one of these, which is replaced
  --dtype=float32    or bfloat16 (default: as the weights are)"""
REPORT_USAGE = """DIR [DIR ...] [--out=DIR]
  several directories are drawn over one another"""
CONFIGS_USAGE = """[DIR]
  DIR holds config files; configs if left out"""

VERBS = {
    "study": Verb(
        commands.run_study, "train bases and compare methods on them, then report", STUDY_USAGE,
        flags=RUN_FLAGS, required=RUN_FLAGS, switches=("--list",)),
    "sft": Verb(
        commands.run_training, "supervised fine-tuning, pre-training included", RUN_USAGE + PROCESS_USAGE,
        flags=(*RUN_FLAGS, *PROCESS_FLAGS), required=RUN_FLAGS),
    "rl": Verb(
        commands.run_training, "reinforcement learning by config.algorithm", RUN_USAGE + PROCESS_USAGE,
        flags=(*RUN_FLAGS, *PROCESS_FLAGS), required=RUN_FLAGS),
    "check": Verb(
        commands.run_check, "whether a task and a run's parts agree, before hours are spent; writes nothing",
        CHECK_USAGE, flags=("--config", "--plan", "--within", "--workdir", *PROCESS_FLAGS), required=("--config",)),
    "data": Verb(
        commands.run_data, "write demonstrations of a task as rows that TRL reads", DATA_USAGE,
        flags=("--config", "--out", "--variant", "--count"), required=("--config", "--out")),
    "evaluate": Verb(
        commands.run_evaluate, "success of a checkpoint, or of a model without a run, on every variant", EVALUATE_USAGE,
        flags=("--config", "--workdir", *PROCESS_FLAGS), positionals=(1, 1)),
    "sample": Verb(
        commands.run_sample, "a model answers: in a conversation, once, or row by row of a file", SAMPLE_USAGE,
        flags=("--prompt", "--in", "--out", "--on-bad-row", "--rows", "--temperature", "--top-k", "--top-p", "--stop",
               "--max-new-tokens", "--seed", "--system", "--dtype"),
        positionals=(1, 1), repeated=("--stop",), switches=("--raw",)),
    "bench": Verb(
        commands.run_bench, "speed of training and decoding against the machine's peak, and against torch",
        BENCH_USAGE, flags=("--config", "--against", "--out", "--only", "--pairs"), required=("--config",)),
    "plan": Verb(
        commands.run_plan, "whether a run fits a slice, how fast it can be there, what to turn: before renting it",
        PLAN_USAGE, flags=("--config", "--topology", "--optimizer", "--only", "--show", "--json", "--price", "--tries"),
        required=("--config",)),
    "convert": Verb(
        commands.run_convert, "a model from anywhere as a directory that transformers opens", CONVERT_USAGE,
        flags=("--dtype",), positionals=(2, 2), overrides=False),
    "report": Verb(
        commands.run_report, "tables and figures of runs or of a study", REPORT_USAGE,
        flags=("--out",), positionals=(1, 1000), overrides=False),
    "configs": Verb(
        commands.run_configs, "every experiment there is: claim, hardware, minutes, command", CONFIGS_USAGE,
        positionals=(0, 1), overrides=False),
}
