"""The teacher cache: what is read equals what the live teacher says, and nothing half-written is ever read."""

import json
import multiprocessing
import os
import re
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from datasets import Dataset
from filelock import FileLock
from messages import names, unnamed

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.errors import CacheError, CaptureError, LayerCountError
from emdistill.files import sha256
from emdistill.models import Teacher, cache_files, cache_shards
from emdistill.models.cache_files import Layout, parts_of
from emdistill.models.teacher_cache import open_teacher_cache
from emdistill.states import EncoderShape

TEXTS = ("a good movie", "bad", "it was not a very good book of the movie", "the book is good and bad", "it", "x7! y")
PAIRS = ("it was", "the movie is a book, is it not", "bad", "a", "to the good book", "of")
VECTORS = ("queries", "keys", "values")
STATES = ("embeddings", "hidden", "attention", *VECTORS)
FAMILIES = ("bert", "roberta", "electra", "distilbert")


def forks(test):
    """Runs itself in forked processes."""
    test = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")(test)


class CountingTeacher(Teacher):
    """Counts its passes; the `fails_at`-th fails."""

    passes = 0
    fails_at = 0

    def __call__(self, inputs, needs=(), layers=None):
        self.passes += 1
        if self.passes == self.fails_at:
            self.fail()
        return super().__call__(inputs, needs, layers)

    def fail(self):
        raise KeyboardInterrupt


def cache_bytes(shape, outputs, lengths, needs, layers=None):
    layout = Layout(shape, outputs, lengths)
    return sum(layout.file_bytes(part) for part in parts_of(shape, needs, layers))


def test_a_layout_takes_sixteen_bytes_a_row_and_finds_every_place():
    lengths = np.random.default_rng(0).integers(1, 40, 1000)
    layout = Layout(EncoderShape(3, 8, 2), 2, lengths)
    starts = layout.starts("logits")
    held = [value for value in (*vars(layout).values(), starts) if isinstance(value, np.ndarray)]
    assert sum(value.nbytes for value in held if any(value.strides)) == 16 * 1000
    rank = np.argsort(np.argsort(-lengths, kind="stable"))
    assert (starts == 2 * rank).all()
    squares = np.square(lengths)[layout.order]
    assert (layout.starts("attention")[layout.order] == 2 * (np.cumsum(squares) - squares)).all()


def encode(tokenizer, texts=TEXTS, pairs=None, family="bert"):
    columns = {"text": list(texts), "label": [0] * len(texts)} | ({"text_pair": list(pairs)} if pairs else {})
    segments = [] if family == "distilbert" else ["token_type_ids"]
    tokenizer.model_input_names = ["input_ids", *segments, "attention_mask"]
    return tokenise(Dataset.from_dict(columns), tokenizer, 64)


def make_batch(examples, tokenizer, rows):
    names = [name for name in examples.column_names if name not in {"length", "labels"}]
    inputs = PaddingCollator(tokenizer)([examples.select_columns(names)[row] for row in rows])
    return dict(inputs) | {"row": torch.tensor(rows), "labels": torch.zeros(len(rows))}


def assert_like_live(cached, live):
    """Logits to 1e-5, states to half precision, zeros at padding."""
    assert cached.logits.dtype == torch.float32
    torch.testing.assert_close(cached.logits, live.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(cached.mask, live.mask)
    token = live.mask.bool()
    pairs = token[:, None, :, None] & token[:, None, None, :]
    places = [(token[:, :, None], cached.embeddings, live.embeddings)]
    for name in ("hidden", *VECTORS):
        by_layer = zip(getattr(cached, name), getattr(live, name), strict=True)
        places += [(token[:, :, None], *states) for states in by_layer]
    places += [(pairs, *states) for states in zip(cached.attention_scores, live.attention_scores, strict=True)]
    for place, state, expected in places:
        assert (state is None) == (expected is None)
        if expected is not None:
            assert state.dtype == torch.float16
            expected = expected * place
            assert ((state.float() - expected).abs() <= 2**-10 * expected.abs() + 1e-6).all()
            assert not state[~place.expand_as(state)].any()


@pytest.fixture
def setting(tiny_encoder, tiny_tokenizer, tmp_path):
    """open(needs, layers, **changes) over one teacher, its examples and one folder."""

    class Setting:
        teacher = CountingTeacher(tiny_encoder(layers=3))
        tokenizer = tiny_tokenizer
        examples = encode(tiny_tokenizer)
        folder = tmp_path / "cache"

        def open(self, needs=(), layers=None, **changes):
            options = {"teacher": self.teacher, "examples": self.examples, "folder": self.folder} | changes
            collate = PaddingCollator(self.tokenizer)
            return open_teacher_cache(
                **{"collate": collate, "tokens_per_batch": 12} | options, needs=needs, layers=layers
            )

        def batch(self, *rows):
            return make_batch(self.examples, self.tokenizer, list(rows))

        def check(self, cache, needs=(), layers=None, rows=(2, 4, 0)):
            inputs = self.batch(*rows)
            assert_like_live(cache(inputs, needs, layers), Teacher(self.teacher.model)(inputs, needs, layers))

        @property
        def files(self):
            return sorted(path.name for path in self.folder.glob("*/*"))

        def lacks_all_but_what_is_begun(self):
            return all(name.endswith(".begun") or name == "progress.json" for name in self.files)

        def file(self, name):
            (path,) = self.folder.glob(f"*/{name}")
            return path

    return Setting()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_states_are_the_live_ones(family, side, tiny_encoder, tiny_tokenizer, tmp_path):
    teacher = Teacher(tiny_encoder(family, layers=2))
    examples = encode(tiny_tokenizer, pairs=PAIRS, family=family)
    options = {"needs": STATES, "collate": PaddingCollator(tiny_tokenizer)}
    for tokens in (1, 40, 8192):  # one example a pass, a few, all
        cache = open_teacher_cache(teacher, examples, tmp_path / str(tokens), tokens_per_batch=tokens, **options)
        for rows in ([0, 1, 2, 3, 4, 5], [3, 3, 1], [5]):
            inputs = make_batch(examples, tiny_tokenizer, rows)
            live = teacher(inputs, STATES)
            if (
                side == "left"
            ):  # most families count positions from the left: live padding moves the tokens, cached does not
                inputs, live = flipped(inputs, live)
            assert_like_live(cache(inputs, STATES), live)


def flipped(inputs, live):
    """The same tokens with their padding on the left: every padded position is rolled to the front."""
    shifts = (inputs["attention_mask"] == 0).sum(1).tolist()

    def roll(tensor, dims):
        return torch.stack([row.roll([shift] * len(dims), dims) for row, shift in zip(tensor, shifts, strict=True)])

    names = ("input_ids", "attention_mask")
    inputs = inputs | {name: roll(inputs[name], (0,)) for name in names}
    hidden = tuple(roll(state, (0,)) for state in live.hidden)
    scores = tuple(roll(state, (1, 2)) for state in live.attention_scores)
    vectors = {name: tuple(roll(state, (0,)) for state in getattr(live, name)) for name in VECTORS}
    moved = {"mask": inputs["attention_mask"], "embeddings": roll(live.embeddings, (0,))}
    return inputs, type(live)(live.logits, **moved, hidden=hidden, attention_scores=scores, **vectors)


def test_left_padding_while_writing(tiny_encoder, tiny_tokenizer, tmp_path):
    tiny_tokenizer.padding_side = "left"
    teacher = Teacher(tiny_encoder("roberta"))  # counts positions from the first token
    examples = encode(tiny_tokenizer)
    cache = open_teacher_cache(teacher, examples, tmp_path, needs=STATES, collate=PaddingCollator(tiny_tokenizer))
    inputs = make_batch(examples, tiny_tokenizer, [1, 2, 3])
    assert inputs["attention_mask"][0, 0] == 0
    assert_like_live(cache(inputs, STATES), teacher(inputs, STATES))


def test_a_regression_teacher(setting, tiny_encoder):
    setting.teacher = Teacher(tiny_encoder(labels=1))
    setting.check(setting.open())


def test_padding_within_examples_is_not_stored(setting):
    padded = setting.examples.map(
        lambda row: {"input_ids": [*row["input_ids"], 0, 0], "attention_mask": [*row["attention_mask"], 0, 0]},
        remove_columns="token_type_ids",
    )
    cache = setting.open(STATES, examples=padded)
    inputs = make_batch(padded, setting.tokenizer, [0, 1])
    assert_like_live(cache(inputs, STATES), setting.teacher(inputs, STATES))
    assert cache.layout.lengths.tolist() == list(setting.examples["length"])


@pytest.mark.parametrize(
    ("needs", "layers"),
    [
        ((), None),
        (STATES, None),
        (("hidden",), [0, 2]),
        (("attention", "hidden"), [1]),
        (VECTORS, [2]),
        (["keys"], None),
    ],
)
def test_size_is_known_beforehand(setting, needs, layers):
    lengths = list(setting.examples["length"])
    cache = setting.open(needs, layers)
    setting.check(cache, needs, layers)
    size = cache_bytes(setting.teacher.shape, setting.teacher.outputs, lengths, needs, layers)
    assert size == sum(path.stat().st_size for path in setting.folder.glob("*/*.bin"))
    count = 3 if layers is None else len(layers)
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    vectors = len({"hidden", *VECTORS} & {*needs})
    by_hand = 4 * 2 * len(lengths) + 2 * 32 * tokens * (("embeddings" in needs) + count * vectors)
    assert size == by_hand + 2 * 4 * squares * count * ("attention" in needs)


def test_bert_base_with_everything_takes_what_was_measured():
    # 0.67 MB an example of 26 tokens: 12 hidden states and 12 score maps of BERT-base
    size = cache_bytes(EncoderShape(12, 768, 12), 2, [26], ("hidden", "attention"))
    assert size == pytest.approx(0.67e6, rel=0.01)


def test_it_is_written_once(setting):
    setting.check(setting.open(STATES), STATES)
    passes, written = setting.teacher.passes, setting.files
    assert passes == 4  # lengths 12 | 8 | 6, 5 | 3, 3 in at most 12 positions
    setting.check(setting.open(STATES), STATES)
    assert (setting.teacher.passes, setting.files) == (passes, written)
    assert [path.name for path in setting.folder.iterdir() if path.suffix != ".lock"] == [
        setting.file("index.json").parent.name
    ]


def test_less_uses_what_is_there_and_more_is_added(setting):
    setting.check(setting.open(("hidden",), [1]), ("hidden",), [1])
    first = setting.file("hidden-1.bin").stat().st_mtime_ns
    passes = setting.teacher.passes
    setting.check(setting.open())
    assert setting.teacher.passes == passes
    wider = setting.open(("hidden", "attention"), [1, 2])
    assert setting.teacher.passes == 2 * passes
    setting.check(wider, ("hidden", "attention"), [1, 2])
    setting.check(wider, ("attention",), [2])
    assert setting.file("hidden-1.bin").stat().st_mtime_ns == first
    assert setting.files == [
        "attention-1.bin",
        "attention-2.bin",
        "hidden-1.bin",
        "hidden-2.bin",
        "index.json",
        "logits.bin",
    ]
    index = json.loads(setting.file("index.json").read_text())
    assert {entry["file"]: entry["bytes"] for entry in index["files"]} == {
        path.name: path.stat().st_size for path in setting.folder.glob("*/*.bin")
    }


def test_queries_keys_and_values_are_added_to_an_older_cache(setting):
    setting.open(("hidden", "attention"))
    before = {name: setting.file(name).stat().st_mtime_ns for name in setting.files if name.endswith(".bin")}
    setting.check(setting.open(VECTORS, [2]), VECTORS, [2])
    assert {name: setting.file(name).stat().st_mtime_ns for name in before} == before
    assert {*setting.files} - {*before, "index.json"} == {"queries-2.bin", "keys-2.bin", "values-2.bin"}
    cached = setting.open(("values",), [2])(setting.batch(0, 4), ("values",), [2])
    assert cached.queries == cached.keys == cached.hidden == ()
    assert [state is None for state in cached.values] == [True, True, False]


def test_the_index_says_what_the_files_hold(setting):
    setting.open(STATES, [0])
    index = json.loads(setting.file("index.json").read_text())
    lengths = list(setting.examples["length"])
    shapes = {entry["file"]: (entry["dtype"], entry["shape"]) for entry in index["files"]}
    assert shapes == {
        "logits.bin": ("float32", [6, 2]),
        "embeddings.bin": ("float16", [sum(lengths), 32]),
        **{f"{kind}-0.bin": ("float16", [sum(lengths), 32]) for kind in ("hidden", *VECTORS)},
        "attention-0.bin": ("float16", [4 * sum(length**2 for length in lengths)]),
    }
    assert (index["rows"], index["tokens"]) == (6, sum(lengths))
    assert setting.folder / index["key"][:16] == setting.file("index.json").parent


def test_what_was_not_cached_is_refused(setting):
    cache = setting.open(("hidden",), [0, 2])
    inputs = setting.batch(0, 1)
    with names(CacheError, "hidden of layer 1"):
        cache(inputs, ("hidden",))
    with names(CacheError, "embeddings", "attention of layer 0"):
        cache(inputs, ("embeddings", "attention"), [0])
    with names(CacheError, "queries of layer 2", "values of layer 2"):
        cache(inputs, ("values", "queries"), [2])
    with names(CaptureError, "'scores'"):
        cache(inputs, ("scores",))
    with names(CaptureError, "'scores'"):
        setting.open(("scores",))
    with names(LayerCountError, "[1, 3]", "0..2"):
        setting.open(("hidden",), [1, 3])


def test_other_examples_are_refused(setting):
    cache = setting.open()
    inputs = setting.batch(0, 1)
    with names(CacheError, "example 2", 5, 12):
        cache(inputs | {"row": torch.tensor([2, 1])})
    with names(CacheError, "1..6", 6):
        cache(inputs | {"row": torch.tensor([6, 1])})
    with names(CacheError, "-1..1"):
        cache(inputs | {"row": torch.tensor([-1, 1])})
    with names(CacheError, "example 1"):
        cache(inputs | {"attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1]])})
    with names(CacheError, "row"):
        cache({"attention_mask": inputs["attention_mask"]})
    with names(CacheError, "examples"):
        setting.open(examples=setting.examples.select([]))


def key_of(setting, **changes):
    shutil.rmtree(setting.folder, ignore_errors=True)
    setting.open(**changes)
    return json.loads(setting.file("index.json").read_text())["key"]


def test_the_key_is_what_decides_the_outputs(setting, tiny_encoder, tiny_tokenizer):
    key = key_of(setting)
    renamed = tiny_encoder(layers=3)
    renamed.config.id2label = {0: "bad", 1: "good"}
    renamed.config._name_or_path = "/elsewhere"
    assert key == key_of(setting, teacher=Teacher(renamed))
    assert key == key_of(setting, tokens_per_batch=100, needs=("hidden",))
    assert key == key_of(setting, examples=setting.examples.remove_columns(["labels", "length"]))
    assert key == key_of(setting, examples=setting.examples.with_format("torch"))

    other_config = tiny_encoder(layers=3)
    other_config.config.layer_norm_eps = 1e-3
    segments = setting.examples.map(lambda row: {"token_type_ids": [1] * row["length"]})
    moved = setting.examples.map(lambda row: {"input_ids": row["input_ids"][::-1]})
    others = {
        "weights": {"teacher": Teacher(tiny_encoder(layers=3, seed=1))},
        "config": {"teacher": Teacher(other_config)},
        "precision": {"teacher": Teacher(tiny_encoder(layers=3), dtype=torch.bfloat16)},
        "rounded weights": {"teacher": Teacher(tiny_encoder(layers=3).bfloat16())},
        "order": {"examples": setting.examples.select([1, 0, 2, 3, 4, 5])},
        "fewer": {"examples": setting.examples.select(range(5))},
        "ids": {"examples": moved},
        "segments": {"examples": segments},
        "no segments": {"examples": setting.examples.remove_columns("token_type_ids")},
    }
    keys = {name: key_of(setting, **changes) for name, changes in others.items()}
    assert len({key, *keys.values()}) == 1 + len(others), keys


def test_a_teacher_in_bfloat16(setting, tiny_encoder):
    setting.teacher = Teacher(tiny_encoder(layers=3), dtype=torch.bfloat16)
    cache = setting.open(STATES, tokens_per_batch=1)
    inputs = setting.batch(2)
    live, cached = setting.teacher(inputs, STATES), cache(inputs, STATES)
    assert live.logits.dtype == torch.bfloat16
    assert torch.equal(cached.logits, live.logits.float())
    assert torch.equal(cached.hidden[1], live.hidden[1].half())


def test_an_interrupted_run_is_gone_on_with_and_ends_alike(setting, capsys):
    setting.open(STATES)
    whole = {name: setting.file(name).read_bytes() for name in setting.files}
    passes = setting.teacher.passes
    shutil.rmtree(setting.folder)
    setting.teacher.passes, setting.teacher.fails_at = 0, 3
    with pytest.raises(KeyboardInterrupt):
        setting.open(STATES)
    assert setting.lacks_all_but_what_is_begun()
    setting.teacher.passes, setting.teacher.fails_at = 2, 0
    setting.check(setting.open(STATES), STATES)
    assert {name: setting.file(name).read_bytes() for name in setting.files} == whole
    assert setting.teacher.passes == passes  # none was done twice
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("damage", "passes"), [("a bit", 3), ("cut short", 4), ("progress", 4), ("other states", 4)])
def test_what_was_begun_is_taken_up_as_it_was_written_or_not_at_all(setting, damage, passes):
    """Two of four shards were safe: one whose bytes differ is computed again, and no other."""
    setting.teacher.fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        setting.open(STATES)
    begun = setting.file("hidden-1.bin.begun" if damage != "progress" else "progress.json")
    content = begun.read_bytes()
    begun.write_bytes(content[:40] if damage == "cut short" else bytes([content[0] ^ 1]) + content[1:])
    setting.teacher.passes, setting.teacher.fails_at = 0, 0
    needs = ("hidden",) if damage == "other states" else STATES
    setting.check(setting.open(needs), needs)
    assert setting.teacher.passes == passes
    assert not [name for name in setting.files if "begun" in name or "progress" in name]


@forks
def test_a_killed_run_is_gone_on_with_and_its_lock_is_free(setting, capsys):
    setting.open(("hidden",), [0])
    setting.teacher.passes, setting.teacher.fails_at = 0, 3
    setting.teacher.fail = lambda: os._exit(9)  # no clean-up of any kind
    child = multiprocessing.get_context("fork").Process(target=setting.open, args=(STATES,), daemon=True)
    child.start()
    child.join(30)
    assert child.exitcode == 9
    assert {"attention-2.bin.begun", "shard-2.lock"} <= {*setting.files}
    setting.teacher.passes = setting.teacher.fails_at = 0
    # What a kill between the renaming of the files and that of the index leaves besides.
    for name in ("hidden-1.bin", "index.json.1.part"):
        (setting.file("index.json").parent / name).write_bytes(b"half")
    setting.check(setting.open(STATES), STATES)
    assert setting.teacher.passes == 2
    assert {"hidden-0.bin", "hidden-1.bin", "hidden-2.bin", "index.json", "logits.bin"} <= {*setting.files}
    assert not [name for name in setting.files if not name.endswith(".bin") and name != "index.json"]
    assert capsys.readouterr().err == ""


def test_a_bit_that_flips_is_found_by_the_checksum(setting, capsys, monkeypatch):
    setting.open(("hidden",))
    path = setting.file("hidden-1.bin")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(cache_files, "_read_once", lambda path, *_: sha256(path))  # as another process would
    setting.check(setting.open(("hidden",)), ("hidden",))
    (line,) = capsys.readouterr().err.splitlines()
    assert not unnamed(line, "hidden-1.bin", "checksum")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("index.json", b"{", ["JSONDecodeError"]),
        ("index.json", b"\xff\xfe", ["UnicodeDecodeError"]),
        ("index.json", b"[]", ["TypeError"]),
        ("index.json", b"{}", ["KeyError"]),
        ("index.json", b'{"format": 1, "key": "0", "files": []}', []),
        ("hidden-1.bin", b"x" * 10, [10, 2368]),
        ("logits.bin", b"", [0, 48]),
        ("hidden-0.bin", None, [0, 2368]),
    ],
)
def test_damaged_files_are_written_anew(setting, capsys, name, content, named):
    setting.open(("hidden",))
    path = setting.file(name)
    path.unlink() if content is None else path.write_bytes(content)
    setting.check(setting.open(("hidden",)), ("hidden",))
    (line,) = capsys.readouterr().err.splitlines()
    assert not unnamed(line, name, *named)
    setting.open(("hidden",))
    assert capsys.readouterr().err == ""


def test_what_does_not_fit_on_the_disk_is_refused(setting, monkeypatch):
    size = cache_bytes(setting.teacher.shape, 2, list(setting.examples["length"]), STATES)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, int(size / 0.95) - 10))
    with names(CacheError, "0.00 GiB", setting.folder, "--teacher-cache logits", "--teacher-cache-folder"):
        setting.open(STATES)
    assert setting.files == []
    setting.check(setting.open())  # the logits fit
    setting.check(setting.open(STATES), STATES)  # and now the rest does
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 0))
    setting.open(STATES)  # nothing is to be written


def test_a_gibibyte_is_left_free_on_a_large_disk(setting, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 100 * 2**30))
    monkeypatch.setattr("emdistill.models.cache_files.Layout.file_bytes", lambda *_: 99 * 2**30 + 1)
    with names(CacheError, "99.00 GiB", setting.folder, "100.00 GiB"):
        setting.open()


def test_a_disk_that_fills_up_is_an_error(setting, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with names(CacheError, "No space left on device", setting.folder, "--teacher-cache-folder"):
        setting.open()
    assert setting.files == []


def test_a_folder_that_is_a_file_is_refused(setting):
    setting.folder.write_text("no folder")
    with names(CacheError, setting.folder, "--teacher-cache-folder"):
        setting.open()


@pytest.mark.parametrize(("kind", "value"), [("hidden", float("nan")), ("hidden", 70000.0), ("attention", 1e5)])
def test_states_beyond_half_precision_are_refused(setting, monkeypatch, kind, value):
    def spoiled(self, inputs, needs=(), layers=None):
        states = Teacher.__call__(self, inputs, needs, layers)
        if kind in needs:  # what stands at padding is not kept and may be anything
            states.hidden[1][states.mask == 0] = 1e30
            states.attention_scores[1].masked_fill_(states.mask[:, None, None, :] == 0, 1e30)
            {"hidden": states.hidden, "attention": states.attention_scores}[kind][1][0, 0, 0] = value
        return states

    monkeypatch.setattr(CountingTeacher, "__call__", spoiled)
    with names(CacheError, f"{kind} of layer 1", re.compile(r"example \d"), 65504):
        setting.open(("hidden", "attention"))
    assert setting.files == []
    setting.open()


def test_logits_that_are_nan_are_refused(setting):
    setting.teacher.model.classifier.bias.data[1] = torch.nan
    with names(CacheError, "logits", "example 2", "NaN"):
        setting.open()


def test_a_second_run_waits_and_finds_the_cache_finished(setting, tiny_encoder, capsys):
    entered, leave = threading.Event(), threading.Event()

    class Slow(CountingTeacher):
        def __call__(self, inputs, needs=(), layers=None):
            entered.set()
            assert leave.wait(20)
            return super().__call__(inputs, needs, layers)

    class Unneeded(Teacher):
        def __call__(self, inputs, needs=(), layers=None):
            raise AssertionError("the second run has no pass to make")

    first = Slow(tiny_encoder(layers=3))
    caches = {}

    def run(name, teacher):
        caches[name] = setting.open(STATES, teacher=teacher, tokens_per_batch=1000)

    threads = [threading.Thread(target=run, args=("first", first), daemon=True)]
    threads[0].start()
    assert entered.wait(20)
    threads.append(threading.Thread(target=run, args=("second", Unneeded(tiny_encoder(layers=3))), daemon=True))
    threads[1].start()
    printed = ""
    for _ in range(400):
        printed += capsys.readouterr().err
        if printed:
            break
        threads[1].join(0.05)
    assert printed.count("\n") == 1
    leave.set()
    for thread in threads:
        thread.join(20)
    for name in ("first", "second"):
        setting.check(caches[name], STATES)


def bytes_of(setting):
    return {name: setting.file(name).read_bytes() for name in setting.files}


class Held(CountingTeacher):
    """Its first pass waits until it may go on."""

    def __init__(self, model):
        super().__init__(model)
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, inputs, needs=(), layers=None):
        self.entered.set()
        assert self.leave.wait(20)
        return super().__call__(inputs, needs, layers)


@pytest.mark.parametrize("needs", [STATES, ("hidden",)])
def test_who_comes_later_computes_the_shards_that_nobody_is_at(setting, tiny_encoder, needs):
    """All but one of them; also where it needs less than is being written."""
    setting.open(STATES)
    alone = bytes_of(setting)
    shutil.rmtree(setting.folder)
    setting.teacher.passes = 0
    first = Held(tiny_encoder(layers=3))
    thread = threading.Thread(target=setting.open, args=(STATES,), kwargs={"teacher": first}, daemon=True)
    thread.start()
    assert first.entered.wait(20)
    later = threading.Thread(target=setting.open, args=(needs,), daemon=True)
    later.start()
    for _ in range(400):
        if setting.teacher.passes == 3:
            break
        later.join(0.05)
    assert later.is_alive()  # it waits for the last shard
    first.leave.set()
    for each in (thread, later):
        each.join(20)
    assert (first.passes, setting.teacher.passes) == (1, 3)
    assert bytes_of(setting) == alone
    setting.check(setting.open(STATES), STATES)


@forks
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_killed_workers_lose_the_shards_in_work_and_no_more(setting, workers):
    """Workers that die at one of their passes, round after round: the files are those of one process."""
    texts = [" ".join(TEXTS[: 1 + row % 5]) for row in range(40)]
    options = {"examples": encode(setting.tokenizer, texts), "tokens_per_batch": 60}
    setting.open(("hidden",), **options)
    alone, batches = bytes_of(setting), setting.teacher.passes
    shutil.rmtree(setting.folder)
    log = setting.folder.with_name("passes")
    log.write_bytes(b"")
    kills = 0

    def work(dies_at):
        def noted(self, *args):
            with log.open("ab") as file:
                file.write(b".")
            setting.teacher.passes += 1
            if setting.teacher.passes == dies_at:
                os._exit(9)
            return Teacher.__call__(self, *args)

        setting.teacher.passes = 0
        CountingTeacher.__call__ = noted
        setting.open(("hidden",), **options)

    context = multiprocessing.get_context("fork")
    for a_round in range(4):
        last = a_round == 3
        processes = [
            context.Process(target=work, args=(0 if last else 2 + (worker + a_round) % 2,), daemon=True)
            for worker in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert {process.exitcode for process in processes} <= ({0} if last else {0, 9})
        kills += sum(process.exitcode == 9 for process in processes)
    assert kills >= 3
    assert len(log.read_bytes()) == batches + kills
    assert bytes_of(setting) == alone


def test_many_batches_are_a_shard(setting, monkeypatch):
    setting.open(STATES)
    alone = bytes_of(setting)
    shutil.rmtree(setting.folder)
    monkeypatch.setattr(cache_shards, "MOST_SHARDS", 2)
    setting.teacher.passes, setting.teacher.fails_at = 0, 4
    with pytest.raises(KeyboardInterrupt):
        setting.open(STATES)
    assert setting.lacks_all_but_what_is_begun()
    setting.open(STATES)  # the third batch was not safe without the fourth
    assert setting.teacher.passes == 6
    assert bytes_of(setting) == alone


@forks
def test_two_processes_at_once(setting):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def run():
        barrier.wait(20)
        setting.check(setting.open(STATES), STATES)

    processes = [context.Process(target=run, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    setting.check(setting.open(STATES), STATES)
    assert setting.teacher.passes == 0  # this process wrote nothing


def test_reading_needs_no_lock(setting):
    setting.open(STATES)
    with FileLock(setting.file("index.json").parent.with_suffix(".lock")):
        setting.check(setting.open(("hidden",)), ("hidden",))


def test_states_are_copies_of_files_that_cannot_be_written_to(setting):
    cache = setting.open(STATES)
    inputs = setting.batch(0, 1)
    cache(inputs, STATES).hidden[0].add_(1)
    setting.check(cache, STATES, rows=(0, 1))
    assert not any(numbers.flags.writeable for numbers in cache._numbers.values())
