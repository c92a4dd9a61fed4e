"""Our decoder answers lm-eval as lm-eval's own Hugging Face backend does, on the same files."""

import dataclasses

import jax
import pytest

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.evaluate.open_decoder import open_decoder
from sftrl_jax.programs.harness.decoder import Decoder, on_mesh

NEEDS = "tasks need the extra `eval`: pip install -e '.[test,eval]'"
pytest.importorskip("lm_eval", reason=NEEDS)
pytest.importorskip("torch", reason="lm-eval's own backend, which ours is compared with, needs torch")
pytest.importorskip("accelerate", reason=NEEDS)

CHAT = [{"role": "system", "content": "Say little."}, {"role": "user", "content": "The capital?"}]
LONG = "What is the capital? The capital is it. " * 9   # more than the context


def instances(kind, *arguments):
  from lm_eval.api.instance import Instance
  return [Instance(kind, {}, tuple(each), number, ("a task", number, 1)) for number, each in enumerate(arguments)]


@pytest.fixture(scope="module", params=[False, True], ids=["as it is", "begins with an id"])
def both(request, tiny_home):
  """(our decoder, lm-eval's Hugging Face backend) of the same files."""
  from lm_eval.models.huggingface import HFLM

  from sftrl_jax.programs.harness.decoder_lm import DecoderLM
  home = str(tiny_home(request.param))
  opened = open_decoder(home, [])
  with on_mesh(opened.decoder):
    yield DecoderLM(opened.decoder, opened.load()[0]), HFLM(home, device="cpu", dtype="float32", batch_size=3)


def test_what_both_say_of_themselves(both):
  ours, theirs = both
  for name in ("max_length", "eot_token_id", "prefix_token_id"):
    assert getattr(ours, name) == getattr(theirs, name), name
  assert ours.chat_template(True) == theirs.chat_template(True)
  assert "/" not in ours.tokenizer_name and ours.tokenizer_name


def test_texts_are_the_same_ids(both):
  ours, theirs = both
  for text in ("", "a b", " The capital", "<|begin|>The", "x<|end|>y", "日本\n\n", LONG):
    for added in (None, True, False):
      assert ours.tok_encode(text, add_special_tokens=added) == theirs.tok_encode(text, add_special_tokens=added)


def test_log_likelihoods_are_the_same(both):
  """Blanks at a seam, no context, a text of one token, contexts that are cut, answers that share all but the end."""
  ours, theirs = both
  pairs = [("The capital of France is", " Paris"), ("The capital of France is ", "Paris"), ("", "on and on"),
           ("The capital of France is", " it"), ("on", "on"), (LONG, " it"), (LONG, LONG[:60]), ("日", "本"),
           ("<|begin|>3 +", " 4 = 7\n")]
  expected = theirs.loglikelihood(instances("loglikelihood", *pairs), disable_tqdm=True)
  answers = ours.loglikelihood(instances("loglikelihood", *pairs))
  for (logprob, greedy), (their_logprob, their_greedy) in zip(answers, expected, strict=True):
    assert logprob == pytest.approx(their_logprob, abs=1e-4) and greedy == their_greedy


def test_whole_texts_are_scored_in_the_same_windows(both):
  ours, theirs = both
  texts = [("on",), (LONG,), ("The capital of France is Paris.\n" * 2,)]
  expected = theirs.loglikelihood_rolling(instances("loglikelihood_rolling", *texts), disable_tqdm=True)
  answers = ours.loglikelihood_rolling(instances("loglikelihood_rolling", *texts))
  assert len(ours.tok_encode(LONG)) > 2 * ours.max_length
  assert answers == pytest.approx(expected, abs=1e-3)


def test_greedy_texts_are_the_same(both):
  """To a stop text, also inside a token; to the end of text; cut at the longest; behind contexts that are cut."""
  ours, theirs = both
  free = {"until": ["never written"], "max_gen_toks": 20}
  contexts = ["The capital of France is", "3 + 4", LONG, "日本", "and so on, ", "What"]
  texts = theirs.generate_until(instances("generate_until", *((text, free) for text in contexts)), disable_tqdm=True)
  stops = sorted({text[len(text) // 2:][:2] for text in texts if len(text) > 4})   # that stand within what is written
  assert len(stops) > 2
  asked = [{"until": stops[:1], "max_gen_toks": 20}, {"until": stops, "max_gen_toks": 7}, free,
           {"until": stops[1], "max_new_tokens": 20, "do_sample": False, "temperature": 0.0}, {"max_gen_toks": 5}]
  requests = [(text, {**each}) for each in asked for text in contexts]
  expected = theirs.generate_until(instances("generate_until", *requests), disable_tqdm=True)
  answers = ours.generate_until(instances("generate_until", *requests))
  assert answers == expected and len(set(answers)) > 5


def test_chats_are_the_same_texts(both):
  ours, theirs = both
  for chat, prompts in ((CHAT, True), (CHAT[1:], True), ([*CHAT, {"role": "assistant", "content": "It is"}], False)):
    assert ours.apply_chat_template(chat, prompts) == theirs.apply_chat_template(chat, prompts)


def test_sampled_texts_are_sampled(both):
  ours, _ = both
  asked = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "top_k": 40}
  sampled = ours.generate_until(instances("generate_until", *[("on", asked)] * 6))
  assert len(set(sampled)) > 3
  assert sampled == ours.generate_until(instances("generate_until", *[("on", asked)] * 6))


def test_rows_that_several_devices_share_get_the_same_answers(tiny_home):
  from sftrl_jax.parallel import rules
  from sftrl_jax.programs.harness.decoder_lm import DecoderLM
  opened = open_decoder(str(tiny_home()), [])
  alone = opened.decoder
  mesh = meshes.make(meshes.MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])
  pairs = instances("loglikelihood", ("The capital", " is it"), (LONG, "on"), ("3 + 4 =", " 7"))
  asked = {"until": ["\n"], "max_gen_toks": 10}
  prompts = instances("generate_until", *((text, asked) for text in ("The", LONG, "3 +")))
  with on_mesh(alone):
    params = opened.load()[0]
    one_device = DecoderLM(alone, params)
    expected = one_device.loglikelihood(pairs), one_device.generate_until(prompts)
  shared = dataclasses.replace(alone, mesh=mesh)
  with on_mesh(shared):
    split = DecoderLM(shared, jax.device_put(params, rules.shardings({"model": params}, mesh)["model"]))
    answers, texts = split.loglikelihood(pairs), split.generate_until(prompts)
  assert [greedy for _, greedy in answers] == [greedy for _, greedy in expected[0]]
  assert [logprob for logprob, _ in answers] == pytest.approx([logprob for logprob, _ in expected[0]], abs=1e-4)
  assert texts == expected[1]


def test_a_request_that_does_not_fit_is_refused(both):
  ours, _ = both
  with pytest.raises(ValueError, match="at most 48 to be scored"):
    ours.loglikelihood(instances("loglikelihood", ("on", LONG)))


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_a_tokenizer_of_our_own_begins_a_text_and_ends_it(kind, one_device):
  from sftrl_jax.models import DecoderConfig, build
  from sftrl_jax.programs.harness.decoder_lm import DecoderLM
  from sftrl_jax.text import tokenizer as tokenizers
  own = tokenizers.byte() if kind == "bytes" else tokenizers.words(("a", "b", "c"))
  model = build(DecoderConfig(vocab=own.size, width=16, layers=1, heads=2, init_std=0.5))
  decoder = Decoder(model, own, meshes.make(meshes.MeshConfig()))
  with on_mesh(decoder):
    params = jax.jit(model.init)(jax.random.key(0))
    ours = DecoderLM(decoder, params)
    assert ours.tok_encode("a b") == [own.bos, *own.encode("a b")] and ours.prefix_token_id == own.bos
    (joint, _), (first, _), (last, _) = ours.loglikelihood(instances(
        "loglikelihood", ("", "a b" if kind == "words" else "ab"), ("", "a"),
        ("a", " b" if kind == "words" else "b")))
    assert joint == pytest.approx(first + last, abs=1e-4)
    text, = ours.generate_until(instances("generate_until", ("a", {"until": [], "max_gen_toks": 6})))
    assert isinstance(text, str) and not set(text.split(" ")) & {"<bos>", "<pad>", "<eos>"}
