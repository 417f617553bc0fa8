"""Convertors: their languages, their conversions, and how they are ordered."""

from __future__ import annotations

import itertools
import re
import uuid
from typing import Any

import pytest

from armature._spec.routes import MATCH_INT, MATCH_TEXT
from armature.exceptions import ConfigurationError
from armature.routing.convertors import (
    Convertor,
    IntConvertor,
    Relation,
    convertor_names,
    get_convertor,
    register_convertor,
)


def convertor(spec: str) -> Convertor[Any]:
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", spec)
    assert found is not None
    return get_convertor(found[1], found[2])


LANGUAGES = {
    "str": (["a", "é", "a/b", "\n", "0"], [""]),
    "int": (["0", "-1", "007", "9" * 40], ["", "-", "+1", "1.0", "1_0", " 1", "1\n", "\u0661", "\u00b2"]),
    "uint": (["0", "42"], ["", "-1", "\u0661"]),
    "float": (["0", "-1.5", "1.25"], ["", ".5", "1.", "1e5", "nan", "inf", "-"]),
    "alpha": (["a", "Zz"], ["", "a1", "é", "a b"]),
    "alnum": (["a1", "0"], ["", "a_", "é"]),
    "uuid": (
        ["01234567-89ab-cdef-0123-456789ABCDEF", "0123456789abcdef0123456789abcdef"],
        ["", "0123", "{01234567-89ab-cdef-0123-456789abcdef}", "g1234567-89ab-cdef-0123-456789abcdef"],
    ),
    "email": (["a@b", "ada.l+x@example.org"], ["", "@b", "a@", "a@b@c", "a b@c", "a@-b", "a@b-", "a@b..c", "é@b"]),
    "path": (["", "a", "a/b", "/"], []),
    "regex([a-c]{2})": (["ab"], ["", "a", "abc", "ad"]),
    "length(2)": (["ab", "éé"], ["", "a", "abc"]),
    "length(1,3)": (["a", "abc", "\n"], ["", "abcd"]),
    "range(-5,10)": (["-5", "0", "10", "007"], ["", "-6", "11", "1.5", "x", "1" * 19]),
    "enum(a|b.c)": (["a", "b.c"], ["", "b", "bxc", "A"]),
}


@pytest.mark.parametrize("spec", LANGUAGES)
def test_languages(spec: str) -> None:
    takes, refuses = LANGUAGES[spec]
    assert [text for text in takes if not convertor(spec).matches(text)] == []
    assert [text for text in refuses if convertor(spec).matches(text)] == []
    assert convertor(spec).spec == {"length(2)": "length(2,2)"}.get(spec, spec)
    assert repr(convertor(spec)) == f"<convertor {convertor(spec).spec}>"


@pytest.mark.parametrize(
    ("spec", "text", "value"),
    [
        ("str", "x", "x"),
        ("int", "-7", -7),
        ("uint", "7", 7),
        ("float", "1.5", 1.5),
        ("range(1,9)", "3", 3),
        ("uuid", "0123456789abcdef0123456789abcdef", uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")),
        ("path", "a/b", "a/b"),
        ("enum(a|b)", "a", "a"),
        ("length(1)", "a", "a"),
    ],
)
def test_conversions(spec: str, text: str, value: Any) -> None:
    converted = convertor(spec).to_python(text)
    assert converted == value
    assert type(converted) is convertor(spec).python_type


ALL = [
    "enum(a)", "enum(1|a)", "enum(b|c)", "range(1,5)", "range(1,9)", "range(4,20)", "range(30,40)", "uuid", "uint",
    "int", "float", "alpha", "alnum", "email", "regex(a+)", "regex(b+)", "length(1)", "length(1,3)", "length(2,5)",
    "length(9)", "str",
]  # fmt: skip
OPPOSITE = {Relation.BEFORE: Relation.AFTER, Relation.AFTER: Relation.BEFORE}


def test_relations_are_the_same_from_both_sides_and_agree_with_the_order() -> None:
    for one, two in itertools.product(map(convertor, ALL), repeat=2):
        found = one.relation(two)
        assert two.relation(one) is OPPOSITE.get(found, found)
        assert (found is Relation.SAME) == (one.spec == two.spec)
        if found is Relation.BEFORE:
            assert one.sort_key < two.sort_key


def test_what_is_said_to_be_disjoint_is() -> None:
    words = [
        "a",
        "b",
        "c",
        "1",
        "3",
        "5",
        "9",
        "15",
        "33",
        "-3",
        "aa",
        "1.5",
        "a@b",
        "ab",
        "0" * 32,
        "a" * 32,
        "abcabcabc",
    ]
    for one, two in itertools.combinations(map(convertor, ALL), 2):
        if one.relation(two) is Relation.DISJOINT:
            assert not [word for word in words if one.matches(word) and two.matches(word)], (one, two)


@pytest.mark.parametrize(
    ("one", "two", "relation"),
    [
        ("int", "str", Relation.BEFORE),
        ("uint", "int", Relation.BEFORE),
        ("alpha", "int", Relation.DISJOINT),
        ("enum(a|b)", "enum(a|b|c)", Relation.BEFORE),
        ("enum(a|b)", "enum(b|c)", Relation.UNORDERED),
        ("enum(a|b)", "enum(c|d)", Relation.DISJOINT),
        ("enum(a|b)", "int", Relation.DISJOINT),
        ("enum(a|1)", "int", Relation.BEFORE),
        ("range(1,5)", "range(1,9)", Relation.BEFORE),
        ("range(1,5)", "range(4,9)", Relation.UNORDERED),
        ("range(1,5)", "range(6,9)", Relation.DISJOINT),
        ("regex(a)", "regex(b)", Relation.UNORDERED),
        ("regex(a)", "length(1)", Relation.BEFORE),
    ],
)
def test_relations(one: str, two: str, relation: Relation) -> None:
    assert convertor(one).relation(convertor(two)) is relation


def test_a_subclass_that_changes_the_language_is_not_recognised_natively() -> None:
    class Even(IntConvertor):
        def accepts(self, text: str) -> bool:
            return text[-1] in "02468"

    class Renamed(IntConvertor):
        def to_url(self, value: int) -> str:
            return f"{value:04}"

    assert Even.kind == MATCH_TEXT
    assert Renamed.kind == MATCH_INT
    assert Even().matches("12")
    assert not Even().matches("13")


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("no name", IntConvertor, "the name of a convertor must be an ASCII identifier, not 'no name'"),
        ("é", IntConvertor, "the name of a convertor must be an ASCII identifier, not 'é'"),
        (
            "thing",
            int,
            "<class 'int'> is no convertor; subclass armature.routing.Convertor and give it `regex` and `to_python`",
        ),
    ],
)
def test_registering_something_else(name: str, made: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        register_convertor(name, made)
    assert str(caught.value) == message
    assert name not in convertor_names()


def test_registering_a_name_anew() -> None:
    class One(Convertor[str]):
        regex = "1"

    class Two(Convertor[str]):
        regex = "2"

    register_convertor("digit", One)
    first = get_convertor("digit")
    assert get_convertor("digit") is first
    register_convertor("digit", Two)
    assert get_convertor("digit").matches("2")
    assert first.relation(get_convertor("digit")) is Relation.UNORDERED
