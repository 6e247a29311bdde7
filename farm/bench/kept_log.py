"""The second witness of a panic: the kernel's own log, as pstore kept it.

A serial line that drops a few bytes at the wrong moment makes a panic look like another one, or
like none. A mark that was written to the kernel's log before the panic tells this boot's log from
an older one.
"""

from __future__ import annotations

import base64
import binascii

from farm.bench.pstorefs import FOLDER, Listing
from farm.bench.shell import BoardShell
from farm.errors import BenchError

_MOST_BYTES = 16384


def kept_log(shell: BoardShell, listing: Listing, mark: str | None, deadline_s: float) -> str:
    """What the kernel's log in pstore holds from ``mark`` on; empty without such a log."""
    names = [one.name for one in listing.files if one.name.startswith("dmesg-")]
    if mark is None or not names:
        return ""
    # Encoded, for the shell takes the words of a panic on the console for a panic.
    script = (
        f"cd {FOLDER} && for f in {' '.join(names)}; do "
        f'grep -q {mark} "$f" && sed -n "/{mark}/,\\$p" "$f" | tail -c {_MOST_BYTES}; done | base64'
    )
    try:
        said = shell.run_script(script, deadline_s, what="reading the log that pstore kept")
        return base64.b64decode("".join(said.split())).decode("utf-8", "backslashreplace")
    except BenchError as error:
        if error.part != "shell":
            raise
        return ""
    except binascii.Error:
        return ""
