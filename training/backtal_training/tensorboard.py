"""A run in TensorBoard: the loss terms, the held-out mAP, and pictures of the CAS.

A picture is one held-out video: above, its ground truth; below, the CAS of each class, brighter
where it is greater, each class between its own least and greatest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtal.errors import MissingDependency
from backtal.features import FloatArray
from backtal_training.datasets import Sample
from backtal_training.state import Epoch
from backtal_training.trainer import Answer

NUM_PICTURES = 4
MOST_CLASSES = 24
ROW_PIXELS = 12
_TRUTH_COLOUR = (90, 200, 120)


class Board:
    """Writes event files into `folder`. Raises MissingDependency without the extra."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingDependency(
                f"TensorBoard needs {error.name}: pip install 'backtal[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def on_epoch(self, epoch: Epoch) -> None:
        """The scalars of an epoch."""
        for name, value in epoch.losses.items():
            self._writer.add_scalar(f"loss/{name}", value, epoch.number)
        if epoch.held_out_map is not None:
            self._writer.add_scalar("held-out/mAP", epoch.held_out_map, epoch.number)
        self._writer.add_scalar("seconds", epoch.seconds, epoch.number)

    def on_answers(self, number: int, answers: Sequence[Answer]) -> None:
        """Pictures of the first few videos."""
        for sample, cas, _ in answers[:NUM_PICTURES]:
            picture = draw_cas(sample, cas)
            self._writer.add_image(f"cas/{sample.name}", picture, number, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


def draw_cas(sample: Sample, cas: FloatArray) -> NDArray[np.uint8]:
    """The picture [H, L, 3] of a video's cas [C+1, L]: its own classes first, background last."""
    num_classes, length = cas.shape[0] - 1, cas.shape[1]
    own = np.flatnonzero(sample.video_labels)
    others = [one for one in range(num_classes) if one not in own][: MOST_CLASSES - len(own)]
    rows = []
    for label in (*own.tolist(), *others, num_classes):
        low, high = cas[label].min(), cas[label].max()
        grey = (255 * (cas[label] - low) / max(high - low, 1e-6)).astype(np.uint8)
        row = np.broadcast_to(grey[:, None], (length, 3)).copy()
        truth = np.zeros((length, 3), np.uint8)
        if label < num_classes:
            truth[sample.frame_labels == label] = _TRUTH_COLOUR
        rows += [truth[None].repeat(ROW_PIXELS // 3, axis=0), row[None].repeat(ROW_PIXELS, axis=0)]
    return np.concatenate(rows)
