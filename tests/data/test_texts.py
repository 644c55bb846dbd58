"""Texts in one buffer are the same as a list of them, and take a fraction of its memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from foveate.data.texts import MadeTexts, Texts

# Python holds a byte of a file name that is not UTF-8 as one of the characters from U+DC80 on.
_TEXTS = st.lists(st.text(st.sampled_from("/ab.é\udc80\0"), max_size=8), max_size=6)


@given(_TEXTS, st.slices(6))
def test_they_are_those_of_a_list(texts: list[str], part: slice) -> None:
    kept = Texts(texts)
    made = MadeTexts(len(texts), texts.__getitem__)
    for each in (kept, made):
        assert each == texts
        assert list(each) == texts
        assert each[part] == texts[part]
        assert list(each[part][::-1]) == texts[part][::-1]
        assert [each[-place - 1] for place in range(len(texts))] == texts[::-1]
        assert (each != texts[1:]) is bool(texts)


def test_a_path_takes_a_few_tens_of_bytes() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = Texts(f"/a/folder/far/below/the/root/of/the/disk/class {i % 10}/{i:012}.jpg" for i in range(10_000))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken / len(kept) < 40
