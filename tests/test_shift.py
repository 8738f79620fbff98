"""Shift datasets: train and val of one domain, test of another one, in one label space; no image or patient slips from
one side to the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bench import registry, shift, store
from bench.audit import audit
from bench.config import load
from bench.contract import SPLITS, Dataset, Info, Split
from bench.corruptions import find
from bench.errors import DataError, UsageError
from bench.fetch import fetch
from bench.plan import make_plan
from tests.small import matrix, opened, picture
from tests.test_medmnist import server, stand_in

__all__ = ["server"]  # a fixture
pytestmark = pytest.mark.usefixtures("own_cache")


class Made(Dataset):
    """Ten images a split; image i of a split shows its number and has label i modulo the classes."""

    def __init__(self, name: str, kind: str, *classes: str, channels: int = 1, side: int = 8) -> None:
        self.info = Info(name, kind, classes, channels, licence=f"licence of {name}", citation=f"cite {name}")  # type: ignore[arg-type]
        self.notes, self.side = ("split as given",), side

    def load(self, split: str, size: int) -> Split:
        number, count = np.arange(10), len(self.info.classes)
        shape = (10, self.side, self.side) if self.info.channels == 1 else (10, self.side, self.side, 3)
        images = np.broadcast_to(number.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(np.uint8)
        labels = number % count
        if self.info.kind == "multi-label":
            labels = (labels[:, None] == np.arange(count)).astype(np.uint8)
        return Split(images, labels, np.array([f"{split}/{index}" for index in number]))

    def content_hash(self, size: int) -> str:
        return f"{self.info.name} {size}"

    def source_size(self, size: int) -> int:
        return self.side


def made(*sets: Made) -> Dataset:
    by_name = {each.info.name: each for each in sets}
    return shift.open_shift("->".join(by_name), 0, by_name.__getitem__)


def test_train_and_val_are_of_the_source_and_test_of_the_target() -> None:
    found, a, b = opened("phantom-organ-a->phantom-organ-b"), opened("phantom-organ-a"), opened("phantom-organ-b")
    assert (found.info.name, found.info.target) == ("phantom-organ-a->phantom-organ-b", "phantom-organ-b")
    assert found.info.classes == a.info.classes
    assert found.source is not None
    assert found.target is not None
    for split, of in (("train", a), ("val", a), ("test", b)):
        assert np.array_equal(found.load(split, 32).images, of.load(split, 32).images)
        assert np.array_equal(found.load(split, 32).labels, of.load(split, 32).labels)
        assert found.count(split) == of.count(split)
        assert np.array_equal(found.source.load(split, 32).images, a.load(split, 32).images)
        assert np.array_equal(found.target.load(split, 32).images, b.load(split, 32).images)
    back = opened("phantom-organ-b->phantom-organ-a")
    assert back.info.target == "phantom-organ-a"
    assert len({each.content_hash(32) for each in (found, back, a, b)}) == 4
    assert found.content_hash(32) == opened("phantom-organ-a->phantom-organ-b").content_hash(32)


def test_labels_are_matched_by_name_whatever_their_order() -> None:
    ours = Made("ours", "multi-class", "cat", "dog", "cow")
    found = made(ours, Made("theirs", "multi-class", "cow", "cat", "dog"))
    assert found.info.classes == ("cat", "dog", "cow")
    names = np.array(found.info.classes)
    assert names[found.load("test", 8).labels].tolist() == [("cow", "cat", "dog")[i % 3] for i in range(10)]
    assert names[found.load("train", 8).labels].tolist() == [("cat", "dog", "cow")[i % 3] for i in range(10)]
    assert found.target is not None
    assert found.target.info.classes == found.info.classes
    several = made(Made("ours", "multi-label", "x", "y"), Made("theirs", "multi-label", "y", "x"))
    assert several.load("test", 8).labels[:2].tolist() == [[0, 1], [1, 0]]


def test_ids_of_the_two_domains_never_meet() -> None:
    found = made(Made("ours", "binary", "a", "b"), Made("theirs", "binary", "a", "b"))
    assert found.source is not None
    assert found.target is not None
    sides = [side.load(split, 8).ids.tolist() for side in (found.source, found.target) for split in SPLITS]
    assert len(set(itertools.chain(*sides))) == 60
    assert found.load("test", 8).ids[0] == "target/test/0"


def test_what_is_known_of_the_two_sides_is_joined() -> None:
    found = made(Made("ours", "binary", "a", "b"), Made("theirs", "binary", "a", "b", channels=3, side=16))
    assert found.info.channels == 3
    assert found.info.licence == "licence of ours; licence of theirs"
    assert found.info.citation == "cite ours; cite theirs"
    assert found.notes == ("split as given",)
    assert found.source_size(16) == 8
    assert found.notes[-1].endswith("8 px wide, the target's 16 px: part of the shift is resolution")
    ours, theirs = Made("ours", "binary", "a", "b"), Made("theirs", "binary", "a", "b")
    ours.notes = ("split by seed",)
    assert made(ours, theirs).notes == ("source: split by seed", "target: split as given")


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        ((("multi-class", "cat", "dog"), ("multi-class", "cat", "hen")), '"dog" .ours only., "hen" .theirs only.'),
        ((("binary", "a", "b"), ("multi-class", "a", "b", "c")), "ours is binary, theirs is multi-class"),
        ((("ordinal", "0", "1"), ("multi-class", "0", "1")), "ours is ordinal"),
        ((("ordinal", "mild", "grave"), ("ordinal", "grave", "mild")), "grades of the domains are in different orders"),
        ((("binary", "a", "b"), ("multi-label", "x", "y")), "ours is binary, theirs is multi-label"),
        ((("binary", "a", "b"), ("multi-label", "a", "b")), "ours is binary, theirs is multi-label"),
    ],
)  # fmt: skip
def test_domains_that_do_not_fit_are_an_error(sides: tuple[tuple[str, ...], ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        made(*(Made(name, *facts) for name, facts in zip(("ours", "theirs"), sides, strict=True)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("phantom-organ-a->", "SOURCE->TARGET"),
        ("->phantom-organ-a", "SOURCE->TARGET"),
        ("phantom-organ-a->phantom-organ-b->phantom-organ-a", "SOURCE->TARGET"),
        ("corrupted:speckle-1->phantom-organ-a", "SOURCE->TARGET"),
        ("phantom-organ-a->phantom-organ-a", "are the same"),
        ("phantom-organ-a->phantom-organ-c", 'target of .*: No dataset "phantom-organ-c"'),
        ("phantom-orgn-a->phantom-organ-b", 'source of .*Did you mean "phantom-organ-a"'),
        ("phantom-organ-a->corrupted:fog-3", "ct images such as those of phantom-organ-a, one of the kinds pixelate"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_wrong_usage(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        opened(name)


# --- MedMNIST


ORGANS = ("organamnist", "organcmnist", "organsmnist")


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(ORGANS, 2)))
def test_organs_in_all_directions(source: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.datasets()[source]
    for number, flag in enumerate((source, target)):
        stand_in(plugin, monkeypatch, tmp_path, flag, (28, 64)[number])
    monkeypatch.setattr("bench.download.urllib.request.urlopen", _refused)
    with pytest.raises(DataError, match=rf"target {target}: .*{target}\.npz.*no network"):
        registry.open_dataset(f"{source}->{target}", tmp_path, source_size=28).load("test", 28)
    stand_in(plugin, monkeypatch, tmp_path, target, 28)
    found = registry.open_dataset(f"{source}->{target}", tmp_path)
    assert (found.info.kind, len(found.info.classes), found.info.target) == ("multi-class", 11, target)
    assert found.load("test", 28).ids[0] == f"target/{target}/test/0"
    assert found.load("train", 28).ids[0] == f"source/{source}/train/0"
    assert found.notes == (
        "OrganA/C/S: slices of the same CT scans in three directions: source and target training patients coincide; "
        "test patients are disjoint from them",
    )
    assert found.source_size(64) == 28
    assert "part of the shift is resolution" in found.notes[-1]
    assert any(note.startswith("source: ") and "enlarged" in note for note in found.notes)


def _refused(*args: object, **kwargs: object) -> None:
    raise OSError("no network")


@pytest.mark.parametrize("name", ["pneumoniamnist->chestmnist", "chestmnist->pneumoniamnist"])
def test_pneumonia_and_chest_meet_in_the_pneumonia_label(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = registry.datasets()["chestmnist"]
    for flag in ("pneumoniamnist", "chestmnist"):
        stand_in(plugin, monkeypatch, tmp_path, flag, 28)
    found = registry.open_dataset(name, tmp_path)
    assert (found.info.kind, found.info.classes) == ("binary", ("normal", "pneumonia"))
    assert found.source is not None
    assert found.target is not None
    chest = found.target if found.info.target == "chestmnist" else found.source
    all_labels = registry.open_dataset("chestmnist", tmp_path).load("val", 28).labels
    assert chest.info.kind == "binary"
    assert chest.load("val", 28).labels.tolist() == all_labels[:, 6].tolist()
    assert found.load("train", 28).labels.dtype == found.load("test", 28).labels.dtype == np.int64
    assert any("all images without it, whatever else they show" in note for note in found.notes)
    assert any("heavily imbalanced" in note for note in found.notes)


def test_the_shift_that_pathmnist_has_is_told(tmp_path: Path) -> None:
    assert "a shift is built in" in registry.open_dataset("pathmnist", tmp_path).notes[0]


def test_pairs_are_the_datasets_with_the_same_named_classes(tmp_path: Path) -> None:
    infos = [registry.open_dataset(name, tmp_path).info for name in registry.datasets() if not name.endswith(":")]
    assert set(shift.pairs(infos)) == {
        *(f"{one}->{other}" for one, other in itertools.permutations(ORGANS, 2)),
        "pneumoniamnist->chestmnist",
        "chestmnist->pneumoniamnist",
        "phantom-organ-a->phantom-organ-b",
        "phantom-organ-b->phantom-organ-a",
    }  # and not retinamnist->phantom-fundus, whose grades are of two scales


# --- corrupted


def test_a_corrupted_domain_has_other_training_images_and_the_same_test_images() -> None:
    clean, found = opened("phantom-fundus"), opened("phantom-fundus->corrupted:speckle-3")
    assert found.info.target == "corrupted:speckle-3"
    assert found.source is not None
    assert found.target is not None
    halves = [
        {name.partition("/")[2] for name in side.load("train", 32).ids.tolist()}
        for side in (found.source, found.target)
    ]
    assert halves[0].isdisjoint(halves[1])
    assert halves[0] | halves[1] == set(clean.load("train", 32).ids.tolist())
    assert [len(half) for half in halves] == [found.count("train"), found.target.count("train")] == [200, 200]
    shares = [np.bincount(side.load("train", 32).labels) for side in (found.source, found.target)]
    assert np.abs(shares[0] - shares[1]).max() <= 1
    images, corrupt = clean.load("test", 32), find("speckle-3", clean.info)
    tested = found.load("test", 32)
    assert tested.ids.tolist() == [f"target/{name}" for name in images.ids]
    assert np.array_equal(tested.labels, images.labels)
    assert np.array_equal(tested.images[7], corrupt(images.images[7], str(images.ids[7])))
    assert not np.array_equal(tested.images[7], images.images[7])
    assert np.array_equal(found.source.load("test", 32).images, images.images)
    assert np.array_equal(found.load("val", 32).images, clean.load("val", 32).images)
    assert any("train is halved" in note for note in found.notes)
    hashes = {opened(f"phantom-fundus->corrupted:speckle-{severity}").content_hash(32) for severity in range(1, 6)}
    assert len(hashes) == 5
    assert not any(overlap.exact or overlap.near for overlap in audit(found, 32).overlaps)


def test_too_few_images_to_be_halved_are_an_error(folder: Path) -> None:
    images = np.zeros((2, 8, 8), dtype=np.uint8)
    np.savez(
        folder / "x.npz",
        **{f"{split}_images": images for split in SPLITS},
        **{f"{split}_labels": np.arange(2) for split in SPLITS},
    )
    with pytest.raises(DataError, match=r'source .*x\.npz: .*too few training images of "1" to be halved'):
        opened(f"npz:{folder / 'x.npz'}->corrupted:speckle-1").load("train", 8)


def test_an_audit_says_which_images_of_a_shift_stand_on_both_sides(folder: Path) -> None:
    for label in ("a", "b"):
        for index in range(20):
            for place in ("one", "two"):
                picture(folder / place / label / f"{index}.png", (32, 32))
    inside, outside = opened(f"folder:{folder}/one"), opened(f"folder:{folder}/two")
    trained = inside.load("train", 32).ids[0]
    (folder / "two" / outside.load("test", 32).ids[3]).write_bytes((folder / "one" / trained).read_bytes())
    (folder / "two" / outside.load("train", 32).ids[0]).write_bytes((folder / "one" / trained).read_bytes())
    found = audit(opened(f"folder:{folder}/one->folder:{folder}/two"), 32)
    copies = {(overlap.first, overlap.second): overlap.exact for overlap in found.overlaps}
    assert {pair: count for pair, count in copies.items() if count} == {
        ("train", "target train"): 1,
        ("train", "test"): 1,
        ("target train", "test"): 1,
    }
    assert list(found.sizes) == list(SPLITS)


# --- own images


def domains(folder: Path, rows: list[tuple[str, ...]], columns: str = "path,label,domain,group") -> str:
    for row in rows:
        picture(folder / row[0])
    (folder / "x.csv").write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return f"csv:{folder / 'x.csv'}"


def patients(count: int = 60) -> list[tuple[str, ...]]:
    """Every patient has two images at hospital A and, two in three of them, one at B."""
    rows = [
        (f"{place}{patient}{copy}.png", "sick" if patient % 3 else "well", place[0], f"p{patient}")
        for patient in range(count)
        for place, copy in (("A", "x"), ("A", "y"), ("B", "x"))
    ]
    return [row for row in rows if row[2] == "A" or int(row[3][1:]) % 3 != 1]


def test_a_domain_column_makes_two_domains_that_share_no_patient_across_train_and_test(folder: Path) -> None:
    name = domains(folder, rows := patients())
    found = opened(f"{name}@A->@B")
    assert found.info.target == f"{name}@B"
    assert found.info.name == f"{name}@A->@B"
    domain, group = {row[0]: row[2] for row in rows}, {row[0]: row[3] for row in rows}
    assert found.source is not None
    assert found.target is not None
    parts = {
        (side, split): [each.partition("/")[2] for each in of.load(split, 8).ids.tolist()]
        for side, of in (("A", found.source), ("B", found.target))
        for split in SPLITS
    }
    for (side, _), files in parts.items():
        assert {domain[file] for file in files} == {side}
    seen = {split: {group[file] for side in "AB" for file in parts[side, split]} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert seen[one].isdisjoint(seen[other])
    for side, total in (("A", 120), ("B", 40)):  # each domain has its shares of train, val and test
        shares = [len(parts[side, split]) / total for split in SPLITS]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.05)
    assert sum(map(len, parts.values())) == len(rows)
    assert "source: domain A of A, B" in found.notes
    assert "target: domain B of A, B" in found.notes
    assert "split 70/10/20 by seed 0, groups kept whole" in found.notes
    again = opened(f"{name}@B->{name}@A")
    assert again.load("test", 8).ids.tolist() == [f"target/{file}" for file in parts["A", "test"]]
    assert opened(name).notes[0] == "domains together: A, B"
    assert sum(len(opened(name).load(split, 8)) for split in SPLITS) == len(rows)
    alone = opened(f"{name}@A")
    assert alone.load("train", 8).ids.tolist() == parts["A", "train"]


def test_domains_of_multi_label_tables_and_given_splits(folder: Path) -> None:
    rows = [(f"{place}{i}.png", ("x", "y", "x|y", "")[i % 4], place) for i in range(40) for place in ("a", "b")]
    found = opened(domains(folder, rows, "path,labels,domain") + "@a->@b")
    assert found.info.kind == "multi-label"
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):  # of 20 x, 20 y and 10 without a label
        labels = found.load(split, 8).labels
        assert labels.sum(0) == pytest.approx([20 * share, 20 * share], abs=1)
        assert (~labels.any(1)).sum() == pytest.approx(10 * share, abs=1)
    splits = [(f"{i}.png", "xy"[i % 2], "ab"[i // 20], ("train", "val", "test")[i // 2 % 3]) for i in range(40)]
    given = opened(domains(folder, splits, "path,label,domain,split") + "@a->@b")
    assert "split as given" in given.notes
    assert {each.partition("/")[2] for each in given.load("test", 8).ids} == {
        row[0] for row in splits if row[2:] == ("b", "test")
    }


def test_a_group_in_train_here_and_in_test_there_is_an_error(folder: Path) -> None:
    rows = [(f"{i}.png", "xy"[i % 2], "ab"[i // 20], ("train", "val", "test")[i // 2 % 3], f"p{i}") for i in range(40)]
    rows[0], rows[24] = (*rows[0][:4], "same"), (*rows[24][:4], "same")
    assert (rows[0][2:], rows[24][2:]) == (("a", "train", "same"), ("b", "train", "same"))
    rows[24] = (*rows[24][:3], "test", "same")
    with pytest.raises(DataError, match='group "same" is in train and in test'):
        opened(domains(folder, rows, "path,label,domain,split,group") + "@a->@b")


def test_a_domain_that_is_not_there_is_an_error_that_names_those_that_are(folder: Path) -> None:
    name = domains(folder, patients(12))
    with pytest.raises(DataError, match=r'target of .*has no domain "C"\. It has A, B'):
        opened(f"{name}@A->@C")
    with pytest.raises(UsageError, match="are the same"):
        opened(f"{name}@A->@A")
    with pytest.raises(DataError, match='no column "domain"'):
        opened(domains(folder, [row[:2] for row in patients(12)], "path,label") + "@A->@B")
    (folder / "x.csv").rename(folder / "x@A.csv")
    assert opened(f"csv:{folder / 'x@A.csv'}").info.classes == ("sick", "well")


def test_a_class_that_one_domain_lacks_is_named(folder: Path) -> None:
    rows = [(f"{i}.png", "xy"[i % 2] if i < 20 else "x", "ab"[i // 20]) for i in range(40)]
    with pytest.raises(DataError, match=r'target of .*no training image has the class "y"'):
        opened(domains(folder, rows, "path,label,domain") + "@a->@b")


def test_gray_and_colour_folders_of_the_same_files_pair_up(folder: Path) -> None:
    for label in ("a", "b"):
        for index in range(10):
            picture(folder / "gray" / label / f"{index}.png")
            picture(folder / "colour" / label / f"{index}.png", (12, 12, 3))
    found = opened(f"folder:{folder}/gray->folder:{folder}/colour")
    assert (found.load("train", 8).images.ndim, found.load("test", 8).images.ndim) == (3, 4)
    assert found.info.channels == 3
    with Image.open(folder / "colour" / found.load("test", 12).ids[0].partition("/")[2]) as file:
        assert np.array_equal(found.load("test", 12).images[0], np.asarray(file))


# --- in a matrix


def test_fetch_brings_both_domains_and_names_the_one_that_it_cannot(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    plugin = registry.datasets()["organamnist"]
    for flag in ORGANS[:2]:
        path = stand_in(plugin, monkeypatch, served, flag, 28)
        monkeypatch.setitem(plugin._registry()[flag], "url", f"{url}/{path.name}")
    root, said = tmp_path / "medmnist", Console(record=True, width=400)
    asked = matrix(tmp_path, datasets=("organamnist->organcmnist",), sizes=(28,), data_root=root, source_size=28)
    assert fetch(asked, tmp_path, said)
    assert {file.name for file in root.iterdir()} == {"organamnist.npz", "organcmnist.npz"}
    (root / "organcmnist.npz").unlink()
    (served / "organcmnist.npz").unlink()
    assert not fetch(asked, tmp_path, said)
    assert "failed: target organcmnist: " in said.export_text()


def test_a_matrix_may_name_shifts_and_choose_among_them(tmp_path: Path) -> None:
    names = ("phantom-organ-a", "phantom-organ-a->phantom-organ-b", "phantom-organ-b->phantom-organ-a")
    plan = make_plan(
        matrix(tmp_path, datasets=names, only=(("dataset", "phantom-organ-a->*"), ("strategy", "scratch"))), tmp_path
    )
    assert [cell.dataset for cell in plan.cells] == [names[1]]
    assert plan.cells[0].error == ""
    assert plan.cells[0].info is not None
    assert plan.cells[0].info.target == "phantom-organ-b"
    all_of_it = make_plan(matrix(tmp_path, datasets=names, strategies=("scratch",)), tmp_path)
    assert len({cell.fingerprint for cell in all_of_it.cells}) == 3
    (tmp_path / "m.toml").write_text(
        '[run]\nstrategies = ["scratch"]\nsizes = [32]\ndatasets = ["folder:~/a->folder:~/b"]\n'
        '[[backbone]]\nmodel = "test_resnet"\nweights = "random"\n'
    )
    home = Path("~").expanduser()
    assert load(str(tmp_path / "m.toml")).datasets == (f"folder:{home}/a->folder:{home}/b",)


def test_files_named_after_a_shift_have_plain_names(tmp_path: Path) -> None:
    names = ("csv:/data/x.csv@A->@B", "phantom-organ-a->phantom-organ-b", "breastmnist->corrupted:speckle-3")
    for name in names:
        path = store.strip_path(tmp_path, name, "mixup")
        assert path.parent == tmp_path / "examples"
        assert not set(path.name) & set('<>:"/\\|?*@')
    assert len({store.strip_path(tmp_path, name, "mixup") for name in names}) == 3
