"""Does another engine, or counting by segments, give the reference's counts? Asked with texts made to disagree.

The texts are made, not stored: every kind of character that splitting patterns and merges treat differently,
joined at random from a fixed seed, plus the encoding's own special tokens whole, doubled, broken and glued to words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence

ATOMS = (
    "a", "I", "the", "don't", "WE'LL", "naïve", "straße", "Ünïcödé", "snake_case", "camelCase", "x1y2", "ﬁ", "Ⅻ", "ſ",
    " ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r", " \n", "\n ", "\n\t", "\u00a0",
    "\u3000", "\u2028", "\u200b", "\u200d", "\ufeff", "\x00", "\x07", "\x1b[0m", "\x7f", "\x85", "\x0b", "\x0c",
    "0", "7", "42", "123", "1234567", "3.14", "1,000", "٣٤", "५", "²", "½", "१२३४",
    ".", ",", "!", "?!", "...", "…", "—", "--", "==>", "//", "/*", "*/", "/", "\\", "'", "''", '"', "`", "(", ")", "{",
    "}", "[]", "<", ">", "</", "<|", "|>", "<｜", "_", "__", "@", "#", "$", "%", "&", "*", "+", "~", "^", "|", ";", ":",
    "你好", "世界", "中文分词", "，", "。", "！", "「", "」", "東京", "ひらがな", "カタカナ", "ｶﾞ", "한국어", "ㅎㅎ",
    "привет", "Ελλάδα", "שלום", "مرحبا", "عَرَبِيّ", "हिन्दी", "ภาษาไทย", "தமிழ்", "မြန်မာ", "ქართული", "🙂", "👩‍👩‍👧‍👦", "🇩🇪",
    "👍🏽", "🏴‍☠️", "e\u0301", "\u0301", "a\u0308\u0323", "Å", "𝒳𝒴", "𠜎", "\U0010fffd", "\ufffd", "ﷺ", "①", "™", "▁",
    "▁▁", "Ġ", "Ċ", "<0x0A>", "def f(x):\n    return x", "SELECT * FROM t;", '{"a": [1, 2]}', "https://a.b/c?d=e#f",
    "<s>", "</s>", "<unk>", "<bos>", "[INST]", "<think>", "</think>", "<|im_start|>", "<|endoftext|>", "<|im_end|>",
)  # fmt: skip

LONG_RUNS = ("a" * 700, " " * 700, "\n" * 300, "é" * 300, "中" * 300, "🙂" * 120, "-=" * 200, "9" * 400, "ab " * 200)


def hostile_texts(*, tokens: Sequence[str] = (), seed: int = 7, count: int = 400) -> list[str]:
    """Texts for comparing engines; `tokens` are an encoding's own special and added tokens."""
    rng = random.Random(seed)  # noqa: S311 - repeatable texts, no secret
    own = [token for token in tokens if token]
    few = own if len(own) <= 24 else rng.sample(own, 24)
    texts = ["", *ATOMS, *LONG_RUNS, *few]
    for token in few:
        texts += [
            f"{token}{token}",
            f"x{token}y",
            f" {token} ",
            f"\n{token}\n",
            token[:-1],
            token[1:],
            f"{token}\u0301",
        ]
    atoms = (*ATOMS, *few)
    for _ in range(count):
        texts.append("".join(rng.choice(atoms) for _ in range(rng.randrange(2, 40))))
    for _ in range(count // 8):
        texts.append(" ".join(rng.choice(atoms) for _ in range(rng.randrange(20, 120))))
    for _ in range(count // 8):
        spread = (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x530), (0x600, 0x700), (0x3000, 0x3100), (0x4E00, 0x9FA5)
        ranges = rng.sample(spread, rng.randrange(1, 4))
        texts.append("".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(3, 60))))
    return texts


def corpus_id() -> str:
    """Changes whenever the texts do, so that an old verdict is not trusted for new texts."""
    return hashlib.sha256("\0".join(hostile_texts()).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def first_difference(
    texts: Iterable[str], reference: Callable[[str], int], other: Callable[[str], int]
) -> tuple[str, int, int] | None:
    """The first text the two count differently, with both counts; None when they agree on all."""
    for text in texts:
        expected, found = reference(text), other(text)
        if expected != found:
            return text, expected, found
    return None
