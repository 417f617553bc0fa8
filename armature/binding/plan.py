"""Compile a signature into one Python function: what is asked of the request, in which order, and the call itself.

The function is written for the route, so that a request runs no loop over parameters, no `inspect` and no look-up
that could be done before. On the way that succeeds it has no error handling: if anything is missing or malformed it
starts over with `explain`, which goes through all parameters one by one and collects every error.
"""

from __future__ import annotations

import builtins
import functools
import keyword
import linecache
import types
from collections.abc import Callable, Sequence
from typing import Any

from armature._impl import message
from armature._spec.plan import KIND_INT, KIND_STR
from armature.binding.kinds import InvalidItems, Kind
from armature.binding.query import last_values, pairs_of
from armature.binding.scalars import InvalidValue, integer, string
from armature.binding.signature import REQUEST, Argument, Constant, Parameter, Signature
from armature.exceptions import RequestValidationError

__all__ = ["compile_core", "compile_plan", "explain", "path_kinds"]


def path_kinds(signature: Signature, names: Sequence[str]) -> bytes | None:
    """Say whether the connection itself can fill the call, from path parameters alone.

    Args:
        signature: The handler's signature.
        names: The pattern's parameters, in order.

    Returns:
        One `KIND_*` per parameter; None if the general plan is needed.
    """
    kinds = bytearray()
    if len(signature.arguments) != len(names):
        return None
    for argument, name in zip(signature.arguments, names, strict=True):
        source = argument.source
        if argument.keyword or not isinstance(source, Parameter) or source.location != "path" or source.alias != name:
            return None
        if source.kind.convert is string:
            kinds.append(KIND_STR)
        elif source.kind.convert is integer:
            kinds.append(KIND_INT)
        else:
            return None
    return bytes(kinds)


class _Writer:
    """Writes the source of one plan and gathers the names that it uses."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.names: dict[str, Any] = {}
        self.needs: dict[str, str] = {}
        self.lines: list[str] = []
        self.call: list[str] = []
        for number, argument in enumerate(signature.arguments):
            self._argument(number, argument)

    def _argument(self, number: int, argument: Argument) -> None:
        source = argument.source
        if source is REQUEST:
            value = "request"
        elif isinstance(source, Constant):
            value = f"constant{number}"
            self.names[value] = source.value
        else:
            value = self._variable(number, argument.name)
            self._parameter(number, value, source)
        self.call.append(f"{argument.name}={value}" if argument.keyword else value)

    @staticmethod
    def _variable(number: int, name: str) -> str:
        # The parameter's own name reads best in a traceback; the prefix keeps it apart from ours.
        return f"p_{name}" if name.isascii() and not keyword.iskeyword(name) else f"p_{number}"

    def _parameter(self, number: int, variable: str, parameter: Parameter) -> None:
        name = repr(parameter.alias)
        plain = parameter.kind.convert is string
        convert = f"convert{number}"
        if not plain:
            self.names[convert] = parameter.kind.convert
        if parameter.location == "path":
            text = f"param({name})"
            self.needs["param"] = "request.param"
            self.lines.append(f"{variable} = {text}" if plain else f"{variable} = {convert}({text})")
            return
        if parameter.kind.many:
            fetch, wanted = self._all_texts(parameter, name), "not texts"
            self.lines.append(f"texts = {fetch}")
            made = f"{convert}(texts)"
        else:
            fetch, decoded = self._one_text(parameter, name)
            wanted = "text is None"
            self.lines.append(f"text = {fetch}")
            made = decoded if plain else f"{convert}({decoded})"
        if parameter.required:
            self.lines.extend((f"if {wanted}:", "    raise Unbound", f"{variable} = {made}"))
        else:
            self.lines.append(f"{variable} = {self._default(number, parameter)} if {wanted} else {made}")

    def _one_text(self, parameter: Parameter, name: str) -> tuple[str, str]:
        if parameter.location == "header":
            # The connection keeps the field lines as bytes (RFC 9110 section 5.5: Latin-1 where not ASCII).
            field = parameter.alias.encode("latin-1", "replace")
            return f"request.header({field!r})", "text.decode('latin-1')"
        if parameter.location == "cookie":
            self.needs["cookie"] = "request.cookies.get"
            return f"cookie({name})", "text"
        self.needs["query"] = "last_values(request.query_string).get"
        return f"query({name})", "text"

    def _all_texts(self, parameter: Parameter, name: str) -> str:
        if parameter.location == "header":
            return f"request.headers.getall({name})"
        if parameter.location == "cookie":
            self.needs["cookie"] = "request.cookies.get"
            return f"[found] if (found := cookie({name})) is not None else []"
        self.needs["pairs"] = "pairs_of(request.query_string)"
        return f"[value for key, value in pairs if key == {name}]"

    def _default(self, number: int, parameter: Parameter) -> str:
        if parameter.default_factory is not None:
            self.names[f"make_default{number}"] = parameter.default_factory
            return f"make_default{number}()"
        if parameter.default is None or type(parameter.default) in (bool, int, str):
            return repr(parameter.default)
        self.names[f"default{number}"] = parameter.default
        return f"default{number}"

    def body(self, indent: str) -> list[str]:
        """The lines that read the parameters, or nothing if there are none."""
        if not self.lines:
            return []
        fetches = [f"{name} = {expression}" for name, expression in self.needs.items()]
        inner = indent + "    "
        return [
            f"{indent}try:",
            *(inner + line for line in (*fetches, *self.lines)),
            f"{indent}except InvalidRequest as error:",
            f"{inner}raise explain(request, error) from None",
        ]


class _Unbound(Exception):
    """A required parameter is absent."""


def _names(signature: Signature, writer: _Writer) -> dict[str, Any]:
    parameters = signature.parameters

    def explain_all(request: Any, error: Exception) -> Exception:
        return explain(request, parameters, error)

    return {
        **writer.names,
        "explain": explain_all,
        "InvalidRequest": (InvalidValue, InvalidItems, _Unbound),
        "Unbound": _Unbound,
        "last_values": last_values,
        "pairs_of": pairs_of,
    }


@functools.lru_cache(maxsize=256)
def _code_of(source: str) -> types.CodeType:
    """Compile the source of a plan; plans of the same shape have the same source, and differ in their names alone."""
    module = compile(source, "<armature plan>", "exec")
    (code,) = (part for part in module.co_consts if isinstance(part, types.CodeType))
    return code


def _compile(lines: list[str], names: dict[str, Any], label: str) -> Callable[[Any], Any]:
    source = "\n".join(lines) + "\n"
    filename = f"<armature plan: {label}>"
    # A traceback through the plan shows its lines, as it would for a file.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names["__name__"] = "armature.binding.compiled"
    names["__builtins__"] = builtins
    return types.FunctionType(_code_of(source).replace(co_filename=filename), names)


def compile_plan(target: Callable[..., Any], signature: Signature, label: str) -> Callable[[Any], Any]:
    """Compile `plan(request)`, which reads the parameters and returns what the target returns.

    Args:
        target: Called with the arguments of `signature`.
        signature: The handler's signature.
        label: The route, for tracebacks.
    """
    writer = _Writer(signature)
    call = f"target({', '.join(writer.call)})"
    lines = ["def plan(request):", *writer.body("    "), f"    return {call}"]
    return _compile(lines, {**_names(signature, writer), "target": target}, label)


def compile_core(
    target: Callable[..., Any],
    signature: Signature,
    label: str,
    *,
    awaits: bool,
    encode: Callable[[Any], Any],
    handler_of: Callable[[BaseException], Callable[[Any, BaseException], Any] | None],
    encode_answer: Callable[[BaseException, Any], Any],
    finish: Callable[[Any], Any],
) -> Callable[[Any], Any]:
    """Compile `async plan(request)`, the innermost `call_next` of a route with middleware: it returns a response.

    Args:
        target: Called with the arguments of `signature`.
        signature: The handler's signature.
        label: The route, for tracebacks.
        awaits: Whether the target always returns an awaitable.
        encode: Turns a returned value into a response, or into a coroutine that returns one.
        handler_of: Finds the handler of an exception, or None if nobody handles it.
        encode_answer: Turns what an exception handler returned into a response.
        finish: Awaits what an exception handler or a plain function returned, if it is to be awaited.
    """
    writer = _Writer(signature)
    call = f"target({', '.join(writer.call)})"
    value = f"await {call}" if awaits else f"await finish({call})"
    lines = [
        "async def plan(request):",
        "    try:",
        *writer.body("        "),
        f"        value = {value}",
        "    except Exception as error:",
        "        handler = handler_of(error)",
        "        if handler is None:",
        "            raise",
        "        return encode_answer(error, await finish(handler(request, error)))",
        "    if not isinstance(value, Response):",
        # The same name, so that nothing here holds what a large answer is made of.
        "        value = encode(value)",
        "        if not isinstance(value, Response):",
        "            value = await value",
        "    return value",
    ]
    names = {
        **_names(signature, writer),
        "Response": message.Response,
        "encode": encode,
        "encode_answer": encode_answer,
        "finish": finish,
        "handler_of": handler_of,
        "target": target,
    }
    return _compile(lines, names, label)


def _texts(request: Any, parameter: Parameter) -> Any:
    """Fetch what a parameter is made of: its text, all its texts, or None or an empty list."""
    alias = parameter.alias
    if parameter.location == "path":
        return request.param(alias)
    if parameter.location == "header":
        if parameter.kind.many:
            return request.headers.getall(alias)
        return request.headers.get(alias)
    if parameter.location == "cookie":
        value = request.cookies.get(alias)
        if parameter.kind.many:
            return [] if value is None else [value]
        return value
    query = request.query
    return query.getall(alias) if parameter.kind.many else query.get(alias)


def explain(request: Any, parameters: Sequence[Parameter], error: Exception) -> Exception:
    """Collect every error of a request whose parameters do not fit.

    Args:
        request: The request.
        parameters: The parameters of its route.
        error: What stopped the plan; returned if nothing is found, so that a fault of a convertor is not hidden.
    """
    errors: list[dict[str, Any]] = []
    for parameter in parameters:
        texts = _texts(request, parameter)
        place = [parameter.location, parameter.alias]
        if texts is None or (parameter.kind.many and not texts):
            if parameter.required:
                errors.append({"type": "missing", "loc": place, "msg": "Field required", "input": None})
            continue
        errors.extend(_failures(parameter.kind, texts, place))
    return RequestValidationError(errors) if errors else error


def _failures(kind: Kind, texts: Any, place: list[Any]) -> list[dict[str, Any]]:
    try:
        kind.convert(texts)
    except InvalidItems as error:
        return [_item(failure, [*place, number], text) for number, text, failure in error.items]
    except InvalidValue as error:
        return [_item(error, place, texts)]
    return []


def _item(error: InvalidValue, place: list[Any], text: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"type": error.kind, "loc": place, "msg": error.message, "input": text}
    if error.context is not None:
        item["ctx"] = dict(error.context)
    return item
