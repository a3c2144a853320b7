"""The pretrained networks that a protocol's metrics need; those without weights are left out and named."""

from __future__ import annotations

from dataclasses import dataclass, field

from ss4d.evaluation.protocol import SET_METRICS, Protocol
from ss4d.evaluation.weights import MissingWeights, WeightFile, WeightSource
from ss4d.metrics.clip_similarity import ClipSimilarity, load_clip
from ss4d.metrics.fvd import WEIGHTS, VideoNetwork, load_video_network
from ss4d.metrics.lpips import LPIPS, load_lpips

CLIP_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass
class Networks:
    """What could be loaded."""

    lpips: dict[str, LPIPS] = field(default_factory=dict)  # by metric: "lpips_alex", "lpips_vgg"
    clip: ClipSimilarity | None = None
    video: VideoNetwork | None = None
    hashes: dict[str, str] = field(default_factory=dict)  # SHA-256 of the weights, by metric
    missing: dict[str, str] = field(default_factory=dict)  # by metric, one sentence that names the file


def load_networks(protocol: Protocol, source: WeightSource) -> Networks:
    """Load the networks for the metrics of a protocol."""
    networks = Networks()
    for metric in protocol.metrics:
        try:
            if metric.startswith("lpips_"):
                weights = source.find(f"{metric}.safetensors")
                networks.lpips[metric] = load_lpips(metric.removeprefix("lpips_"), weights.path)
            elif metric == "clip":
                weights = _first(source, CLIP_FILES, protocol.clip_model)
                source.find("config.json", protocol.clip_model)
                networks.clip = load_clip(weights.path.parent)
            elif metric in SET_METRICS:
                every = protocol.fvd_variant == "clips"  # the others take the first of the files alone
                weights = _first(source, WEIGHTS) if every else source.find(WEIGHTS[0])
                networks.video = load_video_network(weights.path, protocol.fvd_variant)
            else:
                continue
            networks.hashes[metric] = weights.sha256
        except MissingWeights as error:
            networks.missing[metric] = str(error)
    return networks


def _first(source: WeightSource, names: tuple[str, str], network: str | None = None) -> WeightFile:
    """The first of two files that is there; an error names the preferred one."""
    preferred, other = names
    try:
        return source.find(preferred, network)
    except MissingWeights as error:
        try:
            return source.find(other, network)
        except MissingWeights:
            raise error from None
