"""What a labgrid environment says about a board beside resources and drivers: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.bench.hooks import filled
from farm.errors import UsageError
from farm.model import Policy


class _Strict(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Deadlines(_Strict):
    """The longest that each step may take, in seconds; ``factor`` stretches all of them."""

    factor: float = Field(default=1.0, gt=0, description="more than 1 for a slow kernel")
    boot: float = Field(default=60.0, gt=0, description="power-on or reset to the prompt")
    panic: float = Field(default=15.0, gt=0, description="trigger to panic line, at least")
    reset: float = Field(default=60.0, gt=0, description="panic line to the next boot's first word")
    script: float = Field(default=20.0, gt=0, description="one script on the board")
    collect: float = Field(default=300.0, gt=0, description="reading back all records")

    def stretched(self) -> Deadlines:
        """All deadlines times ``factor``, which is then used up but still told."""
        names = [name for name in type(self).model_fields if name != "factor"]
        values = {name: getattr(self, name) * self.factor for name in names}
        return self.model_copy(update=values)


class Hooks(_Strict):
    """Commands, as argument lists, for a bench that must be started; see `farm.bench.hooks`.

    ``status`` ends with 0 when it is up, 1 when it is down, 3 when it is lost.
    """

    status: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


class BootImage(_Strict):
    """The boot image that the board's bootloader takes; offsets are from ``base``."""

    header_version: Literal[0, 2] = 2
    page_size: Literal[2048, 4096] = 4096
    base: int = Field(default=0x4000_0000, ge=0)
    kernel_offset: int = Field(default=0x0008_0000, ge=0)
    ramdisk_offset: int = Field(default=0x0400_0000, ge=0)
    tags_offset: int = Field(default=0x0000_0100, ge=0)
    dtb_offset: int = Field(default=0x0600_0000, ge=0)
    dtb: Literal["in header", "appended"] = Field(
        default="in header", description="appended: behind the kernel, as version 0 has it"
    )
    compress: bool = Field(default=False, description="whether the kernel is gzipped")
    cmdline: str = Field(default="", max_length=511)


class TargetOptions(_Strict):
    """``options`` of a target."""

    board: str = Field(min_length=1)
    prompt: str = Field(min_length=1, description="regular expression")
    virtual: bool = False
    soc: str = Field(
        default="",
        pattern="^[a-zA-Z0-9._-]*$",
        description="the chip, as device trees name it: a tag of the board's places",
    )
    build: str = Field(
        default="", description="whose kernel `--flash` builds: devices/NAME.dts, NAME.dtso"
    )
    base: str = Field(default="6.12", description="of that kernel: its version ...")
    variant: str = Field(default="", description="... and its variant, as `farm build` knows them")
    boot_partition: str = "boot_a"
    boot_image: BootImage = BootImage()
    assumptions: tuple[str, ...] = Field(
        default=(),
        description="what is taken for granted until this board has shown it: `farm doctor` lists "
        "them; take off what is settled",
    )
    policy: Policy = Policy()
    deadlines_s: Deadlines = Deadlines()
    bench: Hooks = Hooks()
    boot_with: tuple[str, ...] = Field(
        default=(),
        description="command that makes the next {boots} boots differ: {cmdline} is added to the "
        "kernel's command line, {ecc} is ramoops's ECC size or -1 for the board's own",
    )
    reset: tuple[str, ...] = Field(
        default=(), description="command that resets the board and keeps its memory"
    )
    commands: dict[str, str] = Field(
        default={}, description="shell commands on the board that scenarios name"
    )


class BenchOptions(TargetOptions):
    """``options`` of a target; ``features`` are those of labgrid's environment."""

    features: frozenset[str] = frozenset()


def parse_options(raw: Any, features: Any, where: str | Path) -> BenchOptions:
    """Check a target's ``options``; UsageError names ``where`` and each wrong key."""
    if not isinstance(raw, dict):
        raise UsageError(
            f"{where}: the target has no options",
            "Add `options` with at least `board` and `prompt`; see devices/virtual.yaml.",
        )
    if "features" in raw:
        raise UsageError(f"{where}: options.features", "`features` belongs beside `options`.")
    try:
        options = BenchOptions.model_validate({**raw, "features": frozenset(features or ())})
    except ValidationError as error:
        wrong = [
            f"options.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        ]
        raise UsageError(f"{where}: {'; '.join(wrong)}", "See devices/virtual.yaml.") from error
    named = {"board": options.board}
    hook = options.bench
    return options.model_copy(
        update={
            "deadlines_s": options.deadlines_s.stretched(),
            "bench": Hooks(
                status=tuple(filled(hook.status, named)),
                start=tuple(filled(hook.start, named)),
                stop=tuple(filled(hook.stop, named)),
            ),
            "boot_with": tuple(filled(options.boot_with, named)),
            "reset": tuple(filled(options.reset, named)),
        }
    )
