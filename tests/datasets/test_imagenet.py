import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pyg_avig.data import Images

SCRIPT = Path("datasets/imagenet/prepare.py")
WNIDS = ["n02", "n01", "n03"]
TRUTH = [3, 1, 2, 1]


@pytest.fixture
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_imagenet", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return buffer.getvalue()


@pytest.fixture
def archives(tmp_path, prepare):
    folder = tmp_path / "archives"
    folder.mkdir()
    classes = {
        f"{wnid}.tar": tar({f"{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for n in range(2)})
        for wnid in WNIDS
    }
    (folder / prepare.TRAIN).write_bytes(tar(classes))
    names = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 5)]
    (folder / prepare.VAL).write_bytes(tar({name: name.encode() for name in names}))
    rows = np.zeros(3, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    for n, wnid in enumerate(WNIDS):
        rows[n] = n + 1, wnid
    meta = io.BytesIO()
    savemat(meta, {"synsets": rows})
    with tarfile.open(folder / prepare.DEVKIT, "w:gz") as archive:
        add(archive, "devkit/data/meta.mat", meta.getvalue())
        truth = "\n".join(map(str, TRUTH)).encode()
        add(archive, "devkit/data/ILSVRC2012_validation_ground_truth.txt", truth)
    return folder


COUNTS = {"train": 6, "val": 4}


def test_the_tree_is_what_the_data_module_reads(archives, tmp_path, prepare):
    tree = tmp_path / "imagenet"
    prepare.prepare(archives, tree, COUNTS)
    found = {p.relative_to(tree / "val"): p.read_bytes() for p in (tree / "val").rglob("*.JPEG")}
    assert {str(path.parent): [] for path in found} == {"n01": [], "n02": [], "n03": []}
    for n, truth in enumerate(TRUTH, start=1):
        name = f"ILSVRC2012_val_{n:08}.JPEG"
        assert found[Path(WNIDS[truth - 1], name)] == name.encode()
    assert (tree / "train" / "n01" / "n01_1.JPEG").read_text() == "n01 1"
    assert not list(tree.rglob("*.partial"))
    data = Images(str(tree))
    assert data.classes == sorted(WNIDS)


def test_it_resumes(archives, tmp_path, prepare):
    tree = tmp_path / "imagenet"
    prepare.prepare(archives, tree, COUNTS)
    kept = tree / "train" / "n01" / "n01_0.JPEG"
    written = kept.stat().st_mtime_ns
    for split in ("train", "val"):  # As if it had stopped in the middle of a class.
        (tree / split / "n03").rename(tree / split / ".n03.partial")
        next((tree / split / ".n03.partial").iterdir()).unlink()
    assert Images(str(tree)).classes == ["n01", "n02"]
    prepare.prepare(archives, tree, COUNTS)
    assert kept.stat().st_mtime_ns == written
    assert len(list(tree.rglob("*.JPEG"))) == 10


def test_missing_files_and_wrong_numbers_are_named(archives, tmp_path, prepare):
    with pytest.raises(SystemExit, match="expected 7 images .got 6"):
        prepare.prepare(archives, tmp_path / "tree", {"train": 7})
    (archives / prepare.DEVKIT).unlink()
    run = subprocess.run(
        [sys.executable, SCRIPT, archives, tmp_path / "tree"], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "devkit_t12.tar.gz (there is none)" in run.stderr


def test_a_truncated_class_is_not_taken_for_whole(archives, tmp_path, prepare):
    whole = tar({"n01_0.JPEG": b"a" * 600, "n01_1.JPEG": b"b"})
    (archives / prepare.TRAIN).write_bytes(tar({"n01.tar": whole[: 512 + 1024]}))
    with pytest.raises(SystemExit, match="n01.tar in it is truncated"):
        prepare.prepare(archives, tmp_path / "tree", COUNTS)
    assert not list((tmp_path / "tree" / "train").glob("n01"))
