"""Figures against values by hand, and against a slow implementation of the definitions."""

import random

import numpy as np
import pytest

from hycir_train import metrics
from tests.hycir_train import slow
from tests.hycir_train.files import some

# -- rankings -----------------------------------------------------------------------------------------------


def test_ties_go_to_the_lower_gallery_index():
    similarity = np.array([[0.5, 0.9, 0.5, 0.9, 0.1], [0.0, -0.0, 0.0, -0.0, 0.0]])
    assert metrics.rank(similarity, 4).tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert metrics.rank(similarity, 3).tolist() == [[1, 3, 0], [0, 1, 2]]  # the tie is cut


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_rank_is_a_sort_by_similarity_and_index(dtype):
    numbers = np.random.default_rng(0)
    similarity = numbers.integers(-9, 9, (40, 70)).astype(dtype)  # many ties
    exclude = numbers.integers(0, 70, 40)
    for k in (1, 7, 69):
        slowly = [sorted(range(70), key=lambda i: (-float(row[i]), i))[:k] for row in similarity]
        assert metrics.rank(similarity, k).tolist() == slowly
        slowly = [
            [i for i in sorted(range(70), key=lambda i: (-float(row[i]), i)) if i != left_out][:k]
            for row, left_out in zip(similarity, exclude, strict=True)
        ]
        assert metrics.rank(similarity, k, exclude).tolist() == slowly


def test_the_excluded_image_is_left_out_and_the_similarities_are_left_alone():
    similarity = np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]])
    before = similarity.copy()
    assert metrics.rank(similarity, 2, np.array([0, 2])).tolist() == [[1, 2], [1, 0]]
    assert (similarity == before).all()


def test_what_cannot_be_ranked():
    similarity = np.zeros((2, 3))
    assert metrics.rank(similarity, 3).shape == (2, 3)
    for k, exclude in ((4, None), (0, None), (3, np.array([0, 0]))):
        with pytest.raises(ValueError, match="cannot be ranked"):
            metrics.rank(similarity, k, exclude)
    for odd in (np.nan, np.inf, -np.inf):
        similarity[1, 1] = odd
        with pytest.raises(ValueError, match="not finite"):
            metrics.rank(similarity, 1)


def test_members_are_ranked_among_themselves():
    similarity = np.array([[0.9, 0.1, 0.5, 0.5, 0.8]])
    for members in ([[4, 3, 2, 1]], [[1, 2, 3, 4]]):  # their order does not break ties
        assert metrics.rank_members(similarity, np.array(members), 3).tolist() == [[4, 2, 3]]


# -- recall -------------------------------------------------------------------------------------------------


def test_recall_by_hand():
    rankings = np.array([["a", "b", "c"], ["b", "c", "a"], ["c", "b", "a"], ["b", "a", "c"]])
    relevant = metrics.relevance(rankings, [["a"], ["a"], ["a"], ["z"]])
    assert relevant.tolist() == [[True, False, False], [False, False, True], [False, False, True], [False] * 3]
    assert [metrics.recall(relevant, k) for k in (1, 2, 3)] == [25, 25, 75]


def test_names_of_other_lengths_are_other_names():
    """NumPy's strings have a fixed width; none may be cut to it."""
    rankings = np.array([["ab", "a"]])
    assert metrics.relevance(rankings, [["abc"]]).tolist() == [[False, False]]
    assert metrics.relevance(rankings, [["a"]]).tolist() == [[False, True]]


# -- average precision --------------------------------------------------------------------------------------


def test_average_precision_by_hand():
    ranking = np.array([[1, 0, 2, 0, 3]])
    relevant = metrics.relevance(ranking, [{1, 2, 3}])
    counts = np.array([3])
    assert metrics.average_precision(relevant, counts, 1) == pytest.approx([1 / 1])
    assert metrics.average_precision(relevant, counts, 2) == pytest.approx([1 / 2])
    assert metrics.average_precision(relevant, counts, 3) == pytest.approx([(1 + 2 / 3) / 3])
    assert metrics.average_precision(relevant, counts, 5) == pytest.approx([(1 + 2 / 3 + 3 / 5) / 3])


def test_the_divisor_is_the_smaller_of_truths_and_k():
    perfect = np.ones((1, 10), bool)
    assert metrics.mean_average_precision(perfect, np.array([14]), 5) == 100  # not 5/14
    assert metrics.mean_average_precision(perfect, np.array([14]), 10) == 100
    one = np.eye(1, 10, dtype=bool)
    assert metrics.mean_average_precision(one, np.array([1]), 10) == 100  # not 1/10
    assert metrics.mean_average_precision(one, np.array([4]), 10) == 25  # three were not found
    assert metrics.mean_average_precision(one, np.array([4]), 2) == 50


def test_by_aspect_by_hand():
    precisions, aspects = np.array([1.0, 0.5, 0.0]), [("x", "y"), ("y",), ("y", "z")]
    figures = metrics.mean_by_aspect(precisions, aspects, ("z", "y", "x", "w"))
    assert figures == {"z": 0, "y": 50, "x": 100} and list(figures) == ["z", "y", "x"]


def test_figures_are_those_of_the_slow_implementation():
    draw = random.Random(6)
    names = [f"image-{i}" for i in range(300)]
    truths = [draw.sample(names, draw.randint(1, 14)) for _ in range(200)]
    rankings = [some(names, right, 50, draw) for right in truths]
    aspects = [draw.sample("abc", draw.randint(0, 3)) for _ in truths]
    relevant = metrics.relevance(np.array(rankings), truths)
    targets = metrics.relevance(np.array(rankings), [right[:1] for right in truths])
    counts = np.array([len(right) for right in truths])
    for k in (1, 5, 10, 25, 50):
        slowly = [slow.average_precision(*pair, k) for pair in zip(rankings, truths, strict=True)]
        assert metrics.average_precision(relevant, counts, k) == pytest.approx(slowly)
        assert metrics.mean_average_precision(relevant, counts, k) == pytest.approx(100 * np.mean(slowly))
        assert metrics.recall(targets, k) == pytest.approx(slow.recall(rankings, [t[0] for t in truths], k))
        for name, figure in metrics.mean_by_aspect(np.array(slowly), aspects, "abc").items():
            having = [value for value, of_query in zip(slowly, aspects, strict=True) if name in of_query]
            assert figure == pytest.approx(100 * sum(having) / len(having))


def test_no_figure_is_made_of_too_little():
    for shape, k in (((3, 4), 5), ((3, 4), 0), ((0, 4), 1)):
        with pytest.raises(ValueError, match="have no figure at"):
            metrics.recall(np.zeros(shape, bool), k)
