import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIG = Path("configs/digits/nano.yaml").absolute()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, "."],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """An environment that has the wheel, and all else from ours, so that it downloads nothing."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site,) = {path.parent for path in folder.glob("**/pyg_avig-*.dist-info")}
    (site / "ours.pth").write_text("\n".join(ours))
    return scripts


def run(fresh, folder, *command):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [fresh / command[0], *command[1:]],
        check=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.slow
def test_the_wheel_has_what_an_index_asks_for(wheel):
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=True)


@pytest.mark.slow
def test_the_layer_runs_from_the_wheel(fresh, tmp_path):
    program = """
import torch
import pyg_avig
from pyg_avig.ops.kernels import build
conv = pyg_avig.CrossAttnConv(16, 8, heads=2)
ring = torch.arange(100)
out = conv(torch.randn(100, 16), torch.stack([ring, ring.roll(1)]))
print(pyg_avig.__file__, build.__file__, tuple(out.shape), sep="\\n")
"""
    package, kernels, shape = run(fresh, tmp_path, "python", "-W", "ignore", "-c", program).split(
        "\n"
    )[:3]
    assert Path(package).is_relative_to(fresh.parent)
    assert {path.name for path in Path(kernels).parent.glob("cpp/*")} == {
        path.name for path in Path("pyg_avig/ops/kernels/cpp").iterdir()
    }
    assert shape == "(100, 16)"


@pytest.mark.slow
def test_the_demo_trains_from_the_wheel(fresh, tmp_path):
    options = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.limit=64"]
    run(fresh, tmp_path, "pyg-avig", "fit", f"--config={CONFIG}", *options)
    checkpoint = tmp_path / "runs/digits-nano/version_0/checkpoints/best.ckpt"
    image = tmp_path / "digit.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    path, label, probability = run(
        fresh, tmp_path, "pyg-avig", "predict", checkpoint, image
    ).split()
    assert path == str(image)
    assert label in {str(digit) for digit in range(10)}
    assert 0 < float(probability) <= 1
    run(fresh, tmp_path, "pyg-avig", "explore", checkpoint, image, "--out", "page.html")
    assert "<script" in (tmp_path / "page.html").read_text()
