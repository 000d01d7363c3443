"""Tokenizers that came as a Python package (`tollgate tokenizers wheel` makes one), beside those in the folder.

A folder of one's own comes first and may hold anything, or nothing; what it has not is read from the package. So an
installation without a network is one `pip install`, and tokenizers added later still count.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tokenizers_offline.store import TokenizerStore

PACKAGE = "tollgate_tokenizers"
"""What the package is called when it is imported; it holds nothing but a store in FOLDER."""

FOLDER = "models"


def carried_folder() -> Path | None:
    """The store that an installed package carries; None when there is no such package. Nothing of it is run."""
    found = find_spec(PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    return next((Path(place) / FOLDER for place in places or ()), None)


def open_tokenizers(root: Path) -> TokenizerStore:
    """The store in a folder, with the carried one beneath it."""
    return TokenizerStore(root, beneath=carried_folder())
