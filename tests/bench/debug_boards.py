"""The far end of a debug board's serial port, simulated on a pty: what it is told, it does.

The letters are those of cdba's qcomlt_dbg.c; the lines those that pytactl sends to a PSOC board
(its `PsocPort`): after a carriage return a prompt with CMD, then a command, answered by ok.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import threading
import tty
from collections.abc import Callable

_WAIT_S = 0.1


class PtyBoard:
    """A pty with somebody at its far end; ``heard`` is all that arrived there."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.heard = ""
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._gone.is_set():
            ready, _, _ = select.select([self._master], [], [], _WAIT_S)
            if not ready:
                continue
            try:
                data = os.read(self._master, 256)
            except OSError:
                return
            text = data.decode("latin-1")
            self.heard += text
            self.obey(text)

    def obey(self, text: str) -> None:
        """Act on what arrived."""

    def say(self, text: str) -> None:
        os.write(self._master, text.encode("latin-1"))

    def unplug(self) -> None:
        """Pull the cable: the port goes, and whoever has it open is told."""
        self._gone.set()
        self._thread.join()
        for one in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(one)

    close = unplug


class Qcomlt(PtyBoard):
    """A qcomlt debug board; ``act`` is called with each letter."""

    def __init__(self, act: Callable[[str], None] = lambda letter: None) -> None:
        self._act = act
        super().__init__()

    def obey(self, text: str) -> None:
        for letter in text:
            self._act(letter)


class Psoc(PtyBoard):
    """A TAC debug board with a PSOC; ``act`` is called with pin and value."""

    # Of pytactl: an Alpaca V3.1.
    PLATFORM = 7

    def __init__(self, act: Callable[[int, int], None] = lambda pin, value: None) -> None:
        self._act = act
        self._line = ""
        self.pins: dict[int, int] = {}
        self.mute = False
        super().__init__()

    def obey(self, text: str) -> None:
        if self.mute:
            return
        for letter in text:
            if letter != "\r":
                self._line += letter
                continue
            line, self._line = self._line.strip(), ""
            if not line:
                self.say("CMD >> ")
            elif line == "getboardid":
                self.say(f"{self.PLATFORM}\r\nok\r\n")
            elif found := re.fullmatch(r"pin ([01]) ([0-9]+)", line):
                value, pin = int(found[1]), int(found[2])
                self.pins[pin] = value
                self._act(pin, value)
                self.say("ok\r\n")
            else:
                self.say("ok\r\n")
