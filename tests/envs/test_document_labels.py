"""Classification of documents: the label counts, and topic and label are told apart."""

from sftrl_jax.envs import texts
from sftrl_jax.envs.document_labels import DocumentLabels

ENV = DocumentLabels()


def test_the_right_topic_has_most_words_and_the_careless_one_the_second_most():
  for variant in ("id", "length_ood"):
    env = DocumentLabels(variant=variant)
    for seed in range(100):
      state, _ = env.reset(seed)
      counts = {topic: sum(word in texts.TOPICS[topic] for word in state.text.words) for topic in texts.TOPICS}
      first, second, *_ = sorted(counts, key=counts.get, reverse=True)
      assert env.expert(state).split()[1] == first and env.careless(state, 0).split()[1] == second
      assert counts[first] > counts[second] + 1


def test_topic_and_label_are_judged_apart():
  for seed in range(50):
    state, _ = ENV.reset(seed)
    labels, right = dict(state.text.options), state.text.ranked[0]
    wrong = next(topic for topic in labels if topic != right)
    codes = {(topic, named): ENV.step(state, f"TOPIC {topic} LABEL {labels[named]}")[1]
             for topic in (right, wrong) for named in (right, wrong)}
    assert {key: verdict.code for key, verdict in codes.items()} == {
        (right, right): "correct", (right, wrong): "label", (wrong, right): "correct", (wrong, wrong): "topic"}
    assert {key: tuple(verdict.parts.values()) for key, verdict in codes.items()} == {
        (right, right): (True, True), (right, wrong): (True, False), (wrong, right): (False, False),
        (wrong, wrong): (False, True)}
    absent = next(label for label in (*texts.LABELS, *texts.NAMES) if label not in labels.values())
    assert ENV.step(state, f"TOPIC {right} LABEL {absent}")[1].code == "illegal"


def test_a_policy_that_knows_the_usual_labels_fails_under_others():
  trained, shifted = DocumentLabels(variant="id"), DocumentLabels(variant="label_ood")
  for seed in range(50):
    assert shifted.step(shifted.reset(seed)[0], trained.expert(trained.reset(seed)[0]))[1].code == "illegal"
