"""Subject filters, held to what they mean: sets of subjects."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.subject_filters import cover, includes, matches_any, overlap

TOKENS = ("a", "b")
SUBJECTS = tuple(".".join(tokens) for length in range(1, 5) for tokens in product(TOKENS, repeat=length))


def filters() -> st.SearchStrategy[str]:
    tokens = st.lists(st.sampled_from((*TOKENS, "*")), min_size=1, max_size=3)
    return st.builds(lambda middle, end: ".".join([*middle, *end]), tokens, st.sampled_from(((), (">",))))


def named_by(*patterns: str) -> set[str]:
    return {subject for subject in SUBJECTS if matches_any(patterns, subject)}


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("np.v1.evt.>", "np.v1.evt.acme.net.web.created._", True),
        ("np.v1.evt.>", "np.v1.evt", False),
        ("np.v1.evt.*.net.*.*.h1", "np.v1.evt.acme.net.web.endpoint-bound.h1", True),
        ("np.v1.evt.*.net.*.*.h1", "np.v1.evt.acme.net.web.endpoint-bound.h2", False),
        ("np.v1.evt.acme.net.web.>", "np.v1.evt.acme.net.web2.created._", False),
        ("a.*", "a.b.c", False),
        ("a.b.c", "a.b", False),
        (">", "a", True),
    ],
)
def test_a_pattern_names_subjects(pattern: str, subject: str, expected: bool) -> None:
    assert matches_any([pattern], subject) is expected


@given(filters(), filters())
def test_one_includes_the_other_when_it_names_all_of_its_subjects(outer: str, inner: str) -> None:
    assert includes(outer, inner) == (named_by(inner) <= named_by(outer))


@given(filters(), filters())
def test_two_overlap_when_they_name_a_subject_in_common(one: str, other: str) -> None:
    assert overlap(one, other) == bool(named_by(one) & named_by(other))


@given(st.lists(filters(), min_size=1, max_size=5))
def test_a_cover_names_everything_and_nothing_twice(patterns: list[str]) -> None:
    covering = cover(patterns)
    assert named_by(*patterns) <= named_by(*covering)
    assert not any(overlap(one, other) for one, other in product(covering, repeat=2) if one != other)
    assert len(set(covering)) == len(covering)


@given(filters(), filters())
def test_a_cover_of_what_does_not_overlap_is_itself(one: str, other: str) -> None:
    if not overlap(one, other):
        assert cover([one, other]) == (one, other)
