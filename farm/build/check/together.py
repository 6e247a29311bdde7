"""Work that is done at once, each piece in a process of its own.

Each process counts the processor time of its own tools, and each can be ended with all its tools.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

from farm.errors import BuildError, FarmError
from farm.signals import ending_with_parent, termination_as_interrupt

_INTERRUPTED = 130

T = TypeVar("T")


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Do all of ``works`` at once; return what each returned, in their order.

    Raises the ``FarmError`` of the first that ends with one. The others are ended then, as they are
    when this process is interrupted.
    """
    context = multiprocessing.get_context("fork")
    first = ending_with_parent(signal.SIGTERM)
    children: list[ForkProcess] = []
    waited_for: dict[Connection, int] = {}
    results: dict[int, T] = {}
    try:
        for number, work in enumerate(works):
            answers, answer = context.Pipe(duplex=False)
            child = context.Process(target=_do, args=(first, work, answer))
            child.start()
            answer.close()
            children.append(child)
            waited_for[answers] = number
        while waited_for:
            for ready in wait(list(waited_for)):
                assert isinstance(ready, Connection)
                results[waited_for.pop(ready)] = _answer(ready)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()
    return [results[number] for number in range(len(works))]


def _do(first: Callable[[], None], work: Callable[[], T], answer: Connection) -> None:
    # Ctrl-C reaches the parent as well, which ends this process: one signal, not two.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first()
    try:
        with termination_as_interrupt():
            try:
                answer.send((work(), None))
            except FarmError as error:
                answer.send((None, error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _answer(answers: Connection) -> Any:
    try:
        result, error = answers.recv()
    except EOFError:
        raise BuildError("a process of the check has died") from None
    if error is not None:
        raise error
    return result
