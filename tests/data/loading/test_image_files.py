import io
import logging
import threading

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from pyg_avig import InputError
from pyg_avig.data import ImageFiles, read_image
from pyg_avig.data.loading import image_files


def test_16_bit_images_keep_their_greys(tmp_path):
    greys = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    path = tmp_path / "deep.png"
    Image.fromarray(greys).save(path)
    assert np.array_equal(np.array(read_image(path, 1)), greys // 257)
    assert np.array_equal(np.array(read_image(path, 3))[..., 1], greys // 257)


def test_photos_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 8), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter, clockwise.
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    upright = np.array(read_image(tmp_path / "photo.png", 1))
    assert upright.shape == (8, 4)
    assert (upright[:, -1] == 255).all()


def test_32_bit_images_are_refused(tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(path)
    with pytest.raises(InputError, match="8 or 16 are expected"):
        read_image(path, 1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_loads(tmp_path, mode, channels):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.new("RGB", (6, 4), (200, 100, 50)).convert(mode)
    transparent = {"transparency": b"\0"} if mode == "P" else {}
    image.save(path, **transparent)
    with path.open("rb") as file:
        loaded = read_image(file, channels)
    assert (loaded.mode, loaded.size) == ({1: "L", 3: "RGB"}[channels], (6, 4))


class Reader(list):
    """A reader of timm over files, each of the class of its place."""

    def __getitem__(self, index):
        return open(list.__getitem__(self, index), "rb"), index

    def filename(self, index):
        return str(list.__getitem__(self, index))


@pytest.fixture
def reader(tmp_path):
    files = Reader()
    for n in range(10):
        files.append(tmp_path / f"{n}.png")
        Image.new("L", (4, 4), n).save(files.filename(n))
    return files


def break_file(reader, n):
    with open(reader.filename(n), "wb") as file:
        file.write(b"broken")


def labels(images):
    return [label for _, label in (images[n] for n in range(len(images)))]


def test_a_broken_file_is_replaced_named_and_counted_once(reader, caplog):
    break_file(reader, 3)
    images = ImageFiles(reader, channels=1, bad_share=0.1)
    with caplog.at_level(logging.WARNING):
        assert labels(images) == labels(images) == [0, 1, 2, 4, 4, 5, 6, 7, 8, 9]
    assert len(caplog.records) == 1
    assert reader.filename(3) in caplog.text
    assert "1 of 10 files" in caplog.text
    assert int(images.bad.sum()) == 1


def test_too_many_broken_files_end_the_run(reader):
    images = ImageFiles(reader, channels=1, bad_share=0.1)
    break_file(reader, 3)
    break_file(reader, 9)
    images[3]
    with pytest.raises(InputError, match=r"2 of 10 .* share of 0.1.*9.png"):
        images[9]


def test_the_last_file_is_replaced_by_the_first(reader):
    break_file(reader, 9)
    assert ImageFiles(reader, 1, 0.5)[9][1] == 0


def test_workers_share_the_count(reader):
    break_file(reader, 3)
    break_file(reader, 4)
    images = ImageFiles(reader, channels=1, bad_share=0.2)
    list(DataLoader(SimpleDataset(images), num_workers=2))
    assert int(images.bad.sum()) == 2


class SimpleDataset:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index][1]


def test_a_share_is_a_share(reader):
    with pytest.raises(InputError, match=r"bad_share must lie in \[0, 1\)"):
        ImageFiles(reader, bad_share=1.5)


def test_files_are_looked_through_at_once(reader):
    break_file(reader, 3)
    break_file(reader, 9)
    images = ImageFiles(reader, channels=1, bad_share=0.1)
    with pytest.raises(InputError, match=r"got 2 broken of 10: .*3.png.*9.png"):
        images.look_through()
    images = ImageFiles(reader, channels=1, bad_share=0.5)
    images.look_through()
    assert images.bad.sum() == 2  # Counted, and not opened again.
    images = ImageFiles(reader, channels=1, bad_share=0.1)
    images.look_through(most=len(reader) - 1)  # Too many to be read twice.
    assert images.bad.sum() == 0


def test_broken_exif_data_do_not_break_a_picture(tmp_path, monkeypatch):
    def fail(image):
        raise TypeError("required argument is not an integer")

    monkeypatch.setattr(image_files.ImageOps, "exif_transpose", fail)
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 1).size == (6, 4)


def test_parts_of_one_file_are_read_one_after_another(reader):
    """As those of a tar file, whose place to read from all threads would move."""
    threads = set()

    class Parts(Reader):
        def __getitem__(self, index):
            threads.add(threading.current_thread())
            file, label = super().__getitem__(index)
            with file:
                return io.BytesIO(file.read()), label

    ImageFiles(Parts(reader), channels=1).look_through()
    assert len(threads - {threading.main_thread()}) == 1
