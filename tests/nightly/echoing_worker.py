"""A worker that does what a line says."""

from __future__ import annotations

import os
import sys


def main() -> int:
    try:
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            match word:
                case "env":
                    answer = os.environ.get(rest, "")
                case "loaded":
                    answer = str(rest in sys.modules)
                case "exit":
                    return int(rest)
                case _:
                    print("complaint", file=sys.stderr, flush=True)
                    answer = "complained"
            os.write(1, answer.encode() + b"\n")
    except KeyboardInterrupt:
        return 130
    return 0
