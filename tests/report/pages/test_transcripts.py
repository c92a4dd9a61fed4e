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
