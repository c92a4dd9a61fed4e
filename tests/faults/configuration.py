"""C: what a command or a config says."""

from campaign import Command
from inputs import QUIET, chat, play, rl, sft, talks, tiny


def C1(case):
  return rl("ppo.gama=1")


def C2(case):
  return sft("learing_rate=1e-3")


def C3(case):
  return rl("algorithm=grpo", "ppo.clip=0.1")


def C4(case):
  return rl("ppo.gamma=high")


def C5(case):
  return sft("optimizer.learning_rate=nan")


def C6(case):
  return rl("ppo.gamma=1.5")


def C7(case):
  return sft("optimizer.args.b2=1.5")


def C8(case):
  return rl("ppo.minibatches=7")


def C9(case):
  return sft("mesh.data=64")


def C10(case):
  return sft("steps=1e12")


def C11(case):
  return sft("model.heads=7")


def C12(case):
  (case.home / "wrong.py").write_text("def get_config(:\n")
  return sft(config="wrong.py")


def C13(case):
  (case.home / "exits.py").write_text("def get_config():\n  raise SystemExit(0)\n")
  return sft(config="exits.py")


def C14(case):
  return ["tarin", "--config=configs/general_points/sft.py"]


def C15(case):
  return sft("--batch=3")


def C16(case):
  tiny(case.home / "tiny")
  return ["sample", "tiny", "--prompt=hi", "--top-p=1.5"]


def C17(case):
  return Command(tuple(sft()), environment=(("JAX_PLATFORMS", "cuda"),), fresh=True)


def C18(case):
  case.run(*sft())
  return sft("seed=5")


def C19(case):
  (case.home / "file").write_text("mine")
  return sft(workdir="file/in/it")


def C20(case):
  return sft("model.width=200000", "model.layers=80")


def C21(case):
  """The rate falls with the budget, whose end comes long before the steps'."""
  yield sft("flops=4e8", "steps=100000", "schedule.name=cosine", "checkpoint.every=1000")
  rates = [line["learning_rate"] for line in case.lines()]
  assert len(rates) < 1000 and rates[-1] < rates[2] / 2, f"{len(rates)} steps, rates {rates[2]} to {rates[-1]}"


def C22(case):
  case.run(*sft("schedule.name=cosine"))
  yield sft("schedule.name=cosine", "steps=6")
  assert len(case.lines()) == 6


def C23(case):
  return sft("schedule.warmup=500")


def C24(case):
  yield chat(case, talks(), "model.dtype=bfloat16")
  assert all(line["loss"] > 0 for line in case.lines())


def C25(case):
  return ["study", "--config=configs/study/general_points_cpu.py", "--workdir=study", "--config.study.bases=0"]


def C26(case):
  return ["plan", "--config=configs/general_points/sft.py", "--topology=v9-16"]


def C27(case):
  return ["rl", "--config=configs/general_points/ppo.py:smoke", *QUIET]


def C28(case):
  return play(case, "grpo.group=1")


def C29(case):
  return ["report", "nowhere"]
