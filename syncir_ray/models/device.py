"""Where a model runs, and how pixels get there."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from syncir_ray.models.preprocessing import Preprocessing


class Device:
    """The GPU Ray gave this process, in `half` precision; else the CPU with `threads` threads, in float32."""

    def __init__(self, threads: int, half: torch.dtype = torch.bfloat16) -> None:
        torch.set_num_threads(threads)
        self.cuda = torch.cuda.is_available()
        self.torch = torch.device("cuda" if self.cuda else "cpu")
        self.dtype = half if self.cuda else torch.float32

    def place(self, model: nn.Module) -> Any:
        """`model` on this device for inference, convolutions in channels_last."""
        # A batch norm takes half input as it is; rounding its statistics would cost accuracy and gain nothing.
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        exact = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
        model = model.eval().requires_grad_(False).to(self.torch, self.dtype)
        for norm, state in zip(norms, exact, strict=True):
            norm.float().load_state_dict(state)
        return cast(Any, model).to(memory_format=torch.channels_last)


class Feed:
    """uint8 pixels on the host to normalised batches on the device."""

    def __init__(self, device: Device, preprocessing: Preprocessing, batch: int) -> None:
        self.device, self.batch = device, batch
        self.shape = (preprocessing.resize.height, preprocessing.resize.width, 3)
        mean, std = (torch.tensor(v, device=device.torch).view(1, 3, 1, 1) for v in preprocessing[1:])
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, pixels: np.ndarray) -> Iterator[torch.Tensor]:
        """(n, h, w, 3) uint8 -> tensors (<= batch, 3, h, w), normalised, channels_last, in order.

        Raises:
            ValueError: pixels of another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"pixels must be uint8 (n, {wanted}), not {pixels.dtype} {pixels.shape}")
        parts = [pixels[i : i + self.batch] for i in range(0, len(pixels), self.batch)]
        for part in self._ahead(parts) if self.device.cuda else map(_owned, parts):
            # Permuted, a row of RGB pixels is channels_last already. Normalised in fp32, rounded once.
            normal = part.permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)
            yield normal.to(self.device.dtype)

    def _ahead(self, parts: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """Each part on the GPU, the next one under way while the caller computes on this one."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()

        def send(part: np.ndarray) -> tuple[torch.Tensor, torch.cuda.Event]:
            host = torch.empty(part.shape, dtype=torch.uint8, pin_memory=True)  # torch keeps and reuses these
            host.numpy()[...] = part
            with torch.cuda.stream(side):
                sent = host.to(self.device.torch, non_blocking=True)
                return sent, side.record_event()

        waiting = [send(part) for part in parts[:1]]
        for following in [*parts[1:], None]:
            if not waiting:
                return
            sent, arrived = waiting.pop()
            if following is not None:
                waiting.append(send(following))
            main.wait_event(arrived)
            sent.record_stream(main)  # its memory belongs to the side stream: not to be reused before main is done
            yield sent


def _owned(part: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(part))  # a copy: Ray's arrays are read-only, which torch warns of
