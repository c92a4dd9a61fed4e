"""Episodes by hand, whose ids tell their values, for what lays them into rows."""

from sftrl_jax.envs.env import Verdict
from sftrl_jax.rollout.episodes import Episode, Response, Turn


def turn(context, tokens, reward, anew=False):
  return Turn(Response("", tuple(context), tuple(tokens), (-1.0,) * len(tokens), begins_row=anew),
              Verdict(reward, False, False, False, False, "", None, "value"))


# Values below are a hundredth of the id that was read last, so every state's value can be told from the ids.
EPISODES = (Episode(0, (turn([1, 40], [10, 20], -0.5), turn([30], [50], 1.0)), (), False),
            Episode(1, (turn([1, 60], [70, 80, 90], -0.2),), (), True))

# Chats of one episode as rows: (context, tokens, reward, whether a chat begins). Episode 1 goes on after its last turn.
CHATS = (Episode(0, (turn([1, 40], [10, 20], -0.5), turn([30], [50], 1.0), turn([1, 45], [15, 25], 0.3, True)), (),
                 False),
         Episode(1, (turn([1, 60], [70], -0.2), turn([1, 35], [80, 90], 0.7, True), turn([1, 5], [2], -0.4, True)), (),
                 True),
         Episode(2, (turn([1, 65], [75, 85, 95], 0.4),), (), False),
         Episode(3, (), (), False))
ENDS = ((), (2, 55), (), ())   # ids that are read after the last response
