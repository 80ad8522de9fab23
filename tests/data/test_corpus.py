"""Raw text: what is read and refused, how it is cut into pieces, and that these are written whole or not at all."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import tracemalloc
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names

from emdistill.data import corpus as corpus_module
from emdistill.data import paragraphs as paragraphs_module
from emdistill.data.batches import text_encoder, tokenise
from emdistill.data.corpus import CorpusSplits, TextEncoder, corpus_dataset
from emdistill.data.paragraphs import read_corpus
from emdistill.errors import ConfigError, DataError

WIKIPEDIA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "corpus" / "wiki.txt.xz"
COMPRESS = {
    ".txt": bytes,
    ".txt.xz": partial(lzma.compress, preset=0),
    ".txt.gz": gzip.compress,
    ".txt.bz2": partial(bz2.compress, compresslevel=1),
}
START, END = 1, 2


def encode_letters(texts: list[str]) -> list[list[int]]:
    """A token a letter that is no blank: its code point."""
    return [[ord(letter) for letter in text if letter != " "] for text in texts]


LETTERS = TextEncoder(encode_letters, (START,), (END,), "letters")


def write(folder: Path, content: str | bytes, name: str = "corpus.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def many_documents(documents: int, seed: int = 0) -> str:
    """Documents of 1 to 5 paragraphs of 1 to 60 letters."""
    draw = np.random.default_rng(seed)
    return "\n\n".join(
        "\n".join("".join(draw.choice(list("abcdef"), draw.integers(1, 61))) for _ in range(draw.integers(1, 6)))
        for _ in range(documents)
    )


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_corpus(path))
    return str(caught.value).removeprefix(str(path))


def splits(path: Path, encoder: TextEncoder = LETTERS, **options: Any) -> CorpusSplits:
    return corpus_dataset(
        path, encoder, **{"max_length": 20, "folder": path.parent / "pieces", "seed": 0, "held_out": 0.0, **options}
    )


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_paragraphs_with_their_lines_and_documents(tmp_path: Path, suffix: str, mark: bytes, end: str) -> None:
    lines = ["", "One is Ωne.", " two\ttoo ", "", " \t", "", "three\x01\x85four", "five"]
    path = write(tmp_path, COMPRESS[suffix](mark + end.join(lines).encode()), f"Corpus{suffix.upper()}")
    expected = [(2, 0, "One is Ωne."), (3, 0, "two\ttoo"), (7, 1, "three\x01\x85four"), (8, 1, "five")]
    assert list(read_corpus(path)) == expected


def test_what_is_no_text_file(tmp_path: Path) -> None:
    every = ".txt, .txt.xz, .txt.gz, .txt.bz2, .txt.zst"
    assert every in message(tmp_path)
    write(tmp_path, "text")
    assert "'corpus.txt'" in message(tmp_path / "corpvs.txt")
    assert "'corpus.txt'" not in message(tmp_path / "absent" / "corpus.txt")
    for name in ("corpus.csv", "corpus", "corpus.xz", "corpus.jsonl.gz", "corpus.txt.7z"):
        assert every in message(write(tmp_path, "text", name))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_no_text(tmp_path: Path, suffix: str) -> None:
    for content in (b"", COMPRESS[suffix](b"\n \r\n")):
        assert message(write(tmp_path, content, f"corpus{suffix}")).startswith(": ")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_bytes_that_are_no_utf8_text(tmp_path: Path, suffix: str) -> None:
    for content, line, byte in [
        (b"one\n\ntwo \xe9 three\n", 3, "byte 5 of this line (0xe9)"),
        ("text".encode("utf-16"), 1, "UTF-16"),
        (b"one\ntw\0o\n", 2, "NUL"),
    ]:
        found = message(write(tmp_path, COMPRESS[suffix](content), f"corpus{suffix}"))
        assert found.startswith(f":{line}: ")
        assert byte in found


@pytest.mark.parametrize("suffix", COMPRESS)
def test_lines_that_end_in_cr_alone_are_refused(tmp_path: Path, suffix: str) -> None:
    found = message(write(tmp_path, COMPRESS[suffix](b"one\rtwo\r\rthree\r"), f"corpus{suffix}"))
    assert found.startswith(":1: ")
    assert all(name in found for name in ("CR", "LF"))
    kept = write(tmp_path, COMPRESS[suffix](b"one\rtwo\nthree"), f"corpus{suffix}")
    assert [paragraph.text for paragraph in read_corpus(kept)] == ["one\rtwo", "three"]


@pytest.mark.parametrize("suffix", [".txt.xz", ".txt.gz", ".txt.bz2"])
@pytest.mark.parametrize("damage", ["cut short", "changed", "another format"])
def test_damaged_archives_name_the_line(tmp_path: Path, suffix: str, damage: str) -> None:
    digits = np.random.default_rng(0).integers(0, 10, (5000, 60))  # random, so that the archive is long
    text = "\n".join("".join(map(str, row)) for row in digits).encode()
    whole = COMPRESS[suffix](text)
    half = len(whole) // 2
    changed = whole[:half] + bytes(255 - byte for byte in whole[half : half + 9]) + whole[half + 9 :]
    content = {"cut short": whole[:half], "changed": changed, "another format": text}[damage]
    path = write(tmp_path, content, f"corpus{suffix}")
    found = message(path)
    if damage == "cut short":
        # Some decompressors give back what they cannot know to be wrong before their checksum tells.
        assert 1000 < int(re.search(r"line (\d+)", found)[1]) < 2600
    with pytest.raises(DataError):
        splits(path)
    assert not list((tmp_path / "pieces").glob("*.arrow"))


def test_a_line_without_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paragraphs_module, "LONGEST_LINE", 100)
    long = "x" * 99 + "\n"
    assert [len(paragraph.text) for paragraph in read_corpus(write(tmp_path, long * 3))] == [99] * 3
    found = message(write(tmp_path, long + "x" * 100_000))
    assert found.startswith(":2: ")


def test_reading_takes_no_more_memory_for_more_text(tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        path = write(tmp_path, lzma.compress(b"some words of a paragraph\n" * lines, preset=0), "corpus.txt.xz")
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_corpus(path)) == lines
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < peak(4000) + 50_000  # a megabyte of text more


# ---------------------------------------------------------------------------------------------------------- cutting


def test_documents_are_joined_and_cut_by_hand(tmp_path: Path) -> None:
    # 18 letters fit into 20 tokens.
    path = write(tmp_path, "abcdefghij\nklmnopqr\nstu vwxyzabcd\n\nABCDEFG\n\nHIJKLMNO\n\n" + "z" * 40)
    found = splits(path)
    pieces = [bytes(piece[1:-1]).decode() for piece in found.train["input_ids"]]
    assert pieces == ["abcdefghijklmnopqr", "stuvwxyzabcd", "HIJKLMNO", "z" * 18, "z" * 18]
    assert {(piece[0], piece[-1]) for piece in found.train["input_ids"]} == {(START, END)}
    assert found.train["length"][:] == [len(piece) + 2 for piece in pieces]
    assert found.train.column_names == ["input_ids", "length"]
    assert len(found.held_out) == 0
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    # Too short were ABCDEFG and the last 4 of 40 z.
    assert found.corpus == corpus_module.Corpus(path, sha256, 4, 6, pieces=5, tokens=74 + 10, dropped=7 + 4)


@pytest.mark.parametrize("batch", [1, 100, 10**6])
def test_all_tokens_are_kept_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_BATCH", batch)
    monkeypatch.setattr(corpus_module, "PIECES_PER_BATCH", max(1, batch // 10))
    path = write(tmp_path, many_documents(60))
    found = splits(path, max_length=25)
    pieces = iter(found.train["input_ids"])
    for document in path.read_text().split("\n\n"):
        (left,) = encode_letters([document.replace("\n", "")])
        while len(left) >= 8:
            assert next(pieces) == [START, *left[:23], END]
            left = left[23:]
    assert list(pieces) == []
    letters = sum(map(str.isalpha, path.read_text()))
    assert found.corpus.tokens == letters - found.corpus.dropped + 2 * found.corpus.pieces


def test_the_tokenizers_own_ids(tmp_path: Path, tiny_tokenizer, tokenizer_factory, capfd) -> None:
    encoder = text_encoder(tiny_tokenizer)
    long = " ".join(["good"] * 200)
    assert encoder.encode(["A good Movie", long]) == [
        tiny_tokenizer("A good Movie", add_special_tokens=False)["input_ids"],
        tiny_tokenizer(["good"] * 200, add_special_tokens=False, is_split_into_words=True)["input_ids"],
    ]
    assert encoder.encode([long])[0] == encoder.encode(["good"])[0] * 200  # longer than the model; no warning
    assert capfd.readouterr() == ("", "")
    assert (encoder.start, encoder.end) == ((tiny_tokenizer.cls_token_id,), (tiny_tokenizer.sep_token_id,))

    tiny_tokenizer("a good book", truncation=True, max_length=4, padding="max_length")  # leaves its settings behind
    assert text_encoder(tiny_tokenizer).key == text_encoder(tokenizer_factory()).key
    cased = tokenizer_factory()
    cased.backend_tokenizer.normalizer = None
    words = tuple(sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get))
    keys = [text_encoder(other).key for other in (tiny_tokenizer, cased, tokenizer_factory((*words, "extra")))]
    assert len(set(keys)) == 3

    text = "a good book was not in it and it was"
    found = splits(write(tmp_path, "\n\n".join([text] * 3)), encoder, max_length=64)
    expected = tokenise(found.train.from_dict({"text": [text] * 3}), tiny_tokenizer, 64)
    assert found.train["input_ids"][:] == expected["input_ids"][:]


def test_only_the_first_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The broken byte lies beyond them: reading stops before it.
    text = many_documents(400).encode()
    every = splits(write(tmp_path, text, "whole.txt")).train["input_ids"][:]
    path = write(tmp_path, text + b"\n\xff")
    with names(DataError, "UTF-8"):
        splits(path)
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_BATCH", 100)
    found = splits(path, rows=50)
    assert found.train["input_ids"][:] == every[:50]
    assert found.corpus.pieces == 50
    assert found.corpus.documents < 50


# ------------------------------------------------------------------------------------------------------- held out


def test_whole_documents_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n".join(chr(0x4E00 + document) * (18 * (1 + document % 5)) for document in range(300))
    path = write(tmp_path, text)
    found = splits(path, held_out=0.05)
    documents = [{piece[1] for piece in part["input_ids"]} for part in (found.train, found.held_out)]
    assert not documents[0] & documents[1]
    assert len(found.held_out) == 45  # of 900 pieces
    assert 0 <= 900 - 45 - len(found.train) < 5  # what else the last document held
    assert found.held_out["input_ids"][:] == splits(path, held_out=0.05).held_out["input_ids"][:]
    assert found.held_out["input_ids"][:] != splits(path, held_out=0.05, seed=1).held_out["input_ids"][:]
    assert len(splits(path).held_out) == 0
    assert len(splits(path).train) == 900
    monkeypatch.setattr(corpus_module, "HELD_OUT_AT_MOST", 7)
    assert len(splits(path, held_out=0.05).held_out) == 7


@pytest.mark.parametrize(("share", "apart"), [(0.01, 1), (0.1, 10), (0.5, 50), (0.999, 99)])
@pytest.mark.parametrize("documents", [1, 2, 100])
def test_pieces_are_held_out_where_documents_are_too_long(
    tmp_path: Path, share: float, apart: int, documents: int
) -> None:
    long = "".join(chr(0x4E00 + place) for place in range(18 * 100 // documents))
    found = splits(write(tmp_path, "\n\n".join([long] * documents)), held_out=share)
    assert len(found.held_out) == apart
    assert len(found.train) == 100 - apart


# -------------------------------------------------------------------------------------------- written once, and whole


def test_pieces_are_reused_for_the_same_text_tokenizer_and_length(tmp_path: Path) -> None:
    calls = []

    def encode(texts: list[str]) -> list[list[int]]:
        calls.append(len(texts))
        return encode_letters(texts)

    encoder = TextEncoder(encode, (START,), (END,), "counting")
    path = write(tmp_path, many_documents(30))
    first = splits(path, encoder, held_out=0.1)
    assert calls
    calls.clear()
    again = splits(path.rename(tmp_path / "moved.txt"), encoder, held_out=0.1, folder=tmp_path / "pieces")
    path = tmp_path / "moved.txt"
    assert not calls
    assert again.train["input_ids"][:] == first.train["input_ids"][:]
    assert again.corpus.path == path
    assert again.train.cache_files
    for changed in ({"max_length": 30}, {"rows": 9}, {"encoder": TextEncoder(encode, (START,), (END,), "other")}):
        splits(path, **{"encoder": encoder, **changed})
        assert calls, changed
        calls.clear()
    write(tmp_path, path.read_text() + "\n\nmoretext", "moved.txt")
    assert splits(path, encoder).corpus.pieces == first.corpus.pieces + 1
    assert calls


def test_pieces_that_are_not_whole_are_written_anew(tmp_path: Path) -> None:
    path = write(tmp_path, many_documents(30))
    expected = splits(path).train["input_ids"][:]
    (pieces,) = (tmp_path / "pieces").glob("*.arrow")
    index = pieces.with_suffix(".json")
    whole, counts = pieces.read_bytes(), index.read_text()
    for content, said in [(whole[:-9], counts), (whole, None), (None, counts), (whole, "{"), (whole, "{}")]:
        for file, text in ((pieces, content), (index, said and said.encode())):
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_bytes(text)
        assert splits(path).train["input_ids"][:] == expected
        assert (pieces.read_bytes(), index.read_text()) == (whole, counts)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_BATCH", 100)
    monkeypatch.setattr(corpus_module, "PIECES_PER_BATCH", 3)
    path = write(tmp_path, many_documents(30))

    def encode(texts: list[str]) -> list[list[int]]:
        if "z" in "".join(texts):
            raise KeyboardInterrupt
        return encode_letters(texts)

    encoder = TextEncoder(encode, (), (), "interrupted")
    broken = write(tmp_path, path.read_text() + "\n\nzzz", "broken.txt")
    with pytest.raises(KeyboardInterrupt):
        splits(broken, encoder)
    assert {file.suffix for file in (tmp_path / "pieces").iterdir()} == {".lock"}
    assert len(splits(path, encoder).train) > 30


def test_what_a_killed_run_leaves_does_not_pass_for_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_BATCH", 100)
    monkeypatch.setattr(corpus_module, "PIECES_PER_BATCH", 3)
    path = write(tmp_path, many_documents(30))
    calls = []

    def encode(texts: list[str]) -> list[list[int]]:
        calls.append(texts)
        if len(calls) == 9:
            shutil.copytree(tmp_path / "pieces", tmp_path / "killed")  # as it stands in the middle of the work
        return encode_letters(texts)

    expected = splits(path, TextEncoder(encode, (START,), (END,), LETTERS.key)).train["input_ids"][:]
    (unfinished,) = (tmp_path / "killed").glob("*.part")
    assert unfinished.stat().st_size > 0
    unfinished.rename(unfinished.with_name(unfinished.name.replace(f"-{os.getpid()}.", "-1.")))  # another process's
    assert splits(path, folder=tmp_path / "killed").train["input_ids"][:] == expected
    assert {file.suffix for file in (tmp_path / "killed").iterdir()} == {".lock", ".arrow", ".json"}


def test_numbers_and_texts_that_make_no_pieces(tmp_path: Path) -> None:
    path = write(tmp_path, many_documents(30))
    with names(ConfigError, "--max-length 9", 10):
        splits(path, max_length=9)
    assert len(splits(path, max_length=10).train) > 60
    with names(ConfigError, 2, 1):
        splits(path, rows=1)
    for share in (-0.1, 1.0, float("nan")):
        with names(ConfigError, share):
            splits(path, held_out=share)
    with names(DataError, tmp_path / "short.txt", 1, 20):
        splits(write(tmp_path, "twelveletters", "short.txt"))
    with names(DataError, tmp_path / "short.txt", 0, 20):
        splits(write(tmp_path, "a few", "short.txt"))
    taken = write(tmp_path, "", "taken")
    with names(DataError, taken, path):
        splits(path, folder=taken)
    with names(DataError, tmp_path / "absent.txt"):
        splits(tmp_path / "absent.txt")


def test_cutting_takes_no_more_memory_for_more_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_BATCH", 1000)
    monkeypatch.setattr(corpus_module, "PIECES_PER_BATCH", 20)

    def peak(documents: int) -> int:
        path = write(tmp_path, (("abcdefgh" * 5 + "\n") * 5 + "\n") * documents, f"{documents}.txt")
        tracemalloc.start()
        try:
            assert splits(path).corpus.documents == documents
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    # 400 kB of text more make 20,000 pieces more; an index of 8 bytes a piece is all that may grow with them.
    assert peak(2000) < peak(200) + 20_000 * 40


# -------------------------------------------------------------------------------------------------------- real text


@pytest.mark.skipif(not WIKIPEDIA.is_file(), reason="the sibling data folder is not here")
def test_real_text(tmp_path: Path, tiny_tokenizer) -> None:
    with closing(read_corpus(WIKIPEDIA)) as paragraphs:
        first = list(islice(paragraphs, 50))
    assert first[0].text.startswith("Anarchism is a political philosophy")
    assert len({paragraph.document for paragraph in first}) >= 1
    found = splits(WIKIPEDIA, text_encoder(tiny_tokenizer), max_length=128, rows=300, folder=tmp_path, held_out=0.02)
    assert len(found.held_out) == 6
    assert found.corpus.pieces == 300
    lengths = np.array(found.train["length"][:])
    assert (lengths == 128).mean() > 0.9
    index = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert index["counts"]["tokens"] == found.corpus.tokens
