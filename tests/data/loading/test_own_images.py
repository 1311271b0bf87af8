import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyg_avig import InputError
from pyg_avig.data import OwnImages
from pyg_avig.data.loading.own_images import LabelledFile, draw_split, labelled_files, read_split
from pyg_avig.data.loading.splits import SPLITS

CLASSES = {"cat": 10, "dog": 7}


def tree(root, layout="{name}/{n}.png", classes=None, size=(40, 30), mode="RGB"):
    for name, number in (classes or CLASSES).items():
        for n in range(number):
            split = ("train", "train", "val", "test")[n % 4]
            path = root / layout.format(name=name, n=n, split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, size, n).save(path)
    return root


@pytest.mark.parametrize(
    "layout",
    [
        "{name}/{n}.png",
        "{name}/deep/er/{n}.png",
        "archive/{name}/{n}.png",
        "archive/data/{name}/{n}.png",
        "{split}/{name}/{n}.png",
        "archive/{split}/{name}/{n}.png",
        "{name}/{split}/{n}.png",
    ],
)
def test_any_layout_of_class_folders(layout, tmp_path):
    files = labelled_files(tree(tmp_path, layout))
    assert Counter(file.label for file in files) == CLASSES
    expected = {"train", "val", "test"} if "split" in layout else {None}
    assert {file.split for file in files} == expected


def test_other_names_of_splits(tmp_path):
    names = {"Training": "train", "valid": "val", "testing": "test"}
    for folder in names:
        tree(tmp_path / folder)
    files = labelled_files(tmp_path)
    assert {(names[Path(file.path).parts[-3]], file.split) for file in files} == {
        (split, split) for split in names.values()
    }


def test_a_training_part_alone_is_split(tmp_path):
    assert {file.split for file in labelled_files(tree(tmp_path / "train").parent)} == {None}


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    files = labelled_files(tree(tmp_path, classes={"train": 3, "car": 3, "bus": 3}))
    assert {(file.label, file.split) for file in files} == {
        *(("train", None), ("car", None), ("bus", None)),
    }


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1),
    st.integers(0, 5),
)
def test_a_drawn_split_is_whole_and_by_class(numbers, seed):
    files = [
        LabelledFile(f"{label}/{n}", label, None)
        for label, number in numbers.items()
        for n in range(number)
    ]
    parts = draw_split(files, "root", seed)
    drawn = [file for split in SPLITS for file in parts[split]]
    assert sorted(drawn) == sorted(files)
    assert parts == draw_split(files, "root", seed)
    for label, number in numbers.items():
        of_class = {split: sum(f.label == label for f in parts[split]) for split in SPLITS}
        if number > 2:
            assert min(of_class.values()) >= 1
        assert of_class["train"] >= 1 or number == 2
        assert abs(of_class["val"] - 0.15 * number) <= 1


def test_validation_is_drawn_from_training_where_it_is_missing(tmp_path):
    tree(tmp_path / "train")
    tree(tmp_path / "test")
    files = labelled_files(tmp_path)
    parts = draw_split(files, tmp_path)
    assert len(parts["test"]) == sum(CLASSES.values())
    assert {f.path for f in parts["val"]} <= {f.path for f in files if f.split == "train"}
    assert len(parts["val"]) == 3


def test_the_split_is_written_and_read(tmp_path):
    root = tree(tmp_path / "images")
    data = OwnImages(str(root), seed=3)
    data.write_split(tmp_path / "split.csv")
    tree(root, "{name}/later_{n}.png")  # Later images are left out.
    again = OwnImages(str(root), split=str(tmp_path / "split.csv"))
    assert [[(f.path, f.label) for f in data.files[split]] for split in SPLITS] == [
        [(f.path, f.label) for f in again.files[split]] for split in SPLITS
    ]
    with (tmp_path / "split.csv").open() as file:
        assert Counter(row["class"] for row in csv.DictReader(file)) == CLASSES


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 64), ((100, 130), 96), ((640, 480), 160), ((70, 64), 64)]
)
def test_the_input_follows_the_images(size, side, tmp_path):
    data = OwnImages(str(tree(tmp_path, size=size)))
    assert data.data_config["input_size"] == [3, side, side]
    assert OwnImages(str(tmp_path), image_size=32).data_config["input_size"] == [3, 32, 32]


def test_defaults_follow_the_number_of_images(tmp_path):
    few = OwnImages(str(tree(tmp_path / "few")))
    assert (few.batch_size, few.suggested_epochs) == (8, 100)
    many = OwnImages(str(tree(tmp_path / "many", classes={"a": 300, "b": 500}, size=(8, 8))))
    assert (many.batch_size, many.suggested_epochs) == (32, round(30_000 / 560))


def test_grey_images_have_one_channel(tmp_path):
    assert OwnImages(str(tree(tmp_path / "grey", mode="L"))).channels == 1
    tree(tmp_path / "both", mode="L")
    tree(tmp_path / "both", "{name}/colour_{n}.png")
    assert OwnImages(str(tmp_path / "both")).channels == 3


def test_batches_are_of_each_split(tmp_path):
    data = OwnImages(str(tree(tmp_path)), image_size=32)
    data.setup("fit")
    data.setup("test")
    batch = next(iter(data.train_dataloader()))
    assert batch.num_graphs == 8
    assert sum(b.num_graphs for b in data.val_dataloader()) == len(data.files["val"])
    assert sum(b.num_graphs for b in data.test_dataloader()) == len(data.files["test"])


def test_a_broken_image_is_found_before_the_first_step(tmp_path, caplog):
    root = tree(tmp_path, classes={"cat": 20, "dog": 20})
    broken = OwnImages(str(root)).files["train"][0].path
    with open(broken, "wb") as file:
        file.write(b"no image")
    OwnImages(str(root), bad_share=0.1).setup("fit")
    assert broken in caplog.text
    with pytest.raises(InputError, match=broken):
        OwnImages(str(root), bad_share=0.0).setup("fit")


def test_empty_folders_are_named(tmp_path, caplog):
    tree(tmp_path)
    (tmp_path / "nothing").mkdir()
    assert OwnImages(str(tmp_path)).classes == ["cat", "dog"]
    assert "nothing" in caplog.text


def only(folder, **args):
    return OwnImages(str(folder), **args)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: only(path / "nowhere"), "there is none at"),
        (lambda path: only(path), "expected one folder a class"),
        (lambda path: only(tree(path, "{n}.png")), "one folder a class"),
        (lambda path: only(tree(path, classes={"cat": 5})), "one folder a class|two classes"),
        (lambda path: only(tree(path, "train/{name}/{n}.png", {"a": 4})), "two classes"),
        (lambda path: only(tree(path, classes={"a": 1, "b": 1})), "at least 2 images of a class"),
        (lambda path: only(tree(tree(path / "val").parent / "test").parent), "folder 'train'"),
        (lambda path: only(tree(path), channels=2), "channels must be 1 or 3"),
        (lambda path: only(tree(path), image_size=0), "image_size must lie in 1 to 8192"),
        (lambda path: only(tree(path), batch_size=0), "batch_size must be at least 1"),
        (lambda path: only(tree(path), crop_pct=0.0), "crop_pct"),
        (lambda path: only(tree(path), crop_pct=5.0), "crop_pct"),
        (lambda path: only(tree(path), interpolation="foo"), "interpolation"),
        (lambda path: only(tree(path), augmentation={"foo": 1}), "create_transform"),
        (lambda path: only(tree(path), augmentation={"auto_augment": "foo"}), "create_transform"),
        (lambda path: only(tree(path), augmentation={"scale": 3}), "create_transform"),
        (lambda path: only(tree(path), split=str(path / "no.csv")), "expected a table split.csv"),
        (
            lambda path: only(tree(path), split=str(path / "cat" / "0.png")),
            "expected a table|columns",
        ),
    ],
)
def test_what_nothing_can_be_learned_of_is_refused(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,b\n1,2\n", "expected the columns path, class and split"),
        ("path,class,split\ncat/0.png,cat,fit\n", "line 2: expected path, class and one of"),
        ("path,class,split\ncat/99.png,cat,train\n", "line 2: expected an image"),
        ("path,class,split\n,cat,train\n", "line 2"),
    ],
)
def test_a_wrong_table_is_refused(rows, message, tmp_path):
    tree(tmp_path)
    (tmp_path / "split.csv").write_text(rows)
    with pytest.raises(InputError, match=message):
        read_split(tmp_path / "split.csv", tmp_path)


def test_a_test_needs_images(tmp_path):
    tree(tmp_path / "train")
    tree(tmp_path / "val")
    data = OwnImages(str(tmp_path))
    data.setup("test")
    with pytest.raises(InputError, match="folder 'test'"):
        data.test_dataloader()
