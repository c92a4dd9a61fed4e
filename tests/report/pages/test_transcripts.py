import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import transcripts


def test_the_episode_with_the_most_contrast_is_chosen_and_counted(whole_study):
  trio = transcripts.choose(read_workdir.read_study(whole_study), "ppo")
  assert trio.seed == 2 and trio.episodes[0][1].step == 0 and trio.episodes[0][1].success
  assert [episode.success for _, episode in trio.episodes[1:]] == [False, True]
  assert (trio.right_only, trio.wrong_only, trio.logged) == (10, 0, 10)


def test_nothing_logged_gives_no_episode(make_study, tmp_path):
  make_study(tmp_path, bases=1, episodes=20)
  (tmp_path / "runs" / "base-0-sft-0" / "episodes.jsonl").unlink()
  assert transcripts.choose(read_workdir.read_study(tmp_path), "ppo") is None


def test_responses_carry_their_verdicts(whole_study):
  _, episode = transcripts.choose(read_workdir.read_study(whole_study), "ppo").episodes[1]
  assert [note for _, _, note in transcripts.turns(episode)] == ["", "misread, reward -0.2", ""]


def test_a_message_shows_the_picture_that_the_run_has_kept(tmp_path):
  """By its digest; what is no digest, or was not kept, is a message without a picture."""
  (tmp_path / "pictures").mkdir()
  (tmp_path / "pictures" / f"{'a' * 16}.png").write_bytes(b"x")
  images = (f"3x2 sha256:{'a' * 16}", f"3x2 sha256:{'b' * 16}", "3x2 sha256:../../../etc/passwd", 7)
  chat = [message for image in images for message in ({"role": "user", "text": "q", "image": image},
                                                      {"role": "assistant", "text": "r"})]
  (tmp_path / "episodes.jsonl").write_text(json.dumps({
      "step": 0, "kind": "eval", "variant": "id", "temperature": 0.0, "seed": 1, "chat": chat, "rewards": [1.0] * 4,
      "codes": ["correct"] * 4, "success": True}) + "\n")
  episode, = read_workdir.read_episodes(tmp_path)
  turns = transcripts.turns(episode)
  assert [len(turn) for turn in turns] == [4, 3, 3, 3, 3, 3, 3, 3]
  assert turns[0][3] == tmp_path / "pictures" / f"{'a' * 16}.png"
