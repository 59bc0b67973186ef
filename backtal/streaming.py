"""From features to segments while the video is being decoded; nothing that is done with is kept."""

from __future__ import annotations

import numpy as np

from backtal.cas_chunks import CAS_CHUNK_POSITIONS, CasChunks
from backtal.errors import Internal
from backtal.features import FloatArray
from backtal.grid import GridSampler
from backtal.localization import Choice, WindowedLocalizer
from backtal.manifest import Manifest
from backtal.run_control import RunControl
from backtal.segments import Segment
from backtal.stages import CasOutput, Stages

# Each chunk computes its halo too, and is a call to the network.
SHORTEST_CHUNK_POSITIONS = 64


class SegmentStream:
    """Features as they come -> grid -> CAS, in chunks -> windows. For a bundle that has windows.

    The answer is that of the whole at once, to the bit. Held are the clips around the next
    position, one chunk, the localizer's windows and, with `keep_cas`, the CAS.
    """

    def __init__(
        self,
        manifest: Manifest,
        stages: Stages,
        choice: Choice,
        control: RunControl,
        *,
        keep_cas: bool,
    ) -> None:
        description = manifest.description
        self._manifest = manifest
        self._control = control
        self._sampler = GridSampler(description.clip_plan, description.grid.position_seconds)
        # No longer than a window: segments become final as windows do.
        chunk_positions = max(
            SHORTEST_CHUNK_POSITIONS, min(CAS_CHUNK_POSITIONS, description.grid.window_positions)
        )
        self._chunks = CasChunks(
            stages,
            description.cas.halo_positions,
            chunk_positions,
            before_chunk=control.check_cancelled,
        )
        self._localizer = WindowedLocalizer(description, choice)
        self._keep_cas = keep_cas
        self._kept: list[FloatArray] = []

    @property
    def cas(self) -> FloatArray | None:
        """The raw CAS [C(+1), L], where it was kept."""
        return np.concatenate(self._kept, axis=1) if self._keep_cas else None

    def take(self, values: FloatArray) -> None:
        """The next clips' features [D, n]."""
        with self._control.measure("cas"):
            outputs = list(self._chunks.push(self._sampler.push(values)))
        self._localize(outputs)

    def take_final(self) -> tuple[Segment, ...]:
        """See `WindowedLocalizer.take_final`."""
        return self._localizer.take_final()

    def finish(self, duration_seconds: float) -> tuple[Segment, ...]:
        """The segments by falling score."""
        with self._control.measure("cas"):
            left = self._sampler.finish(duration_seconds)
            outputs = [*self._chunks.push(left), *self._chunks.finish()]
        self._localize(outputs)
        with self._control.measure("localize"):
            return self._localizer.finish(duration_seconds)

    def _localize(self, outputs: list[CasOutput]) -> None:
        with self._control.measure("localize"):
            for output in outputs:
                self._check(output)
                magnitude = None if output.magnitude is None else output.magnitude[0]
                self._localizer.push(output.cas[0], magnitude)
                if self._keep_cas:
                    self._kept.append(output.cas[0])

    def _check(self, output: CasOutput) -> None:
        channels = self._manifest.description.cas_channels
        if output.cas.shape[:2] != (1, channels):
            raise Internal(
                f"network {self._manifest.cas.model} gave a CAS {list(output.cas.shape)}, "
                f"expected [1, {channels}, L]"
            )
