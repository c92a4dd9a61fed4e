"""A tokenizer of transformers behind the surface of ours."""

import json
import random
import sys

import pytest

from sftrl_jax.text import pretrained
from sftrl_jax.text.pretrained import Pretrained, configured

FAMILIES = ("smollm2", "llama3", "qwen3", "gemma")
kinds = pytest.mark.parametrize("kind", ["bytes", "blank"])


@kinds
def test_texts_are_encoded_as_transformers_does_and_nothing_is_added(make, hf, kind):
  tokenizer = make("smollm2", kind)
  for text in ("", "The cards are 2", " think  about\n\n24 ", "<think>\nx\n</think>", "Ünïcode 日本"):
    assert tokenizer.encode(text) == hf("smollm2", kind)(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.plain(text) == hf("smollm2", kind)(text)["input_ids"]
  assert tokenizer.bos == 1


def test_bytes_round_trip_any_text_and_any_ids_are_some_text(make):
  tokenizer, source = make("smollm2"), random.Random(0)
  for _ in range(50):
    text = "".join(source.choices("aé日🂡\n\t <|im_end|> 24", k=12)) + "<|im_end|></s>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert isinstance(tokenizer.decode([source.randrange(tokenizer.size) for _ in range(12)]), str)
  assert "\ufffd" in tokenizer.decode(tokenizer.encode("🂡")[:-1]) and tokenizer.decode([]) == ""
  assert tokenizer.decode([tokenizer.eos]) == "<|im_end|>"


@pytest.mark.parametrize("beyond", [lambda size: size, lambda size: -1, lambda size: 10**9])
def test_ids_beyond_the_vocabulary_are_refused(make, beyond):
  tokenizer = make("smollm2")
  with pytest.raises(ValueError, match=f"none of .*, which has {tokenizer.size}"):
    tokenizer.decode([3, beyond(tokenizer.size)])


def test_a_chat_begins_once(make, talk):
  """Templates that write the beginning, and a tokenizer that would add it too."""
  for family in ("llama3", "gemma", "mistral"):
    (ids, _), = make(family).chats([talk("a", "b", "c")])
    assert ids[0] == make(family).bos and ids.count(make(family).bos) == 1
  (ids, _), = make("smollm2").chats([talk("a", "b", "c")])
  assert make("smollm2").bos not in ids


def test_ends_and_padding(make, hf):
  assert make("smollm2").stops == (make("smollm2").eos,) and make("smollm2").pad == make("smollm2").eos
  gemma = make("gemma")   # its turns end in <end_of_turn>, and texts in </s>
  assert gemma.stops == (gemma.eos, hf("gemma").eos_token_id) and gemma.eos != hf("gemma").eos_token_id
  assert Pretrained.of(hf("gemma"), stops=(0, gemma.eos)).stops == (gemma.eos, 0, hf("gemma").eos_token_id)
  with pytest.raises(ValueError, match="end responses at id 9999"):
    Pretrained.of(hf("gemma"), stops=(9999,))


def test_an_end_that_is_an_ordinary_added_token_cannot_be_spelled(hf, talk):
  tokenizer = Pretrained.of(hf("smollm2"), stops=(hf("smollm2").convert_tokens_to_ids("</think>"),))
  (ids, _), = tokenizer.chats([talk("</think>", "b")])
  assert tokenizer.stops[1] not in [*ids, *tokenizer.encode("</think>")]
  assert Pretrained.of(hf("smollm2")).encode("</think>") == [tokenizer.stops[1]]


def test_a_normalizer_does_not_touch_control_tokens(talk):
  from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
  from transformers import PreTrainedTokenizerFast
  names = ["[unk]", "[end]", "user", "assistant", "red", "cafe"]
  backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[unk]"))
  backend.normalizer = normalizers.Sequence([   # nothing that cannot be seen, no accents, no capitals
      normalizers.Replace(Regex(r"\p{C}"), ""), normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens([AddedToken(name, special=True, normalized=True) for name in names[:2]])
  source = "{% for m in messages %}{{ m.role + ' ' + m.content + ' [end] ' }}{% endfor %}"
  hf = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[unk]", eos_token="[end]", chat_template=source)
  (ids, written), = Pretrained.of(hf).chats([talk("Café 1", "RED")])
  assert ids == hf.apply_chat_template([{"role": "user", "content": "Café 1"}, {"role": "assistant", "content": "RED"}],
                                       return_dict=False) == [2, 5, 0, 1, 3, 4, 1]
  assert written == [False] * 4 + [True] * 3   # nothing asks for the assistant's name


@kinds
def test_what_is_saved_is_what_is_loaded(make, talk, tmp_path, kind):
  chat = talk("The cards", "24", "why", "It is", "so")
  for family in FAMILIES:
    tokenizer, home = make(family, kind), tmp_path / family
    tokenizer.save(home)
    again = pretrained.load(home)
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert again.chats([chat]) == tokenizer.chats([chat]) and again.stops == tokenizer.stops
  assert len({make(family, kind) for family in FAMILIES}) == len(FAMILIES)


def test_a_directory_reads_as_AutoTokenizer_reads_it(make, tmp_path):
  from transformers import AutoTokenizer
  make("qwen3").save(tmp_path)
  assert Pretrained.of(AutoTokenizer.from_pretrained(str(tmp_path))) == pretrained.load(tmp_path) == make("qwen3")
  path = tmp_path / "tokenizer_config.json"   # as older files have it
  path.write_text(path.read_text().replace("TokenizersBackend", "Qwen2Tokenizer"))
  assert pretrained.load(tmp_path).hf.__class__ == AutoTokenizer.from_pretrained(str(tmp_path)).__class__


def test_end_ids_come_from_generation_config(make, tmp_path):
  make("llama3").save(tmp_path)
  path = tmp_path / "generation_config.json"
  assert json.loads(path.read_text())["eos_token_id"] == [make("llama3").eos]
  for given, stops in (([7, 2], (7, 2)), (2, (7, 2)), (None, (7,))):
    path.write_text(json.dumps({"eos_token_id": given}))
    assert pretrained.load(tmp_path).stops == stops
  make("llama3").save(tmp_path)   # what is there stays
  assert json.loads(path.read_text()) == {"eos_token_id": None}
  path.write_text("[")
  with pytest.raises(ValueError, match="generation_config.json cannot be read"):
    pretrained.load(tmp_path)


def test_a_tokenizer_without_a_template_has_texts_and_no_chats(hf, make, talk):
  tokenizer = make("none")
  assert tokenizer.eos == hf("none").eos_token_id and tokenizer.encode("24") == make("smollm2").encode("24")
  answer, = tokenizer.chats([talk("a")])
  assert "has no chat template" in str(answer) and "chat_template.jinja" in str(answer)


def test_a_directory_without_a_tokenizer_is_told(tmp_path):
  with pytest.raises(ValueError, match="is no directory"):
    pretrained.load(tmp_path / "missing")
  with pytest.raises(ValueError, match="cannot be read"):
    pretrained.load(tmp_path)


def test_half_a_surrogate_pair_is_no_text(make):
  with pytest.raises(ValueError, match="half a surrogate pair"):
    make("smollm2").encode("a\udc00")


@pytest.mark.parametrize("missing", ["transformers", "jinja2"])
def test_what_is_not_installed_is_told(make, talk, tmp_path, monkeypatch, missing):
  make("llama3").save(tmp_path)
  monkeypatch.setitem(sys.modules, missing, None)   # as Python itself does for what it could not import
  with pytest.raises(ImportError, match=r"pip install 'sftrl-jax\[hf\]'"):
    pretrained.load(tmp_path)


def test_tokens_that_the_assistant_may_write_are_tokens_in_what_it_says_only(hf, talk):
  """Special tokens that a template looks for inside a message, such as <think>."""
  from tokenizers import Tokenizer
  from transformers import PreTrainedTokenizerFast
  spec, names = json.loads(hf("qwen3").backend_tokenizer.to_str()), ["<think>", "</think>"]
  spec["added_tokens"] = [{**token, "special": True} for token in spec["added_tokens"]]
  hf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)), eos_token="<|im_end|>",
                               chat_template=hf("qwen3").chat_template)
  reasoned = "<think>\nA reason\n</think>\n\nSo"
  chat = talk("a", "So", "b", reasoned)
  theirs = hf.apply_chat_template([{"role": message.role, "content": message.text} for message in chat],
                                  return_dict=False)
  plain, allowing = Pretrained.of(hf), Pretrained.of(hf, assistant_tokens=names)
  assert plain.spelled(reasoned, True) == names and allowing.spelled(reasoned, True) == []
  assert allowing.spelled(reasoned) == names and allowing != plain
  (ids, _), = plain.chats([chat])
  assert ids != theirs
  (ids, written), = allowing.chats([chat])
  assert ids == theirs
  assert allowing.decode([token for token, mine in zip(ids, written, strict=True) if mine]) == (
      f"So<|im_end|>{reasoned}<|im_end|>")
  asked, spelled = allowing.chats([talk("<think>", "So"), talk("< think >", "So")])
  assert all(ids.count(hf.convert_tokens_to_ids("<think>")) == 1 for ids, _ in (asked, spelled))   # the template's own


def test_settings_become_part_of_what_is_saved(make, talk, tmp_path):
  source = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}{% endfor %}" + (
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant' + (mood or '') }}{% endif %}")
  bare = make("", source=source)
  assert configured(bare, {}, ()) is bare
  tokenizer = configured(bare, {"mood": "24"}, ("<think>",))
  assert tokenizer.decode(tokenizer.chats([talk("a")])[0][0]) == "<|im_start|>usera<|im_end|><|im_start|>assistant24"
  assert tokenizer != bare
  tokenizer.save(tmp_path)
  assert configured(pretrained.load(tmp_path), {"mood": "24"}, ("<think>",)) == tokenizer
  assert pretrained.load(tmp_path).chats([talk("a", "b")]) == tokenizer.chats([talk("a", "b")])
  row, = bare.renderings([talk("a")], [{"mood": "10"}])
  assert row.ids == configured(bare, {"mood": "10"}, ()).chats([talk("a")])[0][0]
  with pytest.raises(ValueError, match="has no chat template"):
    configured(make("none"), {"mood": "24"}, ())
