"""The same targets, led by coverage: ``pip install atheris``, then ``python -m tests.fuzz.guided -max_total_time=600``.

Other arguments are libFuzzer's. An input that crashes is written to a file; with that file as the
argument it is run again.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway", "tokenizers_offline", "policies"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.mutation import pick

LED = tuple(name for name in TARGETS if name != "prompts")
"""Without the tokenizers: native code that tells no coverage, and seconds to load."""


class Led:
    """Choices that the fuzzer makes."""

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def below(self, limit: int) -> int:
        return int(self._data.ConsumeIntInRange(0, limit - 1))


def try_one(data: bytes) -> None:
    source = Led(data)
    TARGETS[pick(source, LED)](source)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=4096", "-timeout=30"], try_one)
    atheris.Fuzz()
