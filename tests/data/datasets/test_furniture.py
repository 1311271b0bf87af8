import logging
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch_geometric.transforms import NormalizeScale

from pyg_avig import InputError
from pyg_avig.data.datasets import furniture
from pyg_avig.data.datasets.furniture import CLASSES, Furniture, furniture_class, read_catalogue

# A box of 1 x 2 x 3 in four-cornered faces.
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)]
SIDES = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
BOX = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + "".join(
    f"f {a} {b} {c} {d}\n" for a, b, c, d in SIDES
)
TURN = "1 0 0 0 0 1 0 -1 0"  # What was z is up.


def catalogue(path, models, text=""):
    """Write models: (name, file, fields besides those that all have)."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, file, fields) in enumerate(models, 1):
            content = fields.pop("content", BOX)
            values = {
                "name": name,
                "model": f"/made/{file}.obj",
                "creator": f"somebody {number}",
                "width": 10,
                "height": 20,
                "depth": 30,
            } | fields
            text += "".join(f"{key}#{number}={value}\n" for key, value in values.items()) + "\n"
            archive.writestr(f"made/{file}.obj", content)
        archive.writestr("PluginFurnitureCatalog.properties", text)
    return path


@pytest.fixture
def source(tmp_path):
    pytest.importorskip("trimesh")
    folder = tmp_path / "source"
    folder.mkdir()
    chairs = [("Oak chair", f"oak{i}", {"creator": "Jane"}) for i in range(3)]
    chairs += [("Bar stool", f"stool{i}", {}) for i in range(12)]
    windows = [("Window", f"window_2x{i}", {"creator": "Scopia"}) for i in range(4)]
    windows += [("Door", f"door{i}", {}) for i in range(12)]
    catalogue(folder / "a.sh3f", [*chairs, ("Toaster", "toaster", {})], "id=not a model\n")
    catalogue(folder / "b.sh3f", windows)
    return folder


def load(tmp_path, source, **options):
    return Furniture(str(tmp_path / "root"), source=str(source), num_points=64, **options)


def test_reads_models_upright_in_centimetres(tmp_path):
    pytest.importorskip("trimesh")
    sizes = {"width": 10, "height": 30, "depth": 20}
    catalogue(
        tmp_path / "made.sh3f",
        [("Chair", "upright", {}), ("Table", "lying", {"modelRotation": TURN, **sizes})],
    )
    upright, lying = Furniture(str(tmp_path / "root"), source=str(tmp_path), num_points=4000)
    assert (upright.name, lying.name) == ("made/made/upright.obj", "made/made/lying.obj")
    assert [CLASSES[i] for i in (upright.y.item(), lying.y.item())] == ["chair", "table"]
    for data, (x, y, z) in ((upright, (10, 20, 30)), (lying, (10, 30, 20))):
        low, high = data.pos.amin(0), data.pos.amax(0)
        torch.testing.assert_close(low, torch.tensor([-x / 2, 0, -z / 2]), atol=0.1, rtol=0)
        torch.testing.assert_close(high, torch.tensor([x / 2, y, z / 2]), atol=0.1, rtol=0)
        axis = data.normal.abs().argmax(1)
        torch.testing.assert_close(data.normal.norm(dim=1), torch.ones(4000))
        # Each point lies on the side that its normal is normal to, by area.
        distance = (data.pos - torch.tensor([0, y / 2, 0])).abs() - torch.tensor([x, y, z]) / 2
        assert distance.gather(1, axis[:, None]).abs().max() < 1e-4
        areas = torch.tensor([y * z, x * z, x * y]) / (y * z + x * z + x * y)
        shares = torch.bincount(axis, minlength=3) / 4000
        torch.testing.assert_close(shares, areas, atol=0.03, rtol=0)


def test_points_depend_on_name_and_number_alone(tmp_path, source):
    first = load(tmp_path, source)
    torch.manual_seed(7)
    again = load(tmp_path / "elsewhere", source)
    assert torch.equal(first._data.pos, again._data.pos)
    assert not torch.equal(first[0].pos, first[1].pos)
    (source / "a.sh3f").unlink()
    assert torch.equal(load(tmp_path / "third", source)[0].pos, first[15].pos)


def test_changed_arguments_never_read_another_file(tmp_path, source):
    root = str(tmp_path / "root")
    first = load(tmp_path, source)
    assert len(first) == 31
    assert Furniture(root, source=str(source), num_points=32)[0].pos.shape == (32, 3)
    scaled = load(tmp_path, source, pre_transform=NormalizeScale())
    assert scaled[0].pos.abs().max() <= 1
    other = tmp_path / "other"
    other.mkdir()
    catalogue(other / "c.sh3f", [("Bed", "bed", {}), ("Bed", "bed2", {})])
    assert len(load(tmp_path, other)) == 2
    assert load(tmp_path, source)[0].pos.abs().max() > 1
    (source / "a.sh3f").unlink()
    assert len(load(tmp_path, source)) == 31
    assert len(load(tmp_path, source, force_reload=True)) == 16
    assert not list((tmp_path / "root").glob("*/*.pt.*"))


def test_sets_stay_together(tmp_path, source):
    data = load(tmp_path, source)
    y, group = data._data.y, data._data.group
    assert group.unique().numel() == 1 + 12 + 1 + 12
    tests = []
    for fold in range(5):
        split = data.split(fold)
        assert sorted(torch.cat(list(split.values())).tolist()) == list(range(31))
        groups = [set(group[split[name]].tolist()) for name in ("train", "val", "test")]
        assert sum(map(len, groups)) == len(set.union(*groups))
        for name in ("train", "val", "test"):
            assert y[split[name]].unique().numel() == 2
        assert 5 <= len(split["test"]) <= 8
        assert all(torch.equal(split[name], data.split(fold)[name]) for name in split)
        tests.append(split["test"])
    assert sorted(torch.cat(tests).tolist()) == list(range(31))


def test_a_set_is_a_persons_or_a_studios_series(tmp_path):
    path = catalogue(
        tmp_path / "a.sh3f",
        [("Chair", "oak", {"creator": "Jane"}), ("Chair", "elm", {"creator": "Jane"})]
        + [
            ("Window", file, {"creator": "Scopia"})
            for file in ("window_2x3", "window-2x4", "windowArched", "turn_window", "TV-window")
        ],
    )
    sets = [model.set for model, _ in read_catalogue(path)]
    assert sets == ["Jane", "Jane", "window", "window", "window", "turn", "tv"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Chair with cushion", "chair"),
        ("Desk lamp", "lamp"),
        ("Coffee table", "table"),
        ("Glass door cabinet", "cabinet"),
        ("Futon couch", "sofa"),
        ("Sofa 3 seats", "sofa"),
        ("Double window 4 panes", "door or window"),
        ("Seat Leon", "vehicle"),
        ("Blue pine under snow", "plant"),
        ("Sitting female", "person"),
        ("Beer glass", "vessel"),
        ("Captain's bed", "bed"),
        ("Wheelchair", None),
        ("Glasses", None),
        ("Table fan", None),
        ("Toaster", None),
        ("", None),
    ],
)
def test_classes_of_names(name, expected):
    assert furniture_class(name) == expected


def test_few_broken_models_are_named_and_skipped(tmp_path, source, caplog):
    models = [("Bed", "good", {}), ("Bed", "broken", {"content": "f 1 2 3\n"})]
    catalogue(source / "c.sh3f", [*models, ("Bed", "flat", {"content": "v 0 0 0\nf 1 1 1\n"})])
    with caplog.at_level(logging.WARNING):
        data = load(tmp_path, source)
    assert len(data) == 32
    assert "c/made/broken.obj" in caplog.text
    assert "c/made/flat.obj" in caplog.text


def test_many_broken_models_are_an_error(tmp_path, source):
    (source / "a.sh3f").unlink()
    catalogue(source / "c.sh3f", [("Bed", f"bed{i}", {"content": "v 0 0\n"}) for i in range(2)])
    with pytest.raises(InputError, match=r"at most a tenth.*got 2 of 18.*c/made/bed0.obj"):
        load(tmp_path, source)
    assert not list(tmp_path.rglob("data.pt*"))


def test_broken_catalogues_are_named(tmp_path):
    path = tmp_path / "a.sh3f"
    path.write_bytes(b"no zip file")
    with pytest.raises(InputError, match=r"a.sh3f: expected a furniture catalogue"):
        list(read_catalogue(path))
    for fields, message in (
        ({"width": "wide"}, "wide"),
        ({"modelRotation": "1 0 0"}, "modelRotation#1 has 3 values"),
        ({"model": "/made/nowhere.obj"}, "nowhere.obj"),
    ):
        catalogue(path, [("Chair", "chair", fields)])
        with pytest.raises(InputError, match=message):
            list(read_catalogue(path))
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(InputError, match="PluginFurnitureCatalog.properties"):
        list(read_catalogue(path))


def test_missing_catalogues_say_where_from(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"got none.*apt-get install sweethome3d-furniture"):
        load(tmp_path, tmp_path)
    monkeypatch.setattr(furniture, "DEBIAN_ROOT", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere.*apt-get install sweethome3d-furniture"):
        Furniture(str(tmp_path / "root"))


def test_numbers_of_numpy(tmp_path, source):
    data = load(tmp_path, source)
    again = Furniture(str(tmp_path / "root"), source=str(source), num_points=np.int64(64))
    assert again.processed_paths == data.processed_paths
    split = again.split(np.int64(1), np.int64(3))
    assert all(torch.equal(split[name], data.split(1, 3)[name]) for name in split)


def test_a_missing_trimesh_is_named(tmp_path, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(InputError, match="pip install trimesh"):
        load(tmp_path, source)


def test_bad_options(tmp_path, source):
    for num_points in (0, 1.5, True):
        with pytest.raises(InputError, match="num_points must be a positive int"):
            Furniture(str(tmp_path), num_points=num_points)
    data = load(tmp_path, source)
    for fold in (-1, 5, 1.0):
        with pytest.raises(InputError, match="fold must be an int from 0 to 4"):
            data.split(fold)
    with pytest.raises(InputError, match="folds must be an int, 2 or more"):
        data.split(0, folds=1)


@pytest.mark.data
def test_the_names_of_the_package():
    """The published catalogues; the models themselves take a minute and are not read here."""
    if not furniture.DEBIAN_ROOT.is_dir():
        pytest.skip("needs the Debian package sweethome3d-furniture")
    models = [m for path in furniture.DEBIAN_ROOT.glob("*.sh3f") for m, _ in read_catalogue(path)]
    names = [furniture_class(model.name) for model in models]
    assert len(models) == 820
    assert {name: names.count(name) for name in CLASSES} == {
        "bed": 17,
        "cabinet": 38,
        "chair": 64,
        "door or window": 34,
        "lamp": 31,
        "person": 29,
        "plant": 42,
        "sofa": 22,
        "table": 48,
        "vehicle": 27,
        "vessel": 35,
    }
