"""Says how many tests the parts of ``make test`` ran, from their JUnit files.

A part that ran nothing is a failure: it would look like success.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main(files: list[str]) -> int:
    """Print one line per part and the sum; return 1 when a part ran nothing."""
    total = 0
    code = 0
    for name in files:
        suites = ET.parse(name).getroot().iter("testsuite")
        counts = {"tests": 0, "skipped": 0, "failures": 0, "errors": 0}
        for suite in suites:
            for key in counts:
                counts[key] += int(suite.get(key, "0"))
        ran = counts["tests"] - counts["skipped"]
        total += ran
        print(f"{Path(name).stem:>12}: {ran} tests ran, {counts['skipped']} skipped")
        if not ran:
            print(f"{Path(name).stem}: no test ran", file=sys.stderr)
            code = 1
    print(f"{'total':>12}: {total} tests ran")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
