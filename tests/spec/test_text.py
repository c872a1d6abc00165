"""YAML to values with places: bounded, whatever the file holds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bazaar.errors import SpecError
from bazaar.spec.text import MOST_BYTES, Place, parse

EVERY_SCALAR = """
a: 1
b: on
c: 22:30
d: 0x10
e: 0o10
f: 1.5
g: ~
h: 'true'
i: true
j: |
  two
  lines
k: [1, two]
l: .inf
m: 08
n: !!str 5
"""


def test_scalars_are_those_of_yaml_1_2():
    assert parse(EVERY_SCALAR, "").value == {
        "a": 1,
        "b": "on",
        "c": "22:30",
        "d": 16,
        "e": 8,
        "f": 1.5,
        "g": None,
        "h": "true",
        "i": True,
        "j": "two\nlines\n",
        "k": [1, "two"],
        "l": ".inf",
        "m": 8,
        "n": "5",
    }


def test_everything_has_its_place():
    places = parse("one:\n  two: [x,  y]\n", "").places
    assert places["one",] == Place(2, 3, 1, 1)
    assert places["one", "two"] == Place(2, 8, 2, 3)
    assert places["one", "two", 1] == Place(2, 13, 2, 13)


def test_keys_are_text():
    assert parse("{1: a, true: b, ~: c}", "").value == {"1": "a", "true": "b", "null": "c"}


def test_an_alias_is_its_anchor():
    assert parse("a: &x {b: 1}\nc: *x", "").value == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_key_that_stands_twice_is_a_problem_with_its_place():
    document = parse("a: 1\nb: 2\na: 3\n", "f.yaml")
    (problem,) = document.problems
    assert (problem.line, problem.column) == (3, 1)
    assert problem.message == "'a' stands here twice, first in line 1"
    assert document.value == {"a": 1, "b": 2}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "this is no YAML"),
        ("a: b: c", "this is no YAML"),
        ("\tx", "this is no YAML"),
        ("a: *nowhere", "there is no anchor 'nowhere'"),
        ("a: &x [*x]", "there is no anchor 'x'"),
        ("a: !!python/object/apply:os.system [id]", "the tag 'tag:yaml.org,2002:python/"),
        ("a: !secret x", "the tag '!secret' means nothing here"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("[" * 100 + "]" * 100, "nested deeper than 32"),
        ("{a: " * 5000, "nested deeper than 32"),
        (BOMB, "anchors make this larger"),
        ("x" * (MOST_BYTES + 1), "the file is larger than 1 MiB"),
        ("a: \x01", "this is no YAML"),
    ],
)
def test_what_is_refused(content, message):
    with pytest.raises(SpecError) as caught:
        parse(content, "f.yaml")
    assert message in str(caught.value)


@given(
    st.one_of(
        st.text(max_size=300),
        st.text(alphabet="abc:[]{}-&*!|>'\"#%@,? \n\t~0123", max_size=200),
    )
)
@example("? [a]: b")
@example("&a")
@example("a: !<")
@example("%YAML 9.9\n---\na")
@example("- " * 40)
def test_any_text_is_a_document_or_a_spec_error(content):
    try:
        document = parse(content, "f.yaml")
    except SpecError as error:
        assert error.problems
        return
    assert () in document.places


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=15,
    )
)
def test_what_json_writes_is_read_as_it_was(value):
    import json

    keys_and_values = json.dumps(value, ensure_ascii=True)
    if "\\u" in keys_and_values:
        return  # YAML has no surrogate pairs by \u
    assert parse(keys_and_values, "").value == value


def test_numbers_beyond_reason_stay_text():
    assert parse("9" * 30, "").value == "9" * 30
