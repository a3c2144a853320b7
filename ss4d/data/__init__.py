"""Data sets made by `dataset_toolkits`, as batches for each stage of training.

Names are loaded on first use: `ss4d.data.format` and `ss4d.data.views`, which the toolkit needs, work without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ss4d.data.dataset import BatchSize as BatchSize
    from ss4d.data.dataset import WindowDataset as WindowDataset
    from ss4d.data.dataset import to_device as to_device
    from ss4d.data.features import FeatureBatch as FeatureBatch
    from ss4d.data.features import FeatureDataset as FeatureDataset
    from ss4d.data.features import FeatureSample as FeatureSample
    from ss4d.data.features import TargetView as TargetView
    from ss4d.data.latents import SparseLatentBatch as SparseLatentBatch
    from ss4d.data.latents import SparseLatentDataset as SparseLatentDataset
    from ss4d.data.latents import SparseLatents as SparseLatents
    from ss4d.data.latents import StructureLatentDataset as StructureLatentDataset
    from ss4d.data.latents import StructureLatents as StructureLatents
    from ss4d.data.loader import BatchLoader as BatchLoader
    from ss4d.data.loader import DataSettings as DataSettings
    from ss4d.data.loader import open_dataset as open_dataset
    from ss4d.data.masking import MaskingSettings as MaskingSettings
    from ss4d.data.masking import contact_sheet as contact_sheet
    from ss4d.data.masking import mask_video as mask_video
    from ss4d.data.masking import moving_occluder as moving_occluder
    from ss4d.data.occupancy import Occupancy as Occupancy
    from ss4d.data.occupancy import OccupancyDataset as OccupancyDataset
    from ss4d.data.occupancy import PicturedOccupancy as PicturedOccupancy
    from ss4d.data.occupancy import PicturedOccupancyDataset as PicturedOccupancyDataset
    from ss4d.data.prepared import PreparedClip as PreparedClip
    from ss4d.data.prepared import PreparedSet as PreparedSet
    from ss4d.data.training_windows import Window as Window
    from ss4d.data.training_windows import sample_frames as sample_frames

_MODULES = {
    "dataset": ("BatchSize", "WindowDataset", "to_device"),
    "features": ("FeatureBatch", "FeatureDataset", "FeatureSample", "TargetView"),
    "latents": (
        *("SparseLatentBatch", "SparseLatentDataset", "SparseLatents"),
        *("StructureLatentDataset", "StructureLatents"),
    ),
    "loader": ("DataSettings", "BatchLoader", "open_dataset"),
    "masking": ("MaskingSettings", "contact_sheet", "mask_video", "moving_occluder"),
    "occupancy": ("Occupancy", "OccupancyDataset", "PicturedOccupancy", "PicturedOccupancyDataset"),
    "prepared": ("PreparedClip", "PreparedSet"),
    "training_windows": ("Window", "sample_frames"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"ss4d.data.{module}"), name)
    raise AttributeError(f"module 'ss4d.data' has no attribute {name!r}")
