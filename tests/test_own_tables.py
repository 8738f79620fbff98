"""Own images in an .npz or listed in a CSV; every kind of task; every malformed input is a named error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.contract import Dataset
from bench.errors import DataError, UsageError
from tests.small import opened, picture

pytestmark = pytest.mark.usefixtures("own_cache")
RNG = np.random.default_rng(0)


def all_ids(dataset: Dataset) -> list[str]:
    return [name for split in ("train", "val", "test") for name in dataset.load(split, 8).ids.tolist()]


# --- npz


def npz(folder: Path, labels: np.ndarray, **more: np.ndarray) -> str:
    arrays = {
        f"{split}_images": RNG.integers(0, 256, (len(labels), 9, 9, 3), dtype=np.uint8) for split in ("train", "test")
    }
    np.savez(folder / "x.npz", **{**arrays, "train_labels": labels, "test_labels": labels, **more})
    return f"npz:{folder / 'x.npz'}"


@pytest.mark.parametrize(
    ("labels", "more", "kind", "classes"),
    [
        (np.arange(40) % 2, {}, "binary", ("0", "1")),
        (np.arange(40) % 3, {}, "multi-class", ("0", "1", "2")),
        (np.arange(40)[:, None] % 3, {"kind": np.array("ordinal")}, "ordinal", ("0", "1", "2")),
        (np.arange(40) % 2, {"class_names": np.array(["sick", "well"])}, "binary", ("sick", "well")),
        (RNG.integers(0, 2, (40, 3)), {}, "multi-label", ("0", "1", "2")),
    ],
)
def test_npz_kinds(
    folder: Path, labels: np.ndarray, more: dict[str, np.ndarray], kind: str, classes: tuple[str, ...]
) -> None:
    dataset = opened(npz(folder, labels, **more))
    assert (dataset.info.kind, dataset.info.classes, dataset.info.channels) == (kind, classes, 3)
    assert len(dataset.load("train", 64)) + len(dataset.load("val", 64)) == 40
    assert 3 <= len(dataset.load("val", 64)) <= 8
    assert dataset.notes == ("no val given: 10% of train taken by seed 0",)
    assert dataset.source_size(64) == 9
    assert len(set(all_ids(dataset))) == 80


def test_one_label_an_image_may_be_one_task(folder: Path) -> None:
    hot = npz(folder, np.eye(3, dtype=np.int64)[np.arange(40) % 3])
    one_hot, before = opened(hot), opened(hot).content_hash(9)
    assert one_hot.info.kind == "multi-label"
    assert "every image has exactly one label: if it is one task of 3 classes" in one_hot.notes[-1]
    one_hot.notes = one_hot.notes[:-1]
    assert one_hot.content_hash(9) == before  # a note changes no result
    assert not [note for note in opened(npz(folder, RNG.integers(0, 2, (40, 3)))).notes if "exactly one" in note]


def test_npz_val_and_ids_are_taken_as_given(folder: Path) -> None:
    labels = np.arange(10) % 2
    name = npz(
        folder,
        labels,
        val_images=np.zeros((10, 9, 9, 3), dtype=np.uint8),
        val_labels=labels,
        val_ids=np.array([f"patient {index}" for index in range(10)]),
    )
    dataset = opened(name)
    assert dataset.notes == ("split as given",)
    assert dataset.load("val", 9).ids[3] == "patient 3"
    assert dataset.content_hash(28) == opened(name).content_hash(28)


def test_npz_seed_changes_val_and_hash(folder: Path) -> None:
    name = npz(folder, np.arange(40) % 2)
    one, two = opened(name, 0), opened(name, 1)
    assert one.load("val", 9).ids.tolist() != two.load("val", 9).ids.tolist()
    assert one.content_hash(9) != two.content_hash(9)


@pytest.mark.parametrize(
    ("labels", "more", "says"),
    [
        (np.arange(40) % 2, {"test_labels": np.full(40, 2)}, "test_labels has the class 2, train none above 1"),
        (np.arange(40) % 2 + 1, {}, r"labels are 1..2. Number them from 0: 0..1"),
        (np.zeros(40, dtype=int), {}, "has one class"),
        (np.arange(40) % 2, {"train_ids": np.array(["same"] * 40)}, "ids are not unique"),
        (np.arange(40) % 2, {"kind": np.array("ordnal")}, 'Did you mean "ordinal"'),
        (np.arange(40) % 3, {"kind": np.array("binary")}, 'kind is "binary", but the labels are multi-class'),
        (np.arange(40) % 3, {"class_names": np.array(["a"])}, "has 1 names for 3 classes"),
        (np.arange(40) % 2, {"class_names": np.array(["a", None])}, "never unpickled"),
        (np.arange(40) * 1000, {}, "largest label is 39000"),
    ],
)
def test_npz_errors(folder: Path, labels: np.ndarray, more: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        opened(npz(folder, labels, **more))
    assert "x.npz" in str(caught.value)


# --- CSV


def csv(folder: Path, header: str, rows: list[str]) -> str:
    (folder / "table.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    return f"csv:{folder / 'table.csv'}"


def files(folder: Path, count: int) -> list[str]:
    return [picture(folder / f"images/bild ä {index}.png").relative_to(folder).as_posix() for index in range(count)]


@pytest.mark.parametrize(
    ("column", "values", "kind", "classes"),
    [
        ("label", ["well", "sick"], "binary", ("sick", "well")),
        ("label", ["a", "b", "c"], "multi-class", ("a", "b", "c")),
        ("labels", ["x|y", "", "y"], "multi-label", ("x", "y")),
        ("grade", ["0", "1", "2"], "ordinal", ("0", "1", "2")),
    ],
)
def test_csv_kinds(folder: Path, column: str, values: list[str], kind: str, classes: tuple[str, ...]) -> None:
    rows = [f"{file},{values[index % len(values)]},52" for index, file in enumerate(files(folder, 60))]
    dataset = opened(csv(folder, f"path,{column},age", rows))
    assert (dataset.info.kind, dataset.info.classes) == (kind, classes)
    assert dataset.notes == ("columns not used: age", "split 70/10/20 by seed 0")
    train = dataset.load("train", 8)
    assert train.labels.dtype == (np.uint8 if kind == "multi-label" else np.int64)
    for name, label in zip(train.ids, train.labels, strict=True):
        told = values[int(name.split()[-1].removesuffix(".png")) % len(values)]
        if kind == "multi-label":
            assert "|".join(c for c, on in zip(classes, label, strict=True) if on) == told
        else:
            assert classes[label] == told


def test_csv_groups_stay_whole(folder: Path) -> None:
    rows = [f"{file},{'ab'[index % 2]},p{index // 5}" for index, file in enumerate(files(folder, 100))]
    dataset = opened(csv(folder, "path,label,group", rows))
    assert dataset.notes == ("split 70/10/20 by seed 0, groups kept whole",)
    patients = [
        {int(name.split()[-1].removesuffix(".png")) // 5 for name in dataset.load(split, 8).ids}
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 20


def test_csv_given_splits(folder: Path) -> None:
    parts = ["train", "train", "val", "test"]
    rows = [f"{file},{'ab'[index // 4 % 2]},{parts[index % 4]}" for index, file in enumerate(files(folder, 40))]
    dataset = opened(csv(folder, "path,label,split", rows))
    assert dataset.notes == ("split as given",)
    assert [len(dataset.load(split, 8)) for split in ("train", "val", "test")] == [20, 10, 10]


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("path,lable", "{},a", 'label, labels and grade. Rename "lable" to label, perhaps.'),
        ("path,Label", "{},a", 'Rename "Label" to label, perhaps.'),
        ("File_Name,class", "{},a", 'Rename "File_Name" to path and "class" to label, perhaps.'),
        ("path,age", "{},a", "exactly one of label, labels and grade.$"),
        ("path,label,grade", "{},a,1", "exactly one of label, labels and grade.$"),
        ("file,label", "{},a", 'It needs path .* Rename "file" to path, perhaps.'),
        ("path;label", "{};a", 'separated by ";", expected commas'),
        ("path\tlabel", "{}\ta", "separated by tabs, expected commas"),
        ("path,label", ",a", "row 2 has an empty path"),
        ("path,label", "{},", "row 2 has an empty label"),
        ("path,label", "images/none.png,a", r"none\.png: no such file"),
        ("path,label", "../outside.png,a", r"outside\.png: leads out of"),
        ("path,label", "again,a", "is listed 2 times"),
        ("path,grade", "{},-1", 'row 2 has the grade "-1"'),
        ("path,grade", "{},70000000000", "Number the grades"),
        ("path,label,split", "{},a,dev", 'row 2 has the split "dev"'),
        ("path,label,split,group", "{},a,test,p", 'group "p" is in train and in test'),
        ("path,label,split", "{},c,test", 'no training image has the class "c"'),
    ],
)
def test_csv_errors(folder: Path, header: str, row: str, says: str) -> None:
    picture(folder.parent / "outside.png")
    images = files(folder, 30)
    columns = header.split(",")
    usual = {"label": "ab", "grade": "01", "split": ["train", "test"], "group": ["p", "q"]}
    rows = [
        ",".join(
            [
                file,
                *(
                    usual.get(column, "ab")[index // 2 % 2 if column == "label" else index % 2]
                    for column in columns[1:]
                ),
            ]
        )
        for index, file in enumerate(images[1:])
    ]
    first = row.replace("{}", images[0]).replace("again", images[1])
    with pytest.raises(DataError, match=says):
        opened(csv(folder, header, [first, *rows]))


def test_csv_that_is_none(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        opened(f"csv:{folder / 'none.csv'}")
    (folder / "bad.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match=r'bad\.csv: not UTF-8 text .* Save it as "CSV UTF-8"'):
        opened(f"csv:{folder / 'bad.csv'}")
    (folder / "quote.csv").write_text('path,label\n"a.png,x\n')
    with pytest.raises(DataError, match=r"not a readable UTF-8 CSV .* Save it as CSV, comma-separated"):
        opened(f"csv:{folder / 'quote.csv'}")
    with pytest.raises(DataError, match="has no rows"):
        opened(csv(folder, "path,label", []))


def test_grades_that_start_at_one_are_refused(folder: Path) -> None:
    rows = [f"{file},{1 + index % 3}" for index, file in enumerate(files(folder, 12))]
    with pytest.raises(DataError, match=r"grades are 1..3. Number them from 0"):
        opened(csv(folder, "path,grade", rows))


def test_patients_that_are_not_used_are_hinted_at(folder: Path) -> None:
    rows = [f"{file},{'ab'[index % 2]},3,p{index}" for index, file in enumerate(files(folder, 40))]
    hint = "a column that says which images belong together must be called group"
    assert opened(csv(folder, "path,label,age,patient", rows)).notes[0] == f"columns not used: age, patient; {hint}"
    assert opened(csv(folder, "path,label,patient,group", rows)).notes[0] == "columns not used: patient"
    capital = "columns not used: age, Group; Group is used where it is called group"
    assert opened(csv(folder, "path,label,age,Group", rows)).notes[0] == capital


def test_classes_that_differ_in_case_alone_are_named(folder: Path) -> None:
    labels = ["Tumör", "tumör", "none"]
    rows = [f"{file},{labels[index % 3]}" for index, file in enumerate(files(folder, 60))]
    note = '"Tumör" and "tumör" are two classes, whose names differ in case alone'
    assert note in opened(csv(folder, "path,label", rows)).notes
    same = [row.replace("Tumör", "tumör") for row in rows]
    assert not [note for note in opened(csv(folder, "path,label", same)).notes if "case alone" in note]
