"""The section of a study: which values it takes."""

import pytest

from sftrl_jax.programs.config.errors import ConfigError


@pytest.mark.parametrize(("changes", "message"), [
    ({"bases": 0}, r"config\.study\.bases is 0"),
    ({"jobs": -1}, r"config\.study\.jobs is -1"),
    ({"labels": {"spo": "X"}}, r"labels has 'spo'.*did you mean ppo"),
    ({"reference": "ppp"}, r"reference has 'ppp'.*did you mean ppo"),
    ({"overrides": {"pp": {"a": 1}}}, r"overrides has 'pp'.*did you mean ppo"),
    ({"methods": {"base": "x.py"}}, "methods has 'base'"),
    ({"methods": {"sft": ""}}, r"methods\.sft is ''"), ({"overrides": {"ppo": 3}}, r"overrides\.ppo is 3"),
    ({"at": (0.5, 2.0)}, r"config\.study\.at is \(0\.5, 2\.0\)"),
    ({"methods": {}}, "methods is empty"),
    ({"at": {"ppo": (0.5, 2.0)}}, r"config\.study\.at\.ppo is \(0\.5, 2\.0\)"),
    ({"at": {"pp": (0.5,)}}, r"at has 'pp'.*did you mean ppo"), ({"at": {"ppo": 0.5}}, r"config\.study\.at is"),
    ({"notes": {"pp": "x"}}, r"notes has 'pp'.*did you mean ppo"), ({"notes": {"ppo": ""}}, r"notes\.ppo is ''"),
    ({"bases_of": {"pp": "x.py"}}, r"bases_of has 'pp'.*did you mean ppo"),
    ({"bases_of": {"ppo": "ppo"}}, "bases_of.ppo is the method 'ppo', but that one should start from a base"),
    ({"bases_of": {"ppo": "mix:sft,2"}}, "bases_of.ppo is 'mix:sft,2', but a mix is mix:METHOD,SHARE"),
    ({"bases_of": {"ppo": "mix:x,0.5"}}, "bases_of.ppo is 'mix:x,0.5', but a mix is mix:METHOD,SHARE"),
    ({"bases_of": {"base": "x.py"}}, "bases_of has 'base', which is no method"),
    ({"measure": "reward"}, r"config\.study\.measure is 'reward'"),
    ({"claims": ({"method": "ppo", "sign": 1}, {"method": "pp", "sign": 1})},
     r"config\.study\.claims, number 2: method is 'pp'"),
    ({"claims": ("ppo",)}, r"config\.study\.claims is"),
    ({"methods": {"a-b": "x.py"}}, "methods has 'a-b'"),
    ({"prepares": {"a-b": "x.py"}}, "prepares has 'a-b'"),
    ({"prepares": {"ppo": "x.py"}}, "prepares has 'ppo', which is a method too"),
    ({"prepares": {"reward": ""}}, r"prepares\.reward is ''"),
    ({"uses": {"pp": {"start": "x"}}}, r"uses has 'pp'.*did you mean ppo"),
    ({"uses": {"ppo": {"data": {"path": "reward/x"}}}}, r"uses\.ppo .*should name one run of prepares, which has none"),
    ({"prepares": {"a": "x.py", "b": "x.py"}, "uses": {"ppo": {"x": "a", "y": "b/z"}}},
     r"uses\.ppo .*one run .*, a, b"),
    ({"base": "x.py", "eval_episodes": -1}, r"config\.study\.eval_episodes is -1, but should be from 0 to 1e\+06"),
])
def test_an_error_names_the_key_and_its_value(section_of, changes, message):
  with pytest.raises(ConfigError, match=message):
    section_of(**changes)


def test_overrides_may_name_the_base_and_labels_may_not(section_of):
  assert section_of(overrides={"base": {"steps": 3}}).overrides == {"base": {"steps": 3}}
  with pytest.raises(ConfigError, match="labels has 'base', which is no method"):
    section_of(labels={"base": "B"})


def test_a_study_may_have_one_method_and_shipped_bases(section_of, files):
  section = section_of(base="", methods={"sft": files["sft"]}, reference="sft")
  assert (section.shipped, section.at, section.reference) == ("general_points", (), "sft")


def test_claims_are_data_with_the_defaults_of_the_study(section_of):
  claim = {"method": "ppo", "comparison": "sft", "least": 0.6}
  section = section_of(claims=(claim,), measure="per_step", notes={"ppo": "The paper's."})
  assert section.claims == (claim,) and section.notes == {"ppo": "The paper's."}
  assert section.claimed_parts() == {claim["method"]: []}
  assert section_of(claims=(claim, {**claim, "measure": "sign"})).claimed_parts() == {claim["method"]: ["sign"]}


def test_shares_are_those_of_all_methods_or_of_each(section_of):
  assert [section_of(at=(0.1, 0.5)).shares_of(method) for method in ("sft", "ppo")] == [(0.1, 0.5)] * 2
  section = section_of(at={"sft": (0.02,)})
  assert (section.shares_of("sft"), section.shares_of("ppo")) == ((0.02,), ())
