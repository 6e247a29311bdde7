"""A kernel and the decoder look at the same damaged region, and see the same files.

The zones were written by a kernel too. In `make test` that is the virtual board's; with
`make cross-check` more damage and sizes of ECC follow, and a kernel without the series.
"""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import pytest

from farm.formats.dmesg import decode_dmesg
from farm.formats.encode import encode_zone
from farm.formats.infer import infer_sizes
from farm.formats.ramoops import SIGNATURE, RamoopsSizes, ZoneKind, place_zones, zone_layout
from farm.formats.region import decode_region, pstore_files
from tests.formats.pstore_machine import PstoreMachine, machine_of_this_build

KIB = 1024
THOROUGH = "PANIC_FARM_CROSS_CHECK"
ECC_SIZES = (0, 8, 16, 32)
MORE_ECC_SIZES = (*ECC_SIZES, 2, 5, 12, 33, 64)
THOROUGH_ROUNDS = 4


def sizes_of(ecc_bytes: int) -> RamoopsSizes:
    return RamoopsSizes(
        mem_size_bytes=2048 * KIB,
        record_size_bytes=4 * KIB,
        console_size_bytes=64 * KIB,
        pmsg_size_bytes=16 * KIB,
        ecc_size_bytes=ecc_bytes,
    )


def damage(zone: bytearray, ecc_bytes: int, chance: random.Random) -> None:
    """Hurt a zone in one of the ways in which memory does, or not at all."""
    layout = zone_layout(len(zone), ecc_bytes)
    size = int.from_bytes(zone[8:12], "little")
    used = layout.data_offset + min(size, layout.data_bytes)

    def flip(count: int, begin: int, end: int) -> None:
        for _ in range(count):
            zone[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)

    kind = chance.randrange(9)
    if kind == 1:
        flip(chance.randrange(1, 8), layout.data_offset, used)
    elif kind == 2:
        flip(chance.randrange(8, 400), layout.data_offset, used)
    elif kind == 3:
        at = chance.randrange(layout.data_offset, used)
        length = min(chance.randrange(1, 300), used - at)
        zone[at : at + length] = chance.randbytes(length)
    elif kind == 4:
        flip(chance.randrange(1, 4 + ecc_bytes // 2), 0, layout.data_offset)
    elif kind == 5 and ecc_bytes:
        flip(chance.randrange(1, 200), layout.parity_offset, len(zone))
    elif kind == 6:
        # Just around what a block's parity can mend.
        for block in range(layout.data_offset, used - 128, 128):
            for place in chance.sample(
                range(128), max(0, ecc_bytes // 2 + chance.randrange(-2, 2))
            ):
                zone[block + place] ^= chance.randrange(1, 256)
    elif kind == 7:
        flip(chance.randrange(1, 60), 0, len(zone))
    elif kind == 8:
        # A header of another time: what it says is not what lies there.
        zone[4:12] = b"".join(
            chance.randrange(layout.data_bytes + 8).to_bytes(4, "little") for _ in range(2)
        )


def hurt_copies(region: bytes, sizes: RamoopsSizes, chance: random.Random) -> bytes:
    """The region with a damaged copy of a kernel's dmesg zone in each, and the others damaged."""
    places = place_zones(sizes)
    written = [
        place
        for place in places
        if place.kind is ZoneKind.DMESG
        and region[place.offset + 8 : place.offset + 12].strip(b"\0")
    ]
    assert len(written) >= 3
    out = bytearray(region)
    for place in places:
        source = chance.choice(written) if place.kind is ZoneKind.DMESG else place
        zone = bytearray(region[source.offset : source.offset + source.size_bytes])
        damage(zone, sizes.ecc_size_bytes, chance)
        out[place.offset : place.offset + len(zone)] = zone
    return bytes(out)


def compare(machine: PstoreMachine, region: bytes, sizes: RamoopsSizes) -> int:
    """Have the kernel read the region; return how many zones were compared."""
    kernel = machine.read(sizes, region)
    decoded = decode_region(region, sizes)
    files = [file for file in pstore_files(decoded) if not file.hidden]
    ours = {file.name: file.data for file in files}
    assert sorted(ours) == sorted(kernel)
    for name, content in kernel.items():
        assert ours[name] == content, f"{name} differs"
    if sizes.ecc_size_bytes:
        # The damage was such that there was something to agree on.
        notices = {content[-60:].rpartition(b"\nECC: ")[2] for content in kernel.values()}
        assert len(notices) > 10
    return len(decoded.zones)


@pytest.mark.virtual
@pytest.mark.parametrize("ecc_bytes", MORE_ECC_SIZES if THOROUGH in os.environ else ECC_SIZES)
def test_kernel_and_decoder_agree_on_every_byte_and_count(ecc_bytes: int, tmp_path: Path) -> None:
    machine = machine_of_this_build(tmp_path)
    sizes = sizes_of(ecc_bytes)
    region = machine.write(sizes)
    inferred = infer_sizes(region)
    assert inferred.sizes == sizes
    chance = random.Random(ecc_bytes)
    rounds = THOROUGH_ROUNDS if THOROUGH in os.environ else 1
    compared = sum(
        compare(machine, hurt_copies(region, sizes, chance), sizes) for _ in range(rounds)
    )
    print(f"ECC {ecc_bytes}: {compared} zones compared")
    assert compared >= 480 * rounds


@pytest.mark.virtual
def test_text_that_packs_to_white_space_is_lost_to_the_kernel(tmp_path: Path) -> None:
    """What begins with `P` may pack to a first byte of 0x0b, which the kernel skips as white space.

    The kernel then cannot unpack it, and says so in the name; here it is read all the same.
    """
    sizes = sizes_of(0)
    packer = zlib.compressobj(wbits=-15)
    text = b"Panic#1 Part1\nshort\n"
    packed = packer.compress(text) + packer.flush()
    assert packed[:1] == b"\x0b"
    zone = encode_zone(b"====1700000000.000002-C\n" + packed, 4 * KIB, signature=SIGNATURE)
    region = zone.ljust(sizes.mem_size_bytes, b"\0")
    kernel = machine_of_this_build(tmp_path).read(sizes, region)
    decoded = decode_region(region, sizes)
    (file,) = pstore_files(decoded)
    assert (file.name, file.still_compressed) == ("dmesg-ramoops-0.enc.z", True)
    assert kernel == {file.name: file.data}
    found = decode_dmesg(decoded.zones[0].zone.contents or b"")
    assert found is not None
    assert (found.complete, found.text) == (True, text)
