"""A tokenizer as kinds of task read windows by it: its pieces without special tokens, uncut."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from emdistill.tasks.features import Pieces, Reader


def reader_of(tokenizer: Tokenizer, names: Sequence[str]) -> Reader:
    """How this tokenizer reads; names: what the model reads (input_ids, attention_mask, perhaps token_type_ids)."""

    def encode(texts: Sequence[str]) -> list[Pieces]:
        _read_whole(tokenizer)
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [Pieces(encoding.ids, encoding.offsets) for encoding in encodings]

    _read_whole(tokenizer)
    whole = tokenizer.encode("a")
    words = [place for place, special in enumerate(whole.special_tokens_mask) if not special]
    before, behind = tuple(whole.ids[: words[0]]), tuple(whole.ids[words[-1] + 1 :])
    pair = tokenizer.encode("a", "a").ids
    between = tuple(pair[words[-1] + 1 : len(pair) - len(behind) - len(words)])
    return Reader(encode, before, behind, tuple(names), between)


def _read_whole(tokenizer: Tokenizer) -> None:
    """Neither cut nor pad; whoever cuts or pads says so at each call."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
