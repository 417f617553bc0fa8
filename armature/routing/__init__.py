"""Path templates, convertors, and the plan that a router is built from."""

from __future__ import annotations

from armature.routing.convertors import Convertor, register_convertor
from armature.routing.patterns import Pattern, parse_pattern
from armature.routing.plan import RegisteredRoute, RoutePlan, build_router

__all__ = [
    "Convertor",
    "Pattern",
    "RegisteredRoute",
    "RoutePlan",
    "build_router",
    "parse_pattern",
    "register_convertor",
]
