"""Path templates: what they mean, how their mistakes are reported, and how they are written as URLs."""

from __future__ import annotations

import enum
import uuid
from typing import Any

import pytest

from armature.exceptions import ConfigurationError, RouteError
from armature.routing import Convertor, Pattern, parse_pattern, register_convertor
from armature.routing.patterns import PatternError

KNOWN = "alnum, alpha, email, enum, float, int, length, path, range, regex, str, uint, uuid"


def test_a_mistake_is_reported_with_everything_one_needs_to_mend_it() -> None:
    with pytest.raises(RouteError) as caught:
        parse_pattern("/users/{id:itn}/posts", handler="shop.views.show", location="shop/views.py:17")
    assert str(caught.value) == (
        "there is no convertor 'itn'\n"
        "  route:   /users/{id:itn}/posts\n"
        "                      ^\n"
        "  handler: shop.views.show\n"
        "  at:      shop/views.py:17\n"
        "  mend:    did you mean int? known are alnum, alpha, email, enum, float, int, length, path, range, regex, "
        "str, uint, uuid"
    )
    assert caught.value.pattern == "/users/{id:itn}/posts"
    assert caught.value.handler == "shop.views.show"
    assert caught.value.location == "shop/views.py:17"


def test_what_is_not_known_is_left_out() -> None:
    with pytest.raises(RouteError) as caught:
        parse_pattern("users")
    assert str(caught.value) == (
        "a path must begin with a slash\n  route:   users\n           ^\n  mend:    write /users"
    )


NAME_HINT = "a name is made of ASCII letters, digits and underscores, and does not begin with a digit"
DOTS_HINT = "clients resolve it before they ask (RFC 3986 section 5.2.4); write the path it leads to"
REST_HINT = "it takes the whole rest of the path; move it to the end, or use a parameter per segment"

MISTAKES: list[tuple[str, str, int, str]] = [
    ("", "a path must begin with a slash", 0, "write /"),
    ("{id}", "a path must begin with a slash", 0, "write /{id}"),
    ("/u/{id", "this brace is never closed", 3, "write {id}"),
    ("/u/{id/x}", "this brace is never closed", 3, "write {id}"),
    ("/u/{id:int", "this brace is never closed", 3, "write {id}"),
    ("/u/{a{b}", "this brace is never closed", 3, "write {a}"),
    ("/u/}x", "this brace closes nothing", 3, "a parameter is written {name}; for the character itself write %7D"),
    ("/u/{}", "a parameter must have a name", 4, NAME_HINT),
    ("/u/{", "a parameter must have a name", 4, NAME_HINT),
    ("/u/{1d}", "a parameter must have a name", 4, NAME_HINT),
    ("/u/{é}", "a parameter must have a name", 4, NAME_HINT),
    ("/u/{ id }", "a parameter must have a name", 4, "leave out the spaces: {id}"),
    ("/u/{*rest}", "a parameter must have a name", 4, "a catch-all is written {rest:path} or *rest"),
    ("/u/{id?}", "the character '?' does not belong here", 6,
     "there are no optional parameters; register a second route without it"),
    ("/u/{id...}", "the character '.' does not belong here", 6, "a catch-all is written {id:path} or *id"),
    ("/u/{user-id}", "the character '-' does not belong here", 8, "write {user} or {user:int}"),
    ("/u/{id:}", "the parameter 'id' has a colon but no convertor", 7,
     f"write {{id}}, or one of the convertors {KNOWN}"),
    ("/u/{id:integer}", "there is no convertor 'integer'", 7, f"did you mean int? known are {KNOWN}"),
    ("/u/{id:string}", "there is no convertor 'string'", 7, f"did you mean str? known are {KNOWN}"),
    ("/u/{id:Int}", "there is no convertor 'Int'", 7, f"did you mean int? known are {KNOWN}"),
    ("/u/{id:slug}", "there is no convertor 'slug'", 7, f"did you mean regex([a-z0-9-]+)? known are {KNOWN}"),
    ("/u/{id:zzzz}", "there is no convertor 'zzzz'", 7, f"known are {KNOWN}"),
    ("/u/{id:int(3)}", "the convertor 'int' of 'id' is not right", 7, "it takes no arguments"),
    ("/u/{id:range(1)}", "the convertor 'range' of 'id' is not right", 7, "it takes two bounds: range(1,10)"),
    ("/u/{id:range(9,1)}", "the convertor 'range' of 'id' is not right", 7,
     "the bounds must satisfy lowest <= highest"),
    (f"/u/{{id:range(1,{10**18})}}", "the convertor 'range' of 'id' is not right", 7,
     "the bounds must have at most 18 digits"),
    ("/u/{id:range}", "the convertor 'range' of 'id' is not right", 7, "its arguments are whole numbers: range(1,10)"),
    ("/u/{id:range(1,9}", "this parenthesis is never closed", 12, "write {id:range(...)}"),
    ("/u/{id:length(0,5)}", "the convertor 'length' of 'id' is not right", 7,
     "the lengths must satisfy 1 <= shortest <= longest"),
    ("/u/{id:length(x)}", "the convertor 'length' of 'id' is not right", 7,
     "its arguments are whole numbers: length(5) or length(1,64)"),
    ("/u/{id:length(1,2,3)}", "the convertor 'length' of 'id' is not right", 7,
     "it takes one or two lengths: length(5) or length(1,64)"),
    ("/u/{id:enum}", "the convertor 'enum' of 'id' is not right", 7, "it needs words: enum(png|jpeg)"),
    ("/u/{id:enum(a||b)}", "the convertor 'enum' of 'id' is not right", 7, "its words must not be empty"),
    ("/u/{id:regex}", "the convertor 'regex' of 'id' is not right", 7, "it needs an expression: regex([a-z]+)"),
    ("/u/{id:regex(*)}", "the convertor 'regex' of 'id' is not right", 7,
     "the regular expression is not valid: nothing to repeat at position 0"),
    ("/u/{id:regex((a)b)}", "the convertor 'regex' of 'id' is not right", 7,
     "its regular expression must have no capturing groups; write (?:...) instead of (...)"),
    ("/u/{id:regex([a-z)}", "this parenthesis is never closed", 12, "write {id:regex(...)}"),
    ("/u/{a}/{b}/{a}", "the parameter 'a' stands here twice", 11, "every parameter needs a name of its own"),
    ("/u/:a/{a:int}", "the parameter 'a' stands here twice", 6, "every parameter needs a name of its own"),
    ("/u/{a}{b}", "nothing stands between the parameters 'a' and 'b'", 6, "put some text or a slash between them"),
    ("/u/{r:path}/x", "the catch-all 'r' must stand at the end", 3, REST_HINT),
    ("/u/{r:path}/", "the catch-all 'r' must stand at the end", 3, REST_HINT),
    ("/u/*r/x", "the catch-all 'r' must stand at the end", 3, REST_HINT),
    ("/u/x{r:path}", "the catch-all 'r' must fill its segment alone", 4, "put a slash before it and nothing behind it"),
    ("/u/{r:path}x", "the catch-all 'r' must fill its segment alone", 3, "put a slash before it and nothing behind it"),
    ("/u/{a}-{r:path}", "the catch-all 'r' must fill its segment alone", 7,
     "put a slash before it and nothing behind it"),
    ("/u/*", "a catch-all must have a name", 3, "write /*rest; for the character itself write %2A"),
    ("/u/**", "a catch-all must have a name", 3, "write /*rest; for the character itself write %2A"),
    ("/u/a*", "an asterisk must begin its segment", 4,
     "a catch-all is written /*rest or /{rest:path}; for the character itself write %2A"),
    ("/u/:", "a parameter must have a name", 3, "write /:id; for the character itself write %3A"),
    ("/u/:1", "a parameter must have a name", 3, "write /:id; for the character itself write %3A"),
    ("//u", "a path must not hold an empty segment", 1, "write one slash"),
    ("/u//x", "a path must not hold an empty segment", 3, "write one slash"),
    ("/u//", "a path must not hold an empty segment", 3, "write one slash"),
    ("/u/./x", "a path must not hold the segment '.'", 3, DOTS_HINT),
    ("/u/..", "a path must not hold the segment '..'", 3, DOTS_HINT),
    ("/u/%2e%2E/x", "a path must not hold the segment '..'", 3, DOTS_HINT),
    ("/u?x=1", "a path must not hold '?'", 2, "leave out the query: query parameters are parameters of the handler"),
    ("/u#top", "a path must not hold '#'", 2,
     "leave out the fragment: clients never send it; for the character itself write %23"),
    ("/u/<int:id>", "a path must not hold '<'", 3,
     "a parameter is written {name} or {name:int}; for the character itself write %3C"),
    ("/u/%2Fx", "a path must not hold an encoded slash", 3, "take it with a parameter: {name} takes a%2Fb as 'a/b'"),
    ("/u/a%0Ab", "a path must not hold an encoded control character", 4, "remove it"),
    ("/u/a%FF", "the percent-encoded text is not UTF-8", 4, "write the characters themselves"),
    ("/u/\t", "a path must not hold the character '\\t'", 3, "remove it, or percent-encode it"),
    ("/u/\ud800", "a path must not hold the character '\\ud800'", 3, "remove it, or percent-encode it"),
    ("/u/{a:regex((?i)x)}-{b}", "the parameters of this segment cannot stand side by side", 3,
     "their joint regular expression is not valid: global flags not at the start of the expression at position 4"),
    ("/".join(["", *(f"{{p{n}}}" for n in range(17))]), "a path must not have more than 16 parameters", 87,
     "take the rest with {rest:path}"),
    ("/a" * 129, "a path must not have more than 128 segments", 257, "shorten it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "message", "position", "hint"), MISTAKES, ids=[row[0][:24] or "empty" for row in MISTAKES]
)
def test_mistakes(pattern: str, message: str, position: int, hint: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(pattern, handler="show", location="a.py:1")
    error = caught.value
    assert (error.message, error.position, error.hint) == (message, position, hint)
    assert isinstance(error, ConfigurationError)
    if "\t" not in pattern:
        lines = str(error).split("\n")
        assert lines[1].endswith(pattern)
        assert lines[2].index("^") == len("  route:   ") + position
        assert lines[3:] == ["  handler: show", "  at:      a.py:1", f"  mend:    {hint}"]


def test_a_path_is_a_str() -> None:
    with pytest.raises(RouteError, match=r"^a path must be a str, not bytes"):
        parse_pattern(b"/a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "path_format", "names", "static"),
    [
        ("/", "/", (), b"/"),
        ("/users", "/users", (), b"/users"),
        ("/users/", "/users/", (), b"/users/"),
        ("/café", "/café", (), "/café".encode()),
        ("/caf%C3%A9/a%7Bb", "/café/a{b", (), "/café/a{b".encode()),
        ("/100%", "/100%", (), b"/100%"),
        ("/a:b/c*d".replace("*", "%2A"), "/a:b/c*d", (), b"/a:b/c*d"),
        ("/jobs/{id}:cancel", "/jobs/{id}:cancel", ("id",), None),
        ("/users/:id", "/users/{id}", ("id",), None),
        ("/users/:id.json", "/users/{id}.json", ("id",), None),
        ("/users/:first-:last".replace("-:", "-%3A"), "/users/{first}-:last", ("first",), None),
        ("/static/*rest", "/static/{rest}", ("rest",), None),
        ("/static/{rest:path}", "/static/{rest}", ("rest",), None),
        ("/{a:int}/{b:regex([a-z]{2}(?:/x)?)}/{c:enum(x|y)}", "/{a}/{b}/{c}", ("a", "b", "c"), None),
        (r"/{a:regex([)\]}]+\))}", "/{a}", ("a",), None),
        ("/{a:regex([^]a]+)}.{b}", "/{a}.{b}", ("a", "b"), None),
        ("/v{major:int}.{minor:int}", "/v{major}.{minor}", ("major", "minor"), None),
    ],
)
def test_templates(text: str, path_format: str, names: tuple[str, ...], static: bytes | None) -> None:
    pattern = parse_pattern(text)
    assert (str(pattern), pattern.path_format, pattern.names, pattern.static_path) == (text, path_format, names, static)
    assert parse_pattern(text) == pattern
    assert hash(parse_pattern(text)) == hash(pattern)


def test_the_two_ways_of_writing_a_parameter_mean_the_same() -> None:
    assert parse_pattern("/a/:x").shape == parse_pattern("/a/{y}").shape == parse_pattern("/a/{y:str}").shape
    assert parse_pattern("/a/*x").shape == parse_pattern("/a/{y:path}").shape
    assert parse_pattern("/a/{x:int}").shape != parse_pattern("/a/{x}").shape
    assert parse_pattern("/a/{x:enum(b|a)}").shape == parse_pattern("/a/{x:enum(a|b)}").shape


def test_convertors_from_elsewhere_fill_in_for_the_template() -> None:
    pattern = parse_pattern("/a/{x}/{y:float}/:z", convertors={"x": "int", "y": "int", "z": "range(1,3)"})
    assert [param.convertor.spec for param in pattern.params] == ["int", "float", "range(1,3)"]


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("text", "values", "path"),
    [
        ("/", {}, "/"),
        ("/users/", {}, "/users/"),
        ("/café/x y", {}, "/caf%C3%A9/x%20y"),
        ("/users/{id}", {"id": 5}, "/users/5"),
        ("/users/{id}", {"id": "a/b?c#d%e"}, "/users/a%2Fb%3Fc%23d%25e"),
        ("/users/{id}", {"id": "a:@!$&'()*+,;=-._~z"}, "/users/a:@!$&'()*+,;=-._~z"),
        ("/users/{id}", {"id": "é€\U0001f438"}, "/users/%C3%A9%E2%82%AC%F0%9F%90%B8"),
        ("/users/{id:int}", {"id": -5}, "/users/-5"),
        ("/users/{id:int}", {"id": "05"}, "/users/5"),
        ("/f/{x:float}", {"x": 1e21}, "/f/1000000000000000000000"),
        ("/f/{x:float}", {"x": 0.1}, "/f/0.1"),
        ("/f/{x:float}", {"x": -1e-7}, "/f/-0.0000001"),
        ("/u/{x:uuid}", {"x": uuid.UUID(int=1)}, "/u/00000000-0000-0000-0000-000000000001"),
        ("/c/{x:enum(red|blue)}", {"x": Colour.RED}, "/c/red"),
        ("/c/{x:range(1,3)}", {"x": 3}, "/c/3"),
        ("/s/{rest:path}", {"rest": "a b/c"}, "/s/a%20b/c"),
        ("/s/{rest:path}", {"rest": ""}, "/s/"),
        ("/f/{name}.{ext}", {"name": "a.b", "ext": "c"}, "/f/a.b.c"),
    ],
)
def test_url_path_for(text: str, values: dict[str, Any], path: str) -> None:
    assert parse_pattern(text).url_path_for(**values) == path


@pytest.mark.parametrize(
    ("text", "values", "error", "message"),
    [
        ("/u/{id}", {}, TypeError, "/u/{id} needs 'id'"),
        ("/u/{id}", {"id": 1, "x": 2}, TypeError, "/u/{id} has no parameter 'x'; it has 'id'"),
        ("/u", {"x": 2}, TypeError, "/u has no parameter 'x'; it has none"),
        ("/u/{id}", {"id": ""}, ValueError, "/u/{id}: '' does not fit {id}, which is str"),
        ("/u/{id:uint}", {"id": -1}, ValueError, "/u/{id:uint}: '-1' does not fit {id}, which is uint"),
        ("/u/{id:int}", {"id": 1.5}, ValueError,
         "/u/{id:int}: 1.5 does not fit {id}: 'float' object cannot be interpreted as an integer"),
        ("/u/{id:int}", {"id": "x"}, ValueError,
         "/u/{id:int}: 'x' does not fit {id}: invalid literal for int() with base 10: 'x'"),
        ("/u/{x:float}", {"x": float("nan")}, ValueError,
         "/u/{x:float}: nan does not fit {x}: nan cannot be written in a path"),
        ("/u/{x:enum(a|b)}", {"x": "c"}, ValueError, "/u/{x:enum(a|b)}: 'c' does not fit {x}, which is enum(a|b)"),
        ("/u/{id}/x", {"id": ".."}, ValueError, "/u/{id}/x: '..' would be taken for a relative path"),
        ("/u/{r:path}", {"r": "a/../b"}, ValueError, "/u/{r:path}: 'a/../b' would be taken for a relative path"),
        ("/u/{id}", {"id": "\ud800"}, ValueError,
         "/u/{id}: '\\ud800' holds a lone surrogate, which no URL can carry"),
    ],
)  # fmt: skip
def test_url_path_for_refuses(text: str, values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_pattern(text).url_path_for(**values)
    assert str(caught.value) == message


def test_a_convertor_of_ones_own() -> None:
    class Hex(Convertor[int]):
        regex = "[0-9a-f]+"
        python_type = int

        def to_python(self, value: str) -> int:
            return int(value, 16)

        def to_url(self, value: int) -> str:
            return format(value, "x")

    for convertor in (Hex, Hex()):
        register_convertor("hex", convertor)
        pattern = parse_pattern("/{x:hex}")
        (param,) = pattern.params
        assert param.convertor.spec == "hex"
        assert param.convertor.to_python("ff") == 255
        assert pattern.url_path_for(x=255) == "/ff"
        with pytest.raises(RouteError, match="it takes no arguments"):
            parse_pattern("/{x:hex(1)}")


def test_a_pattern_knows_its_type() -> None:
    pattern: Pattern = parse_pattern("/{a}/{b:int}/{c:uuid}/{d:range(1,2)}/{e:path}")
    assert [param.convertor.python_type for param in pattern.params] == [str, int, uuid.UUID, int, str]
