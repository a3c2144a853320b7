"""Data sets made by `dataset_toolkits`, as batches for each stage of training."""

from ss4d.data.dataset import BatchSize, WindowDataset, to_device
from ss4d.data.features import FeatureBatch, FeatureDataset, FeatureSample, TargetView
from ss4d.data.latents import (
    SparseLatentBatch,
    SparseLatentDataset,
    SparseLatents,
    StructureLatentDataset,
    StructureLatents,
)
from ss4d.data.loader import DataSettings, batch_loader, open_dataset
from ss4d.data.masking import MaskingSettings, contact_sheet, mask_video, moving_occluder
from ss4d.data.occupancy import Occupancy, OccupancyDataset
from ss4d.data.prepared import Clip, PreparedSet
from ss4d.data.windows import Window, sample_frames

__all__ = [
    "BatchSize",
    "Clip",
    "DataSettings",
    "FeatureBatch",
    "FeatureDataset",
    "FeatureSample",
    "MaskingSettings",
    "Occupancy",
    "OccupancyDataset",
    "PreparedSet",
    "SparseLatentBatch",
    "SparseLatentDataset",
    "SparseLatents",
    "StructureLatentDataset",
    "StructureLatents",
    "TargetView",
    "Window",
    "WindowDataset",
    "batch_loader",
    "contact_sheet",
    "mask_video",
    "moving_occluder",
    "open_dataset",
    "sample_frames",
    "to_device",
]
