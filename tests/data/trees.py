"""Small trees of ImageNet's layout, cropped from the photos that scikit-learn ships."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = ("n01440764", "n01443537", "n02099601")


def imagenet_tree(root, train=4, val=2, side=96):
    """``train`` and ``val`` images of each class: crops of a photo, or of it upside down."""
    photos = load_sample_images().images
    generator = np.random.default_rng(0)
    for split, number in (("train", train), ("val", val)):
        for c, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            photo = (*photos, photos[0][::-1])[c]
            for n in range(number):
                top, left = (int(generator.integers(size - side)) for size in photo.shape[:2])
                crop = np.ascontiguousarray(photo[top : top + side, left : left + side])
                Image.fromarray(crop).save(folder / f"{name}_{n}.JPEG")
    return root
