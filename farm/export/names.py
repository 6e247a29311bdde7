"""Names from boards and plans, in the alphabets that other formats allow."""

from __future__ import annotations

import hashlib
import re

__all__ = ["slug"]

_MAX = 120


def slug(text: str, allowed: str = "A-Za-z0-9_-") -> str:
    """``text`` in the characters of the class ``allowed``, from a letter or digit on; never empty.

    What had to be changed gets a digest of the whole behind it, so that two names stay two.
    """
    changed = re.sub(rf"[^{allowed}]+", "-", text[:_MAX]).strip("-._")
    if text and changed == text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{changed}-{digest}" if changed else f"x{digest}"
