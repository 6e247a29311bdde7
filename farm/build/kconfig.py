"""Config fragments: what they ask for, and whether the kernel's configuration has it.

Kconfig drops an option without a word when a dependency is missing; a kernel without pstore
would then be found out only by a panic.
"""

from __future__ import annotations

import re
from pathlib import Path

from farm.errors import BuildError, FormatError

_SET = re.compile(r"(CONFIG_\w+)=(.*)")
_NOT_SET = re.compile(r"# (CONFIG_\w+) is not set")


def parse(text: str, source: str) -> dict[str, str]:
    """Return option to value of a fragment or a ``.config``; an option that is off has ``n``.

    Raises ``FormatError`` with the line of ``source`` that is neither option, comment nor empty,
    or that sets an option again.
    """
    options: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        found = _SET.fullmatch(line)
        if found is not None:
            name, value = found[1], found[2]
        else:
            off = _NOT_SET.fullmatch(line)
            if off is None:
                if line and not line.startswith("#"):
                    raise FormatError(
                        f"{source}:{number}: no config option: {line!r}", offset=number
                    )
                continue
            name, value = off[1], "n"
        if name in options:
            raise FormatError(f"{source}:{number}: {name} is set a second time", offset=number)
        options[name] = value
    return options


def merge(first: Path, *others: Path) -> str:
    """Return the text of all fragments as one; the last that names an option decides it.

    Raises ``FormatError`` with the line of a fragment that sets nothing or sets it twice.
    """
    text = first.read_text()
    parse(text, first.name)
    for other in others:
        text = on_top(text, other.read_text(), other.name)
    return text


def on_top(text: str, fragment: str, source: str) -> str:
    """Return ``text`` with ``fragment``, which came from ``source``, deciding what both name."""
    again = parse(fragment, source)
    kept = [line for line in text.splitlines() if not again.keys() & parse(line, source).keys()]
    return "\n".join(kept) + "\n" + fragment


def built_in(defconfig: str) -> str:
    """Return what of an architecture's defconfig is built in, for no platform (``ARCH_*``) at all.

    Modules are of no use in an initramfs that holds none, and a fragment names the one platform
    that it is for: what is left takes a fraction of the time.
    """
    return "\n".join(
        line
        for line in defconfig.splitlines()
        if not line.endswith("=m") and not line.startswith("CONFIG_ARCH_")
    )


def check(fragment: Path, config: Path) -> None:
    """Raise ``BuildError`` naming each option of ``fragment`` that ``config`` has otherwise."""
    wanted = parse(fragment.read_text(), fragment.name)
    actual = parse(config.read_text(), config.name)
    wrong = [
        f"{name}={value} (is {actual.get(name, 'n')})"
        for name, value in wanted.items()
        if actual.get(name, "n") != value
    ]
    if wrong:
        raise BuildError(
            f"{fragment.name} asks for what the kernel's configuration does not have: "
            + ", ".join(wrong),
            log=str(config),
            next_step="a dependency is missing, or no patch of the series brings the option; "
            f"see {config}",
        )
