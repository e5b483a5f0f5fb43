"""Groups are measured as they are, and a gap is more than chance only where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from probe_sets import crowd, made_up, measures_of

from engine.errors import SetupProblem
from gallery.evaluation.groups import FEWEST, Group, group_people
from gallery.evaluation.measures import Measures
from gallery.evaluation.photos import PeopleLabels, read_labels
from gallery.records import Person
from gallery.scores import score_at


def known(labels: dict[str, tuple[str, ...]], kind: str = "gender") -> PeopleLabels:
    everything = {name: {} for name in ("category", "country", "gender")}
    return PeopleLabels(everything | {kind: labels})


@pytest.fixture(scope="module")
def uneven() -> tuple[Measures, PeopleLabels]:
    """Forty people who lean one way and are alike, and forty who are not."""
    alike = crowd(40, 5, noise=0.2, prefix="Alike", leaning=1.5, seed=1)
    unlike = crowd(40, 5, noise=0.2, prefix="Unlike", seed=2)
    labels = {name: (name.split()[0],) for name in (*alike, *unlike)}
    return measures_of(made_up(alike | unlike)), known(labels)


def likeness_within(measures: Measures, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Likenesses of a group's probes to the group's people, and which of them are strangers."""
    probe_set = measures.probe_set
    columns = np.array(
        [n for n in range(len(probe_set.people)) if probe_set.name(n).startswith(prefix)]
    )
    rows = np.flatnonzero(np.isin(probe_set.right, columns))
    likeness = np.concatenate([found for _, found in probe_set.likenesses(rows, columns)])
    return likeness, probe_set.right[rows][:, None] != columns


def test_a_group_is_measured_among_its_own(uneven: tuple[Measures, PeopleLabels]) -> None:
    measures, labels = uneven
    (grouping,) = group_people(measures, labels)
    measured = {group.name: group for group in grouping.judged}

    for name in ("Alike", "Unlike"):
        likeness, strangers = likeness_within(measures, name)
        scores = measures.calibration.scores(likeness[strangers])
        own = likeness[~strangers]
        group = measured[name]
        assert (group.people, group.probes, group.stranger_pairs) == (40, 80, 80 * 39)
        assert group.measures["strangers_1_in_100"].value == pytest.approx(
            np.mean(scores >= score_at(1e-2))
        )
        assert group.measures["strangers_1_in_1000"].value == pytest.approx(
            np.mean(scores >= score_at(1e-3))
        )
        assert group.measures["tar"].value == pytest.approx(np.mean(own >= measures.strict))
        right = (
            np.mean(own >= measures.threshold) + np.mean(likeness[strangers] < measures.threshold)
        ) / 2
        assert group.measures["accuracy"].value == pytest.approx(right)
        assert group.strangers_median == pytest.approx(np.median(scores), abs=0.1)
        for share in group.measures.values():
            assert share.low <= share.value <= share.high


def test_a_gap_that_is_there_is_more_than_chance(uneven: tuple[Measures, PeopleLabels]) -> None:
    (grouping,) = group_people(*uneven)
    gaps = {gap.measure: gap for gap in grouping.gaps}

    assert set(gaps) == {"accuracy", "rank_1", "strangers_1_in_100"}
    assert gaps["strangers_1_in_100"].exceeds_chance
    assert (gaps["strangers_1_in_100"].best, gaps["strangers_1_in_100"].worst) == (
        "Unlike",
        "Alike",
    )
    assert gaps["strangers_1_in_100"].best_value < gaps["strangers_1_in_100"].worst_value
    assert gaps["accuracy"].best == "Unlike"


def test_random_labels_are_no_more_than_chance() -> None:
    """Five divisions at random: their gaps look like those of random divisions."""
    people = crowd(60, 5, noise=0.3)
    measures = measures_of(made_up(people))
    chances = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(list(people))
        labels = {str(name): ("ab"[place % 2],) for place, name in enumerate(order)}
        (grouping,) = group_people(measures, known(labels))
        chances += [gap.share_of_random_divisions for gap in grouping.gaps]

    assert np.median(chances) > 0.2
    assert sum(chance < 0.01 for chance in chances) <= 1


def test_small_groups_are_named_not_judged() -> None:
    people = crowd(2 * FEWEST - 1, 4)
    names = list(people)
    labels = dict.fromkeys(names[:FEWEST], ("large",))
    labels |= dict.fromkeys(names[FEWEST:-2], ("Small", "tiny"))

    (grouping,) = group_people(measures_of(made_up(people)), known(labels, "category"))

    assert [group.name for group in grouping.judged] == ["large"]
    assert {(group.name, group.people) for group in grouping.small} == {
        ("Small", FEWEST - 3), ("tiny", FEWEST - 3),
    }  # fmt: skip
    assert grouping.unlabelled == 2
    assert grouping.gaps == ()


def test_a_perfect_group_is_not_certain() -> None:
    """Nobody is mistaken, yet the interval reaches lower: it may be luck."""
    people = crowd(25, 4, noise=0.02)
    labels = dict.fromkeys(people, ("all",))

    (grouping,) = group_people(measures_of(made_up(people)), known(labels))
    group: Group = grouping.judged[0]

    assert group.measures["rank_1"].value == 1
    assert 0.7 < group.measures["rank_1"].low < 0.95


# --- what is known ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("science/Grace_Hopper", "science/Eileen Collins", "film/José_Ferrer"):
        (tmp_path / "people" / path).mkdir(parents=True)
        (tmp_path / "people" / path / "1.jpg").write_bytes(b"")
    return tmp_path / "people"


def write(folder: Path, text: str, name: str = "people.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_folders_name_categories(folder: Path) -> None:
    found = read_labels(folder)

    assert found.labels["category"] == {
        "Grace Hopper": ("science",), "Eileen Collins": ("science",), "José Ferrer": ("film",),
    }  # fmt: skip
    assert found.sources == ("the folders",)


def test_the_gallery_adds_what_it_knows_and_the_file_counts_most(folder: Path) -> None:
    catalogue = [
        Person("Q11641", "Grace Hopper", ("navy",), "Q11641", "United States", "female", id=1),
        Person("Q99", "Jose Ferrer", (), "Q99", "Puerto Rico", None, id=2),
        Person("Q98", "Somebody Else", (), "Q98", "Peru", "male", id=3),
    ]
    write(folder, "person;country;gender\njose ferrer;United States;male\nNobody;x;y\n")

    found = read_labels(folder, gallery_people=catalogue)

    assert found.labels["country"] == {
        "Grace Hopper": ("United States",), "José Ferrer": ("United States",),
    }  # fmt: skip
    assert found.labels["gender"] == {"Grace Hopper": ("female",), "José Ferrer": ("male",)}
    assert set(found.labels["category"]["Grace Hopper"]) == {"science", "navy"}
    assert found.sources == ("the folders", "the gallery", "the file people.csv")
    assert found.unmatched == ("Nobody",)


def test_several_categories(folder: Path) -> None:
    write(
        folder, "person,category\nGrace Hopper,navy; maths ;\nGrace_Hopper,computing\n"
    )  # science is its folder

    assert set(read_labels(folder).labels["category"]["Grace Hopper"]) == {
        "navy", "maths", "computing", "science",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "name,country\nGrace Hopper,US\n", "\n\n"])
def test_a_file_without_people(folder: Path, text: str) -> None:
    with pytest.raises(SetupProblem, match="needs the column person"):
        read_labels(folder, write(folder, text, "other.csv"))


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(SetupProblem, match="can't be read"):
        read_labels(folder, folder / "nowhere.csv")


def test_spellings_of_one_label_are_one_group() -> None:
    people = crowd(FEWEST, 4)
    labels = {name: ("Female" if n % 3 else "female",) for n, name in enumerate(people)}

    (grouping,) = group_people(measures_of(made_up(people)), known(labels))

    assert [(group.name, group.people) for group in grouping.judged] == [("Female", FEWEST)]
