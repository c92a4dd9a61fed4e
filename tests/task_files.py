"""Tasks of lm-eval over one file of rows, and a tiny random model in Hugging Face's files.

Its tokenizer merges letters across words of a text.
"""

import json

import jax

TEMPLATE = ("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
TEXTS = ["The capital of France is Paris.\n", "3 + 4 = 7\n", "What is the capital? The capital is it.\n",
         "and so on, on"]
NAMES = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
NEEDS = "tasks need the extra `eval`: pip install -e '.[test,eval]'"
CONTEXT = 48   # tokens, so that texts of a test are cut
DATA = """dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
"""
MULTIPLE_CHOICE = DATA + """task: tiny_choice
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.5}}
"""
GENERATE = DATA + """task: tiny_answer
fewshot_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n", "on"], max_gen_toks: 9, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
ROLLING = DATA + """task: tiny_text
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
metadata: {{version: 1.0}}
"""
ROWS = [{"question": question, "choices": choices, "answer": number % len(choices), "text": question * (1 + 5 * number)}
        for number, (question, choices) in enumerate([
            ("The capital of France is", ["Paris", "it", " on and on"]), ("3 + 4 =", ["7", "34", "3 + 4"]),
            ("What is the capital? " * 9, ["Paris", "The capital is it"]), ("and so on, ", ["on", "so on"]),
            ("日本 is", ["capital", "3"])])]


def llama(home, begins):
  """`home` with the model, made if it is not there. begins: whether texts begin with an id of their own."""
  if home.is_dir():
    return home
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.checkpoints import hf
  from sftrl_jax.models import DecoderConfig, build
  from sftrl_jax.text.pretrained import Pretrained

  backend = Tokenizer(models.BPE())
  backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  backend.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
      vocab_size=330, special_tokens=NAMES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False))
  if begins:
    backend.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
  words = Pretrained.of(PreTrainedTokenizerFast(
      tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>",
      chat_template=TEMPLATE))
  # More rows than ids: every row of the table counts in a probability.
  config = DecoderConfig(vocab=words.size + 6, width=24, layers=2, heads=2, kv_heads=1, mlp_dim=32, norm_eps=1e-5,
                         context=CONTEXT, init_std=0.4)
  hf.save(home, config, jax.jit(build(config).init)(jax.random.key(3)), words)
  return home


def write_tasks(folder):
  """`folder` with the files of tiny_choice, tiny_answer and tiny_text."""
  folder.mkdir()
  data = folder / "rows.jsonl"
  data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
  for name, text in (("choice", MULTIPLE_CHOICE), ("answer", GENERATE), ("text", ROLLING)):
    (folder / f"{name}.yaml").write_text(text.format(data=data))
  return folder
