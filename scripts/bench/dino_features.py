"""Time and memory of DINOv2 ViT-L/14 (registers) on the views of a frame at 518 px, with random weights, on the CPU."""

from __future__ import annotations

import time
from argparse import Namespace

import numpy as np
import torch

from dataset_toolkits.features.extractors import DinoExtractor
from dataset_toolkits.features.projection import FrameViews, pixel_rays
from ss4d.cameras import hammersley_sphere, orbit_camera
from ss4d.data.views import Cameras
from ss4d.memory import peak_memory
from ss4d.models.image_encoder import DinoImageEncoder

CPU = torch.device("cpu")
VIT_LARGE = {
    **{"image_size": 518, "patch_size": 14, "hidden_size": 1024, "num_hidden_layers": 24},
    **{"num_attention_heads": 16, "num_register_tokens": 4},
}


def run(options: Namespace) -> None:
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    extractor = DinoExtractor(DinoImageEncoder(config=VIT_LARGE), options.batch)
    print(f"encoder loaded       {peak_memory(CPU) / 1e9:5.2f} GB")
    views = random_views(options.views)
    start = time.perf_counter()
    (maps,) = extractor(views)
    seconds = time.perf_counter() - start
    peak = peak_memory(CPU) / 1e9
    print(f"{options.views} views, batch {options.batch:3d}   {peak:5.2f} GB at most, {seconds:.1f} s")
    print(f"maps {list(maps.shape)}, {threads} threads")


def random_views(count: int) -> FrameViews:
    orbit = [orbit_camera(view.azimuth_deg, view.elevation_deg) for view in hammersley_sphere(count)]
    cameras = Cameras(
        np.stack([camera.extrinsics.numpy() for camera in orbit]),
        np.stack([camera.intrinsics.numpy() for camera in orbit]),
    )
    rgba = np.random.default_rng(0).integers(0, 256, (count, 512, 512, 4), np.uint8)
    return FrameViews(rgba, np.ones((count, 512, 512), np.float32), cameras, pixel_rays(cameras, 512))
