"""The words that messages share: plurals, sentences and spelling suggestions."""

import pytest

from retold.recorder.words import closest, nearest, plural, sentence


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1904, "1,904 runs")])
def test_only_one_is_singular(count: int, text: str) -> None:
    """Every other number is plural."""
    assert plural(count, "run") == text


@pytest.mark.parametrize(
    ("word", "found"), [("simpel", "simple"), ("SIMPLE", "simple"), ("consol", "Console"), ("xyz", None), ("", None)]
)
def test_the_closest_word_is_found(word: str, found: str | None) -> None:
    """Letter case does not count, and the returned word has the spelling of the list."""
    assert closest(word, ["simple", "Console"]) == found


def test_a_misspelt_word_gets_a_suggestion_or_the_list() -> None:
    """A word that is like no other gets the whole list."""
    assert nearest("simpel", ["simple", "console"]) == "; did you mean 'simple'?"
    assert nearest("xyz", ["simple", "console"]) == "; there are simple, console"
    assert nearest("xyz", []) == "; it takes none"


def test_a_sentence_ends_once() -> None:
    """A suggestion is a question and gets no full stop."""
    assert sentence("unknown handler 'simpel'; did you mean 'simple'?").endswith("'simple'?")
    assert sentence("it is a folder") == "it is a folder."
