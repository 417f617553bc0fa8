"""What carries the bytes of connections: the epoll reactor where it can run, the loop's transports elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from armature._impl import PURE, REASON, load_reactor
from armature.exceptions import ConfigurationError

if TYPE_CHECKING:
    from armature.server.config import ServerConfig
    from armature.server.state import ServerState

__all__ = ["make_reactor"]


def make_reactor(
    config: ServerConfig, state: ServerState, context: ssl.SSLContext | None, factory: Callable[[], Any]
) -> Any:
    """Return the reactor that is to accept connections, or None if the loop itself is to.

    Args:
        config: The server's options; `io` decides.
        state: What the connections share.
        context: The TLS context, if there is one: TLS needs the loop's transports.
        factory: Makes the protocol of a connection.

    Raises:
        ConfigurationError: The reactor was asked for, and cannot run here; says why.
    """
    if config.io == "asyncio":
        return None
    reason = _obstacle(state.loop, context)
    if reason is None:
        return load_reactor().Reactor(state.loop, state.dispatcher, factory)
    if config.io == "reactor":
        raise ConfigurationError(f'io="reactor" is not possible here: {reason}; use io="auto"')
    return None


def _obstacle(loop: asyncio.AbstractEventLoop, context: ssl.SSLContext | None) -> str | None:
    """Say why the reactor cannot run, if it cannot."""
    if context is not None:
        return "TLS needs the transports of the event loop"
    if PURE:
        return f"it is compiled code, and the pure twins are running ({REASON})"
    if not load_reactor().AVAILABLE:
        return "this system has no epoll"
    if not hasattr(loop, "add_reader"):
        return "the event loop cannot watch a descriptor"
    return None
