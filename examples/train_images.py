"""Train AttentionViG-nano on tensors of images in a loop of one's own: no Lightning, no files.

python examples/train_images.py
"""

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import pyg_avig.models  # noqa: F401  (registers the models in timm)


def main(steps: int = 30, num_images: int = 256) -> list[float]:
    """Print and return the loss of each step."""
    pixels, label = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    images = F.interpolate(pixels[:num_images].view(-1, 1, 8, 8).float() / 8 - 1, size=32)
    label = label[:num_images]

    model = timm.create_model("attentionvig_nano", num_classes=10, in_chans=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        loss = F.cross_entropy(model(images[batch]), label[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.2f} after {steps} steps")
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
