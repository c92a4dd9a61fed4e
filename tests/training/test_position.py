"""Counting steps, and when something is due."""

import dataclasses
import json

from sftrl_jax.training.position import Limits, Position, due, due_at


def steps(count, flops=1.0):
  """Positions 0 .. count, each `flops` further."""
  at = [Position()]
  for _ in range(count):
    at.append(at[-1].ahead(at[-1].cursor + 3, 5, 0.5, train=flops / 2, rollout=flops / 4, score=flops / 4))
  return at


def test_a_step_adds_up():
  last = steps(4)[-1]
  assert last == Position(4, 12, 20, 2.0, 2.0, 1.0, 1.0) and last.total_flops == 4.0
  assert Position(**dataclasses.asdict(last)) == last
  assert last.log() == {"step": 4, "tokens": 20, "seconds": 2.0, "compute/train_flops": 2.0,
                        "compute/rollout_flops": 1.0, "compute/score_flops": 1.0, "compute/total_flops": 4.0}


def test_tokens_of_the_papers_formula_add_up_beside_the_flops():
  at = Position()
  for step in range(1, 4):
    at = at.ahead(0, 5, 0.5, train=1.0).with_tokens(10 * step, 0.5 * step)
  assert (at.read_tokens, at.buffer_tokens) == (60, 3.0) and at.total_flops == 3.0
  assert Position(**dataclasses.asdict(at)) == at


def test_a_run_ends_at_its_steps_or_at_the_first_step_that_has_spent_its_flops():
  at = steps(10)
  assert [p.step for p in at if not Limits(4).over(p)] == [0, 1, 2, 3]
  assert [p.step for p in at if not Limits(8, 2.5).over(p)] == [0, 1, 2]
  assert [p.step for p in at if not Limits(2, 9.0).over(p)] == [0, 1]
  assert [Limits(4).done(p) for p in at[:6]] == [0, 0.25, 0.5, 0.75, 1, 1]
  assert [Limits(100, 4.0).done(p) for p in at[:6]] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_due_every_so_many_steps_and_at_the_end():
  at = steps(7)[1:]
  assert [p.step for p in at if due(3, p, Limits(7))] == [3, 6, 7]
  assert [p.step for p in at if due(0, p, Limits(7))] == [7]
  assert [p.step for p in at if due(0, p, Limits(100, 5.5))] == [6, 7]


def crossed(shares, at, limits):
  return [after.step for before, after in zip(at, at[1:], strict=False) if due_at(shares, before, after, limits)]


def test_shares_of_a_run_are_crossed_once_each_and_the_end_always():
  assert crossed((0.2, 0.4, 0.6, 0.8), steps(100), Limits(100)) == [20, 40, 60, 80, 100]
  assert crossed((0.05, 0.1, 0.5), steps(7), Limits(7)) == [1, 4, 7]
  assert crossed((1 / 3, 2 / 3), steps(3), Limits(3)) == [1, 2, 3]
  assert crossed((), steps(10), Limits(10)) == [10]


def test_shares_follow_the_budget_where_it_ends_the_run():
  assert crossed((0.25, 0.5, 0.75), steps(8), Limits(1000, 8.0)) == [2, 4, 6, 8]


def test_counts_of_episodes_are_kept_and_written_where_there_are_any():
  begun = Position().ahead(4, 0, 0.0, train=1.0)
  assert begun.counts == {} and begun.log().keys() == Position().log().keys()
  after = begun.ahead(8, 0, 0.0, train=1.0, counts={"dropped/env": 2})
  assert after.log()["dropped/env"] == 2 and after.ahead(9, 0, 0.0, train=1.0).counts == {"dropped/env": 2}
  assert Position(**json.loads(json.dumps(dataclasses.asdict(after)))) == after
