"""Variants of text without labels, in a file of further text: streamed, so that memory does not grow with the texts."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from datasets import Dataset

from emdistill.console import Table, print_table, say
from emdistill.data.arrow_files import ROWS_AT_ONCE
from emdistill.data.augmentation import Variant
from emdistill.data.text_hashes import Seen, Texts, hashes_of_rows, text_hashes
from emdistill.data.unlabelled import COUNTS, UnlabelledText, kept_texts, texts_kept
from emdistill.errors import DataError
from emdistill.files import written_whole
from emdistill.training.evaluate import with_bar

SHOWN = 4

Made = tuple[Texts, Variant]  # a variant behind the text that it was made of


def write_text_variants(
    place: Path,
    text: UnlabelledText,
    *,
    scored: Iterable[Dataset],
    labelled: Iterable[Dataset],
    draw: Callable[[int, Texts], list[Variant]],
) -> None:
    """A JSON line per variant, in the task's text columns, without the texts themselves; whole or not at all.

    scored, labelled   rows that are scored on or learned from: none of them is varied, and no variant repeats one
    draw               the variants of a text, by its number and the text
    All texts are read twice: checked and counted before any is varied. Raises DataError for rows that cannot be used,
    and where there are no texts or variants.
    """
    names, columns = ", ".join(text.names), text.columns[0].texts
    apart = hashes_of_rows(scored), hashes_of_rows(labelled)
    counts = Counter(dict.fromkeys(COUNTS, 0))
    for _ in kept_texts(text, Seen(apart[0]), Seen(apart[1]), counts):
        pass
    if not counts["kept"]:
        raise DataError(f"no text is left to vary: {texts_kept(counts, 'varied')}", file=names)
    texts = chain.from_iterable(kept_texts(text, Seen(apart[0]), Seen(apart[1]), Counter()))
    made = (
        (each, variant)
        for number, each in enumerate(with_bar(texts, "words that fit", counts["kept"]))
        for variant in draw(number, each)
    )
    words, shown = Counter[str](), list[Made]()
    with written_whole(place) as part, part.open("w", encoding="utf-8") as file:
        for chunk in _different(made, Seen(np.union1d(*apart))):
            shown = shown or [chunk[at] for at in some_places(len(chunk), 0)]
            words.update(word_counts([variant for _, variant in chunk]))
            for _, variant in chunk:
                row = dict(zip(columns, variant.texts, strict=True))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not shown:
            raise DataError("no word of its texts can be replaced, so there are no variants", file=names)
    say(f"{variants_made(words, counts['kept'], 'text')}\n{texts_kept(counts, 'varied')}")
    pairs = [[before[variant.side], variant.texts[variant.side]] for before, variant in shown]
    print_table(Table(["as written", "variant"], pairs, words=(0, 1)))


def _different(made: Iterator[Made], seen: Seen) -> Iterator[list[Made]]:
    """Chunks without what is in `seen` or came before, case and punctuation apart; adds to `seen`."""
    while chunk := list(islice(made, ROWS_AT_ONCE)):
        hashes, places = np.unique(text_hashes(variant.texts for _, variant in chunk), return_index=True)
        new = ~seen.has(hashes)
        seen.add(hashes[new])
        if new.any():
            yield [chunk[place] for place in np.sort(places[new])]


def word_counts(variants: Sequence[Variant]) -> dict[str, int]:
    """How many variants, their words, and how many of these were replaced."""
    return {
        "variants": len(variants),
        "words": sum(variant.words for variant in variants),
        "replaced": sum(variant.replaced for variant in variants),
    }


def variants_made(counts: Mapping[str, int], originals: int, name: str) -> str:
    """The counts for people; `name` is that of one original."""
    number = counts["variants"]
    return (
        f"{number:,} variants of {originals:,} {name}s, {number / originals:.1f} per {name}\n"
        f"{counts['replaced'] / counts['words']:.1%} of the words of an altered text were replaced, "
        f"{counts['replaced'] / number:.1f} per text"
    )


def some_places(count: int, seed: int) -> list[int]:
    """The places of a few out of `count`, to be shown."""
    return sorted(np.random.default_rng(seed).choice(count, min(SHOWN, count), replace=False).tolist())
