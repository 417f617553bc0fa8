"""What systemd gives a service and wants to hear from it: listening sockets, readiness, signs of life.

The protocols are those of sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3); they are plain environment
variables and datagrams, so that no library is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import MutableMapping

from armature.exceptions import ConfigurationError

__all__ = ["FIRST_DESCRIPTOR", "Notifier", "inherited_descriptors"]

logger = logging.getLogger("armature.server")

#: Descriptors that were passed begin here (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3

#: More sockets than any service has; what is above is no number of sockets.
_MOST_DESCRIPTORS = 1024


def inherited_descriptors(environment: MutableMapping[str, str] | None = None) -> dict[int, str]:
    """Return the listening sockets that systemd has opened for this very process: names by file descriptor.

    Args:
        environment: Instead of `os.environ`.

    Raises:
        ConfigurationError: The variables contradict themselves.
    """
    values = os.environ if environment is None else environment
    if values.get("LISTEN_PID") != str(os.getpid()):
        # Meant for nobody, or for the process that started this one.
        return {}
    text = values.get("LISTEN_FDS", "")
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_DESCRIPTORS):
        raise ConfigurationError(f"LISTEN_FDS must be a number of sockets, not {text!r}")
    count = int(text)
    names = values["LISTEN_FDNAMES"].split(":") if "LISTEN_FDNAMES" in values else ["unknown"] * count
    if len(names) != count:
        raise ConfigurationError(f"LISTEN_FDS says {count} sockets, but LISTEN_FDNAMES names {len(names)}")
    return dict(enumerate(names, FIRST_DESCRIPTOR))


class Notifier:
    """Tells systemd how the service is doing; says nothing where systemd did not ask.

    Args:
        environment: Instead of `os.environ`.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        values = os.environ if environment is None else environment
        self._address = _address(values.get("NOTIFY_SOCKET", ""))
        self._interval = _watchdog_seconds(values)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def listening(self) -> bool:
        """Whether somebody wants to know."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Say that the service serves.

        Args:
            status: A line that `systemctl status` shows.
        """
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1\nSTATUS=shutting down")

    def reloading(self) -> None:
        """Say that the service takes over a new configuration; `ready` says that it has."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 if hasattr(time, "CLOCK_MONOTONIC") else 0
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def start_watchdog(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give signs of life from now on, as long as the loop turns.

        Args:
            loop: The loop that serves; if it hangs, the signs stay away.
        """
        if self._interval is not None and self.listening and self._timer is None:
            self._beat(loop, self._interval)

    def stop_watchdog(self) -> None:
        """Give no more signs of life."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _beat(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self._send("WATCHDOG=1")
        self._timer = loop.call_later(interval, self._beat, loop, interval)

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                # systemd may be busy, the service must not wait for it.
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            logger.debug("systemd could not be told %r: %s", message, error)


def _address(text: str) -> str | None:
    if not text or not hasattr(socket, "AF_UNIX"):
        return None
    if text.startswith("@"):
        # The abstract namespace.
        return "\0" + text[1:]
    # vsock: addresses are for virtual machines, not for services.
    return text if text.startswith("/") else None


def _watchdog_seconds(values: MutableMapping[str, str]) -> float | None:
    if values.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(KeyError, ValueError):
        microseconds = int(values["WATCHDOG_USEC"])
        if microseconds > 0:
            # sd_watchdog_enabled(3) recommends half of the time.
            return microseconds / 2_000_000
    return None


def _line(text: str) -> str:
    return " ".join(text.split())
