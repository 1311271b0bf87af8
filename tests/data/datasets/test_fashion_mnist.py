import gzip

import numpy as np
import pytest

from pyg_avig import InputError
from pyg_avig.data import FashionMNIST
from pyg_avig.data.datasets import fashion_mnist
from pyg_avig.data.datasets.fashion_mnist import read_idx

NAMES = {
    "train-images-idx3-ubyte": (30, 28, 28),
    "train-labels-idx1-ubyte": (30,),
    "t10k-images-idx3-ubyte": (6, 28, 28),
    "t10k-labels-idx1-ubyte": (6,),
}


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(params=["gzipped", "plain", "torchvision"])
def root(tmp_path, request):
    folder = tmp_path / "FashionMNIST" / "raw" if request.param == "torchvision" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, shape in NAMES.items():
        content = idx(generator.integers(0, 10, shape))
        if request.param == "plain":
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_reads_every_layout(root):
    data = FashionMNIST(root=str(root), batch_size=4)
    data.prepare_data()
    data.setup()
    assert {name: len(s) for name, s in data.splits.items()} == {
        "train": 24,
        "val": 6,
        "test": 6,
    }
    batch = next(iter(data.val_dataloader()))
    assert batch.x.shape == (4 * 1024, 1)
    train, val = ({p.tobytes() for p in data.splits[name].pixels} for name in ("train", "val"))
    assert not train & val


@pytest.mark.parametrize("root", ["plain"], indirect=True)
def test_some_of_the_classes(root):
    whole, some = FashionMNIST(root=str(root)), FashionMNIST(root=str(root), only=["Bag", "Dress"])
    assert some.classes == ["Dress", "Bag"]
    for data in (whole, some):
        data.setup()
    images = {"all": [], "some": []}
    for name, data in (("all", whole), ("some", some)):
        for split in data.splits.values():
            images[name] += [
                (pixels.tobytes(), data.classes[label])
                for pixels, label in zip(split.pixels, split.labels, strict=True)
            ]
    assert sorted(images["some"]) == sorted(i for i in images["all"] if i[1] in some.classes)
    for only in (["Bag", "Hat"], ["Bag"]):
        with pytest.raises(InputError, match="only must name two or more of T-shirt/top"):
            FashionMNIST(root=str(root), only=only)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*dataset-fashion-mnist"):
        FashionMNIST(root=str(tmp_path / "nowhere")).prepare_data()


def test_a_failed_download_is_explained(tmp_path, monkeypatch):
    def offline(root, download):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(InputError, match=r"failed \(no network\); install"):
        FashionMNIST(root=str(tmp_path), download=True).prepare_data()


def test_looks_in_the_debian_place_first(root, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_ROOT", root)
    data = FashionMNIST()
    data.prepare_data()
    data.setup("test")
    assert len(data.splits["test"]) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(np.zeros((2, 3)))[:-1], r"expected 2 x 3 bytes \(got 5"),
        (b"\x89PNG\r\n", "IDX file of unsigned bytes"),
        (b"", "IDX file of unsigned bytes"),
        (idx(np.zeros((2, 3)))[:6], "IDX"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_broken_idx_files_are_named(tmp_path, content, message, zipped):
    path = tmp_path / ("broken.gz" if zipped else "broken")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_a_truncated_gzip_is_named(tmp_path):
    path = tmp_path / "broken.gz"
    path.write_bytes(gzip.compress(idx(np.ones((20, 30))))[:-10])
    with pytest.raises(InputError, match="broken.gz: expected an IDX file"):
        read_idx(path)


@pytest.mark.data
def test_the_published_images():
    if not fashion_mnist.DEBIAN_ROOT.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    data = FashionMNIST(root=str(fashion_mnist.DEBIAN_ROOT))
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 55000,
        "val": 5000,
        "test": 10000,
    }
    assert np.bincount(data.splits["test"].labels).tolist() == [1000] * 10
