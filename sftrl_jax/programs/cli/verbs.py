"""The table of verbs: purpose, arguments and function of each.

To add a verb, add an entry here, its function in commands.py, and the program that this calls in programs/. Neither of
these files imports JAX at module level, so that `sftrl --help` and a wrong argument answer at once.
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
  usage: the arguments after `sftrl VERB`, and a line for each flag that needs one; `sftrl VERB --help` prints it
  flags: the flags that take a value
  required: the flags that a command must have
  positionals: the least and the greatest number of them
  overrides: whether the verb takes --config.KEY=VALUE
  repeated: the flags that a command may have several times; their value is a list
  switches: flags without a value, besides those of every verb
  alone: switches with which a command needs nothing else
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
  alone: tuple[str, ...] = ()


RUN_FLAGS = ("--config", "--workdir")
PROCESS_FLAGS = ("--coordinator", "--processes", "--process")
RUN_USAGE = "--config=FILE.py[:choice][:smoke] --workdir=DIR [--config.some.key=value ...]"
STUDY_USAGE = f"""{RUN_USAGE}
  --list   prints the commands of its runs, one a line, and trains nothing: run them on several machines that see DIR,
           and then  sftrl report DIR
  --only=METHOD,...   trains the runs of these methods, or base, and what they need: a study in pieces. The same command
           without it, or with others, goes on; the report shows what there is"""
PROCESS_USAGE = """
  --coordinator=HOST:PORT --processes=N --process=I   one of N processes that train together; the first one listens
  at HOST:PORT. The same as SFTRL_COORDINATOR, SFTRL_PROCESSES, SFTRL_PROCESS. A TPU pod or GKE needs none of them"""
SAMPLE_USAGE = """FROM [--prompt=TEXT] [--image=FILE] [--in=ROWS.jsonl --out=ANSWERS.jsonl] [FLAGS] [--config.KEY=V ...]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, a .gguf file, or smollm2
  without --prompt and --in: a prompt that is piped in, or a conversation in a terminal
  rows of --in have `prompt` (a text) or `messages`; rows of --out repeat them and add response, finish (stop,
  stop_string or length), tokens (their number) and logprob (their sum); the same command adds the missing rows;
  `images` (paths) or `image` of a row stand where its messages have {"type": "image"}, else before its first text
  --on-bad-row=skip     leaves out rows that it cannot read (default: error)
  --rows=16             rows that are answered together
  --temperature=0.7     0 is greedy; with top-k and top-p, the model's generation_config.json has the default
  --top-k=0 --top-p=1   0 and 1: all tokens
  --stop=TEXT           ends a response and is left out of it; may be repeated
  --max-new-tokens=512  tokens of a response at most
  --seed=0              equal seeds and rows give equal answers
  --system=TEXT         the system message
  --image=FILE          a picture before the prompt, or before the first message of a conversation; may be repeated
  --dtype=float32       or bfloat16 (default: a run's own; else float32 on CPUs, bfloat16 on accelerators)
  --raw                 the prompt as it is, without the chat template"""
DATA_USAGE = """--config=FILE.py[:choice] --out=FILE.jsonl|.parquet [--variant=V --count=N] [--config.KEY=VALUE ...]
  --variant=V    of the task (default: the one of training)
  --count=1000   rows"""
PLAN_USAGE = """--config=FILE.py[:choice] [--topology=v5e-16] [FLAGS] [--config.some.key=value ...]
  --topology=v5e-16     a slice of v4, v5e (v5litepod), v5p or v6e by its name, 2xv5e-16 for two of them: compiled by
                        the TPU's own compiler, not run. local (the default): compiled and run on this machine
  --optimizer=a,b       the train step with each of these, a line each
  --only=train,score    only functions whose names begin so; those of a rollout compile longest
  --show=sharding       how every parameter is split
  --json=FILE           writes the plan into FILE
  --price=1.2           of a chip-hour, for the cost of the run
  --tries=6             changed settings to compile when the run does not fit
  --published           instead, and without --config: training runs on TPUs whose speed is published, predicted from
                        their configurations; half of them calibrate the prediction, the other half tests it"""
CHECK_USAGE = f"""--config=FILE.py[:choice][:smoke] [FLAGS] [--config.some.key=value ...]
  --plan=FILE    of `sftrl plan --json=FILE`, here or at gs://: compares the seconds and memory of steps with it
  --within=2     fails above this multiple of the plan; of a slice, the planned seconds are a bound
  --workdir=DIR  where its steps write, in a directory that it removes at the end (default: a temporary one here);
                 several hosts need one that they share, or gs://...{PROCESS_USAGE}"""
LABEL_USAGE = """FROM --out=PAIRS.jsonl [FLAGS] [--config.some.key=value ...]
  shows two responses to a prompt and asks which is better: 1, 2, t(ie), s(kip), u(ndo), q(uit); in a terminal, or by
  the lines of stdin. PAIRS.jsonl gets every pair at once; the same command goes on where it was left. Then
  sftrl preference --config=configs/preference/dpo.py --config.data.path=PAIRS.jsonl --workdir=DIR
  FROM is a .jsonl or .parquet file with `chosen` and `rejected`, or `prompt` and two `responses`; or a workdir[@step],
  a Hugging Face directory or id, a .gguf file, or smollm2, which answers each prompt twice
  --prompts=FILE.jsonl    prompts, as rows of `sftrl sample --in` (default: those of the task)
  --config=FILE.py        the task for a model without a run; FROM is then anything that config.start takes
  --count=20              questions, those of earlier sessions included (default of a file: all rows; 0: no end)
  --seed=0                of prompts, responses, and which response is shown as 1
  --temperature=1         of the responses
  --max-new-tokens=256    tokens of a response at most (default of a task: its config.rollout.max_new_tokens)"""
BENCH_USAGE = """--config=FILE.py[:choice][:smoke] [--against=hf|trl] [FLAGS] [--config.some.key=value ...]
  --against=hf      transformers and torch on the same shapes and weights, alternating with ours
  --against=trl     an iteration of TRL's GRPOTrainer on the same prompts, rewards and weights, or a step of its
                    SFTTrainer on the same examples, not packed; alternating with ours
  --only=KINDS      some of prefill,decode,sft,rl,rollout,iteration     --pairs=5  repetitions of each
  --mean-length=N   tokens of the scripted responses of `rollout` (default: a fifth of rollout.max_new_tokens)
  --sigma=0.9       of the logarithm of their lengths
  --longest=N       tokens of the longest of the ragged examples of `sft` (default: data.length)
  --out=DIR         writes DIR/bench.json"""
EVALUATE_USAGE = f"""FROM [--config=FILE.py[:choice]] [--workdir=DIR] [FLAGS] [--config.some.key=value ...]
  FROM is the workdir of a run, workdir@step, or workdir@best:VARIANT
  --config=FILE.py   the task, for a model without a run: FROM is then a Hugging Face directory or id, a .gguf file,
                     smollm2, base:NAME or scratch
  --workdir=DIR      for evals.jsonl (default: evaluate/STEP in the run's workdir, or runs/evaluate/NAME)
  --interpolate=0,0.25,0.5,0.75,1   evaluates weights between the start of a run (0) and FROM (1), and draws success
                     by share (default of --workdir: evaluate/STEP-interpolated)
  --weights          evaluates nothing: compares the weights of FROM with its start's, into weights.json of the run or
                     of --workdir, as a run of a small model does at its end
  --tasks=arc_easy,gsm8k   instead: tasks of lm-eval (pip install 'sftrl-jax[eval]'), into tasks.jsonl of --workdir;
                     FROM is then also any model of `sftrl sample`, without --config
    --limit=100      documents of a task, the first ones (default: all)
    --shots=5        examples before each question (default: the task's own number)
    --task_path=DIR  task files (YAML) of your own; Python functions that they name run
    --chat           prompts by the model's chat template
    --dtype=float32  or bfloat16, as of `sftrl sample`{PROCESS_USAGE}"""
CONVERT_USAGE = """FROM TO [--dtype=DTYPE] [--adapters]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, adapters of PEFT (DIR or DIR@BASE), a .gguf
  file, or smollm2
  TO is a new directory, or one that this verb wrote before, which it replaces
  --dtype=float32    or bfloat16 (default: that of the weights)
  --adapters         write the adapters of a run for PEFT, and not the model that they are merged into"""
REPORT_USAGE = """DIR [DIR ...] [--out=DIR] [--price=1.2]
  draws several directories over one another
  --price=1.2   dollars of a chip-hour: the forecast of a run or study says what its FLOPs cost"""
CONFIGS_USAGE = """[DIR]
  DIR holds config files (default: configs)"""

VERBS = {
    "study": Verb(
        commands.run_study, "train bases, compare methods on them, and report", STUDY_USAGE,
        flags=(*RUN_FLAGS, "--only"), required=RUN_FLAGS, switches=("--list",)),
    "sft": Verb(
        commands.run_training, "supervised fine-tuning, pre-training included", RUN_USAGE + PROCESS_USAGE,
        flags=(*RUN_FLAGS, *PROCESS_FLAGS), required=RUN_FLAGS),
    "rl": Verb(
        commands.run_training, "reinforcement learning by config.algorithm", RUN_USAGE + PROCESS_USAGE,
        flags=(*RUN_FLAGS, *PROCESS_FLAGS), required=RUN_FLAGS),
    "preference": Verb(
        commands.run_training, "learn from pairs of responses by config.objective: DPO, or a reward model",
        RUN_USAGE + PROCESS_USAGE, flags=(*RUN_FLAGS, *PROCESS_FLAGS), required=RUN_FLAGS),
    "check": Verb(
        commands.run_check, "test a task and the parts of a run before it spends hours; writes nothing",
        CHECK_USAGE, flags=("--config", "--plan", "--within", "--workdir", *PROCESS_FLAGS), required=("--config",)),
    "data": Verb(
        commands.run_data, "write demonstrations of a task as rows that TRL reads", DATA_USAGE,
        flags=("--config", "--out", "--variant", "--count"), required=("--config", "--out")),
    "evaluate": Verb(
        commands.run_evaluate, "measure success on every variant, or on tasks of lm-eval, of a checkpoint or a model",
        EVALUATE_USAGE, flags=("--config", "--workdir", "--interpolate", "--tasks", "--limit", "--shots", "--task_path",
                               "--dtype", *PROCESS_FLAGS),
        positionals=(1, 1), switches=("--weights", "--chat")),
    "sample": Verb(
        commands.run_sample, "get answers of a model: in a conversation, once, or for the rows of a file", SAMPLE_USAGE,
        flags=("--prompt", "--in", "--out", "--on-bad-row", "--rows", "--temperature", "--top-k", "--top-p", "--stop",
               "--max-new-tokens", "--seed", "--system", "--image", "--dtype"),
        positionals=(1, 1), repeated=("--stop", "--image"), switches=("--raw",)),
    "label": Verb(
        commands.run_label, "pick the better of two responses: pairs for preference", LABEL_USAGE,
        flags=("--out", "--config", "--prompts", "--count", "--seed", "--temperature", "--max-new-tokens"),
        required=("--out",), positionals=(1, 1)),
    "bench": Verb(
        commands.run_bench, "measure training and decoding against the machine's peak, torch and TRL",
        BENCH_USAGE, flags=("--config", "--against", "--out", "--only", "--pairs", "--mean-length", "--sigma",
                            "--longest"),
        required=("--config",)),
    "plan": Verb(
        commands.run_plan, "whether a run fits a TPU slice, how fast it can be there, and which settings help",
        PLAN_USAGE, flags=("--config", "--topology", "--optimizer", "--only", "--show", "--json", "--price", "--tries"),
        required=("--config",), switches=("--published",), alone=("--published",)),
    "convert": Verb(
        commands.run_convert, "write any model as a directory that transformers opens", CONVERT_USAGE,
        flags=("--dtype",), positionals=(2, 2), overrides=False, switches=("--adapters",)),
    "report": Verb(
        commands.run_report, "write tables and figures of runs or of a study", REPORT_USAGE,
        flags=("--out", "--price"), positionals=(1, 1000), overrides=False),
    "configs": Verb(
        commands.run_configs, "list every experiment: claim, hardware, minutes, command", CONFIGS_USAGE,
        positionals=(0, 1), overrides=False),
}
