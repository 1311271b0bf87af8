"""The 3D models of furniture that come with Sweet Home 3D, as point clouds."""

from __future__ import annotations

import io
import logging
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import debian_file, default_root
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.graphs.constructors import positive

DEBIAN_ROOT = Path("/usr/share/sweethome3d/furniture")
_PACKAGE = "sweethome3d-furniture"

# The class of a model is that of the last word of its English name that is listed here:
# a "Desk lamp" is a lamp, a "Glass door cabinet" a cabinet.
_WORDS = {
    "bed": "bed crib futon",
    "cabinet": "bookcase cabinet chest cupboard dresser locker shelves vanity wardrobe",
    "chair": "armchair chair stool",
    "door or window": "door window",
    "lamp": "lamp lamppost lantern light lights",
    "person": "boy female girl male",
    "plant": "acacia bamboo beech blossom bush cactus cypress ficus flowers hedge lily maple "
    "orchids pine plant poplar spathiphyllum tree tulips yucca",
    "sofa": "couch sofa",
    "table": "desk table",
    "vehicle": "beetle bicycle bike bus car chevrolet focus leon motorbike peugeot scenic scooter "
    "sedan suv tricycle truck van yamaha",
    "vessel": "bottle bowl cup flacon glass jar mug pot pottery teapot vase",
}
# What the words get wrong, and what lies between two classes.
_LEFT_OUT = {
    "bedside table",
    "changing table",
    "chest freezer",
    "cup cake",
    "indoor bike",
    "opened convertible sofa bz",
    "plant box",
    "plate, glass and cutlery",
    "table fan",
    "table tennis bat",
    "window blind",
    "window shutter",
}
_CLASS_OF_WORD = {word: name for name, words in _WORDS.items() for word in words.split()}

CLASSES = tuple(_WORDS)

# The creators that made a whole catalogue; the others are people who gave a few models.
_STUDIOS = {"Kator Legaz", "Reallusion", "Scopia"}

_log = logging.getLogger(__name__)


class Furniture(InMemoryDataset):
    """387 CAD models of things in and around a house, 11 classes, as point clouds.

    Models: the additional catalogues of Sweet Home 3D, in the Debian package
    ``sweethome3d-furniture`` (CC0 and CC BY 3.0). Card: ``datasets/furniture/README.md``. The
    classes are ours, by :func:`furniture_class`, from the names in the catalogues; models of no
    class are left out.

    Each graph has no edges (see :class:`~pyg_avig.transforms.PointsToGraph`) and

    - ``pos``: points drawn evenly over the surface, (num_points, 3), float, in centimetres;
      y is up, the model stands at y = 0, its box is centred at x = z = 0;
    - ``normal``: the unit normals of the faces they lie on, (num_points, 3); which side they
      point to is as the model's author left it;
    - ``y``: the class, (1,); ``group``: which set the model belongs to, (1,); ``name``: the
      catalogue and the file of the model.

    The points of a model depend on its name and ``num_points`` alone. Models that cannot be read
    are skipped with a warning in the log.

    Args:
        root: Where the prepared points are kept; the user's cache by default.
        transform: Applied to each graph when it is read.
        pre_transform: Applied to each graph before it is kept. Each has files of its own.
        source: A folder with the catalogues (``*.sh3f``). ``None``: the place of the Debian
            package.
        num_points: Points a model.
        force_reload: Prepare the points anew, after the catalogues changed.

    Raises:
        InputError: If there are no catalogues, one is broken, more than a tenth of the models
            cannot be read, or trimesh, which reads them, is not installed.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[[Data], Any] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        source: str | None = None,
        num_points: int = 2048,
        force_reload: bool = False,
    ) -> None:
        self.source = str(Path(source).resolve()) if source else None
        self.num_points = positive("num_points", num_points)
        self.classes = list(CLASSES)
        super().__init__(
            root or default_root("furniture"),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        self.load(self.processed_paths[0])

    @property
    def processed_dir(self) -> str:
        """A folder for each choice of arguments that changes the points."""
        choice = repr((self.source, self.num_points, self.pre_transform))
        return str(Path(self.root, f"points_{self.num_points}_{zlib.crc32(choice.encode()):08x}"))

    @property
    def processed_file_names(self) -> str:
        """The file of all graphs."""
        return "data.pt"

    def process(self) -> None:
        """Read the models and draw their points."""
        folder = Path(self.source) if self.source else debian_file(_PACKAGE, DEBIAN_ROOT)
        catalogues = sorted(folder.glob("*.sh3f"))
        if not catalogues:
            raise InputError(
                f"{folder}: expected catalogues of Sweet Home 3D, *.sh3f (got none); "
                f"apt-get install {_PACKAGE} puts them into {DEBIAN_ROOT}"
            )
        graphs: list[Data] = []
        groups: dict[tuple[str, ...], int] = {}
        unread = []
        for catalogue in catalogues:
            for model, content in read_catalogue(catalogue):
                name = furniture_class(model.name)
                if name is None:
                    continue
                key = f"{catalogue.stem}{model.path}"
                try:
                    pos, normal = _surface(content, model, self.num_points, seed=key)
                except ValueError as error:
                    unread.append(f"{key} ({error})")
                    continue
                group = groups.setdefault((catalogue.stem, name, model.set), len(groups))
                graphs.append(
                    Data(
                        pos=pos,
                        normal=normal,
                        y=torch.tensor([CLASSES.index(name)]),
                        group=torch.tensor([group]),
                        name=key,
                    )
                )
        if unread:
            _log.warning("skipped models that cannot be read: %s", "; ".join(unread))
        if not graphs or 10 * len(unread) > len(graphs) + len(unread):
            raise InputError(
                f"{folder}: expected at most a tenth of the models to be unreadable (got "
                f"{len(unread)} of {len(graphs) + len(unread)}): {'; '.join(unread[:3])}"
            )
        if self.pre_transform is not None:
            graphs = [self.pre_transform(graph) for graph in graphs]
        with written_whole(self.processed_paths[0]) as path:
            self.save(graphs, str(path))

    def split(self, fold: int = 0, folds: int = 5) -> dict[str, Tensor]:
        """Indices of the graphs for training, validation and test, the same in every run.

        Each class is spread evenly over ``folds`` parts, of which number ``fold`` is the test.
        The rest of each class is spread likewise over ten parts, of which the smallest is for
        validation. Sets of similar models (``group``) are never torn apart.

        Raises:
            InputError: If ``folds`` is below 2, or ``fold`` is not one of them.
        """
        if not isinstance(folds, Integral) or folds < 2:
            raise InputError(f"folds must be an int, 2 or more (got {folds!r})")
        if not isinstance(fold, Integral) or not 0 <= fold < folds:
            raise InputError(f"fold must be an int from 0 to {folds - 1} (got {fold!r})")
        y, group = self._data.y.tolist(), self._data.group.tolist()
        everything = range(len(y))
        part = _deal(everything, y, group, folds)
        rest = [i for i in everything if part[i] != fold]
        tenth = _deal(rest, y, group, 10)
        sizes = Counter((y[i], tenth[i]) for i in rest)
        val = set()
        for label in range(len(self.classes)):
            # The smallest of them, for large sets are better trained on.
            smallest = sorted((size, -p, p) for (c, p), size in sizes.items() if c == label)
            if len(smallest) > 1:
                val.add((label, smallest[0][2]))
        indices = {
            "train": [i for i in rest if (y[i], tenth[i]) not in val],
            "val": [i for i in rest if (y[i], tenth[i]) in val],
            "test": [i for i in everything if part[i] == fold],
        }
        return {name: torch.tensor(index, dtype=torch.long) for name, index in indices.items()}


def furniture_class(name: str) -> str | None:
    """The class of a model from its English name, one of ``CLASSES``; ``None``: it has none.

    The rule is ours: the last word of the name that stands for a class decides, but for a few
    names that are left out.
    """
    name = name.lower()
    words = [word for word in re.findall("[a-z]+", name) if word in _CLASS_OF_WORD]
    return _CLASS_OF_WORD[words[-1]] if words and name not in _LEFT_OUT else None


class Model(NamedTuple):
    """What a catalogue says of one model."""

    name: str
    path: str
    creator: str
    size: tuple[float, float, float]
    rotation: tuple[float, ...]

    @property
    def set(self) -> str:
        """What the models of a set have in common, within a catalogue and a class.

        A person's models are often parts of one set, as the cabinets of a kitchen; a studio's
        are told apart by the first word of the file: window_2x3, window_2x4_arched.
        """
        if self.creator not in _STUDIOS:
            return self.creator
        word = re.search(r"[A-Z]?[a-z]+|[A-Z]+", Path(self.path).stem)
        return word[0].lower() if word else self.path


def read_catalogue(path: Path) -> Iterator[tuple[Model, bytes]]:
    """The models of a furniture catalogue of Sweet Home 3D, each with its OBJ file.

    Format: <https://www.sweethome3d.com/importModels.jsp>: a zip file with the models and
    ``PluginFurnitureCatalog.properties``, whose lines are ``field#number=value``. Sizes (width,
    height, depth) are in centimetres; ``modelRotation``, the nine values of a matrix, turns a
    model upright.

    Raises:
        InputError: If the file is broken, or the catalogue names a file or value that it lacks.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
            fields = dict(re.findall(r"^(\w+#\d+)=(.*?)\s*$", text, re.MULTILINE))
            for key, name in fields.items():
                if not key.startswith("name#"):
                    continue
                number = key[len("name") :]
                width, height, depth = (
                    float(fields[f"{side}{number}"]) for side in ("width", "height", "depth")
                )
                rotation = fields.get(f"modelRotation{number}", "1 0 0 0 1 0 0 0 1").split()
                model = Model(
                    name=name,
                    path=fields[f"model{number}"],
                    creator=fields.get(f"creator{number}", ""),
                    size=(width, height, depth),
                    rotation=tuple(float(value) for value in rotation),
                )
                if len(rotation) != 9:
                    raise ValueError(f"modelRotation{number} has {len(rotation)} values")
                yield model, archive.read(model.path.lstrip("/"))
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: expected a furniture catalogue of Sweet Home 3D ({error})"
        ) from None


def _surface(content: bytes, model: Model, num_points: int, seed: str) -> tuple[Tensor, Tensor]:
    """Points on the surface of a model and their normals, upright and in centimetres.

    Raises ValueError if there is no surface.
    """
    try:
        import trimesh
    except ImportError:
        raise InputError(
            "expected trimesh, which reads the models (it is not installed); pip install trimesh"
        ) from None
    try:
        mesh = trimesh.load_mesh(
            io.BytesIO(content), file_type="obj", skip_materials=True, process=False
        )
        rotation = np.reshape(model.rotation, (3, 3))
        mesh = trimesh.Trimesh(mesh.vertices @ rotation.T, mesh.faces, process=False)
        if not np.isfinite(mesh.area) or mesh.area <= 0:
            raise ValueError(f"the surface has an area of {mesh.area}")
        points, faces = trimesh.sample.sample_surface(
            mesh, num_points, seed=zlib.crc32(seed.encode())
        )
    except Exception as error:  # Whatever a broken OBJ file provokes in the reader.
        raise ValueError(f"{type(error).__name__}: {error}") from None
    (x_low, y_low, z_low), (x_high, _, z_high) = mesh.bounds
    origin = np.array([(x_low + x_high) / 2, y_low, (z_low + z_high) / 2])
    # The longest sides, for a few models lie crosswise to their sizes in the catalogue.
    scale = max(model.size) / mesh.extents.max()
    pos, normal = (points - origin) * scale, mesh.face_normals[faces]
    return torch.from_numpy(pos).float(), torch.from_numpy(np.array(normal)).float()


def _deal(index: Iterable[int], y: list[int], group: list[int], parts: int) -> dict[int, int]:
    """The part of each model: large groups first, each to where its class is rarest."""
    members: dict[int, list[int]] = {}
    for i in index:
        members.setdefault(group[i], []).append(i)
    part: dict[int, int] = {}
    of_class: Counter[tuple[int, int]] = Counter()
    of_all: Counter[int] = Counter()
    for models in sorted(members.values(), key=len, reverse=True):
        label = y[models[0]]
        to = min(range(parts), key=lambda p: (of_class[label, p], of_all[p], p))
        of_class[label, to] += len(models)
        of_all[to] += len(models)
        part.update(dict.fromkeys(models, to))
    return part
