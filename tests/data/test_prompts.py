"""Prompts of a file as an environment: rows by seed, columns kept, prompts held out, bad rows named or counted."""

import json

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.data.prompts import Prompts, share_of
from sftrl_jax.envs.env import Env, thread_safe
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.environment import make_env, variant_env

USER = {"role": "user", "content": "2 + 2?"}
SYSTEM = {"role": "system", "content": "Be brief."}
REPLY = {"role": "assistant", "content": "4"}
ASKED, BRIEF = (Message("user", "2 + 2?"),), (Message("system", "Be brief."), Message("user", "2 + 2?"))


def write(path, *rows):
  path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
  return str(path)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
  """A file of 200 prompts, with a column besides."""
  rows = [{"prompt": f"What is {number} + 1?", "answer": str(number + 1), "level": number % 3} for number in range(200)]
  return write(tmp_path_factory.mktemp("prompts") / "many.jsonl", *rows)


@pytest.mark.parametrize("row, chat, answer, columns", [
    ({"prompt": "2 + 2?", "answer": "4"}, ASKED, "4", {"answer": "4"}),
    ({"prompt": "2 + 2?", "system": "Be brief."}, BRIEF, None, {"system": "Be brief."}),
    ({"prompt": [SYSTEM, USER], "completion": [REPLY], "answer": "5"}, BRIEF, "4",
     {"completion": [REPLY], "answer": "5"}),
    ({"prompt": [USER], "solution": "2 + 2 = 4", "answer": "4"}, ASKED, "2 + 2 = 4",
     {"solution": "2 + 2 = 4", "answer": "4"}),
    ({"messages": [SYSTEM, USER, REPLY]}, BRIEF, "4", {"messages": [SYSTEM, USER, REPLY]}),
    ({"messages": [USER]}, ASKED, None, {"messages": [USER]}),
    ({"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}, ASKED, "4", None),
    ({"chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "5"}]}, ASKED, "4", None),
    ({"prompt": "2 + 2?", "chosen": "4", "rejected": None, "rank": [1, {"a": None}]}, ASKED, "4",
     {"chosen": "4", "rank": [1, {"a": None}]})])
def test_a_row_of_every_form_is_one_prompt(tmp_path, row, chat, answer, columns):
  env = Prompts(path=write(tmp_path / "one.jsonl", row), held_out=0.0)
  state, asked = env.reset(3)
  assert asked == chat and env.columns(state) == (columns or row)
  if answer is None:
    with pytest.raises(ValueError, match=r"one\.jsonl, row 1 has no response to learn from: add a column completion"):
      env.expert(state)
  else:
    assert env.expert(state) == answer
  after, verdict = env.step(state, "four")
  assert verdict.reward is None and verdict.terminated and not verdict.success and verdict.code in env.codes
  with pytest.raises(ValueError, match="ended"):
    env.step(after, "four")


def test_an_episode_follows_from_its_seed_and_training_never_sees_what_is_held_out(many):
  env, again = Prompts(path=many, held_out=0.3), Prompts(path=many, held_out=0.3)
  assert isinstance(env, Env) and thread_safe(env) and env == again
  seeds = [f"0 {number}" for number in range(2000)]
  assert [env.reset(seed) for seed in seeds[:20]] == [again.reset(seed) for seed in seeds[:20]]
  seen = {variant: {Prompts(path=many, held_out=0.3, variant=variant).reset(seed)[1] for seed in seeds}
          for variant in ("train", "id", "held_out")}
  assert seen["train"] == seen["id"] and not seen["train"] & seen["held_out"]
  assert len(seen["train"] | seen["held_out"]) == 200 and 30 < len(seen["held_out"]) < 90
  assert all(share_of(chat) < 0.3 for chat in seen["held_out"])
  assert env.notes == (f"{many}: 200 prompts, of which {len(seen['held_out'])} are held out.",)


def test_parquet_keeps_every_column_and_gives_the_same_prompts(tmp_path, many):
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  rows = [json.loads(line) for line in open(many)]
  parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "many.parquet")
  here, there = Prompts(path=many), Prompts(path=str(tmp_path / "many.parquet"))
  for seed in range(5):
    (state, chat), (other, same) = here.reset(seed), there.reset(seed)
    assert chat == same and here.columns(state) == there.columns(other)


BAD = {
    "no prompt": ({"question": "2 + 2?"}, r"row 2: has the columns 'question', but needs `prompt`"),
    "a number": ({"prompt": 4}, r"row 2, column prompt: is a number, but should be text or a list of messages"),
    "nothing": ({"prompt": "  "}, r"row 2, column prompt: is empty, so there is nothing to answer"),
    "no messages": ({"prompt": []}, r"row 2, column prompt: is an empty list"),
    "a prefill": ({"prompt": [USER, REPLY]}, r"column prompt: ends with a message of the assistant, but a response"),
    "a role": ({"prompt": [{"role": "man", "content": "x"}]}, r"prompt\[0\]\.role: is 'man', but should be one of"),
    "a picture": ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, r"prompt\[0\].*only parts of type"),
    "a picture beside": ({"prompt": "x", "images": ["a.png"]}, r"row 2, column images: has pictures, but prompts are"),
    "half a letter": (b'{"prompt": "\\ud800"}', r"column prompt: has half a surrogate pair"),
    "tools": ({"prompt": "x", "tools": [{"name": "add"}]}, r"row 2: gives tools to the chat template for this row"),
    "no JSON": (b"{", r"row 2: the line is no JSON"),
}


@pytest.mark.parametrize("row, message", BAD.values(), ids=BAD)
def test_a_row_that_cannot_be_answered_is_named_or_counted(tmp_path, row, message):
  path = write(tmp_path / "bad.jsonl", {"prompt": "2 + 2?"}, row)
  with pytest.raises(ConfigError, match=message) as error:
    make_env({"name": "prompts", "path": path})
  assert "--config.env.on_bad_row=skip" in str(error.value)
  env = make_env({"name": "prompts", "path": path, "on_bad_row": "skip", "max_dropped": 0.5, "held_out": 0.0})
  assert env.reset(0)[1] == ASKED and "dropped: 1 " in env.notes[0] and "bad.jsonl:2" in env.notes[0]
  with pytest.raises(ConfigError, match=r"config\.env\.max_dropped is 0\.05, but 1 of 2 rows .*max_dropped=0\.5 or"):
    make_env({"name": "prompts", "path": path, "on_bad_row": "skip"})


def test_what_cannot_be_meant_is_told_with_its_key(tmp_path, many):
  for settings, message in (
      ({}, r"config\.env\.path is '', but prompts are read from a data set"),
      ({"path": str(tmp_path / "no.jsonl")}, r"config\.env\.path is '.*no\.jsonl', but there is no such file"),
      ({"path": write(tmp_path / "none.jsonl")}, r"config\.env\.path is .*but none of its 0 rows has a prompt"),
      ({"path": many, "held_out": 2.0}, r"config\.env\.held_out is 2\.0; it is a share"),
      ({"path": many, "held_out": 1.0}, r"config\.env\.held_out is 1, which leaves none of 200 .*to train on"),
      ({"path": many, "variant": "ood"}, r"config\.env\.variant is 'ood'; it must be one of train, id, held_out")):
    with pytest.raises(ConfigError, match=message):
      make_env({"name": "prompts", **settings})
  with pytest.raises(ConfigError, match=r"held_out is 0, which leaves none of 200 .*config\.evals\.variants"):
    variant_env({"name": "prompts", "path": many, "held_out": 0.0}, "held_out")
