"""Write the golden files that this project encodes itself: python tests/formats/regenerate.py

Run it only when a format of panicdump.rst changes; the JSON beside each file is written by hand
and stays.
"""

from __future__ import annotations

from pathlib import Path

from farm.formats.encode import encode_frames, encode_record, encode_zone
from tests.formats.format_samples import contents_record, device_record

GOLDEN = Path(__file__).parent / "golden"


def damaged_zone() -> bytes:
    records = [
        encode_record(contents_record(), "elf"),
        encode_record(device_record(), "elf"),
    ]
    zone = bytearray(encode_zone(encode_frames(records), 8192, 16))
    zone[12 + 130] ^= 0x81
    zone[12 + 131] ^= 0x01
    zone[4] ^= 0x01
    return bytes(zone)


def files() -> dict[str, bytes]:
    contents, device = contents_record(), device_record()
    records = [encode_record(contents, "raw"), encode_record(device, "raw")]
    return {
        "encoded-device-elf": encode_record(device, "elf")
        + b"\nECC: 3 Corrected bytes, 0 unrecoverable blocks\n",
        "encoded-device-raw": encode_record(device, "raw"),
        "encoded-contents": encode_record(contents, "elf"),
        "encoded-zone": encode_zone(encode_frames(records, erased=[1]), 4096),
        "encoded-zone-ecc16": damaged_zone(),
    }


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, data in files().items():
        (GOLDEN / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
