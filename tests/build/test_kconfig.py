"""Every option that the fragment asks for must be in the final configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.build import kconfig
from farm.errors import BuildError, FormatError


def check(tmp_path: Path, fragment: str, config: str) -> None:
    (tmp_path / "board.config").write_text(fragment)
    (tmp_path / ".config").write_text(config)
    kconfig.check(tmp_path / "board.config", tmp_path / ".config")


def test_a_configuration_with_everything_passes(tmp_path: Path) -> None:
    check(
        tmp_path,
        "# why\nCONFIG_A=y\nCONFIG_N=8\nCONFIG_OFF=n\n",
        "CONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\nCONFIG_B=y\n",
    )


@pytest.mark.parametrize("config", ["", "# CONFIG_PSTORE is not set\n", "CONFIG_PSTORE=m\n"])
def test_a_lost_option_is_named(tmp_path: Path, config: str) -> None:
    with pytest.raises(BuildError, match="CONFIG_PSTORE"):
        check(tmp_path, "CONFIG_PSTORE=y\n", config)


def test_a_line_that_is_no_option_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"board\.config:2"):
        check(tmp_path, "CONFIG_A=y\nPSTORE please\n", "CONFIG_A=y\n")


def test_a_second_fragment_overrides_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "board.config", tmp_path / "check.config"
    first.write_text("# why\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n")
    second.write_text("# CONFIG_A is not set\nCONFIG_C=m\n")
    merged = kconfig.parse(kconfig.merge(first, second), "merged")
    assert merged == {"CONFIG_A": "n", "CONFIG_B": "y", "CONFIG_C": "m"}
