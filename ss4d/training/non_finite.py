"""What to say where a loss or its gradients are not finite: which clips, at which step, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from ss4d.training.distributed import World, highest, local
from ss4d.training.optimization import LossScale


def explain(step: int, norm: float, clips: Sequence[str], scale: LossScale) -> str:
    """A sentence about a step that cannot be taken.

    Args:
        norm: of the gradients.
        clips: those of the batches whose loss is not finite; none where all losses are.
        scale: of the loss, after this step.
    """
    if clips:
        names = ", ".join(clips[:8]) + (f" and {len(clips) - 8} more" if len(clips) > 8 else "")
        what, clip_advice = f"the loss is not finite on the clips {names} (their data are)", ", or leave the clips out"
    else:
        what, clip_advice = f"the loss is finite and its gradients are not (norm {norm})", ""
    if scale.fixed:
        advice = f"lower train.learning_rate{clip_advice}"
    else:
        what = f"the {scale.skipped}th step in a row had to be skipped, even at a loss scale of {scale.value:g}: {what}"
        advice = f"fp16 overflows, set train.precision to bf16 or fp32{clip_advice}"
    return f"step {step}: {what}: {advice}; started again, it resumes from the last checkpoint"


def check_all_finite(parameters: Iterable[Tensor], step: int, world: World) -> None:
    """FloatingPointError, on all processes, where a weight that is to be saved is not finite."""
    finite = all(bool(local(value).isfinite().all()) for value in parameters)
    if highest(None if finite else 1, world) is not None:
        raise FloatingPointError(
            f"step {step}: a weight is not finite any more, and no checkpoint was written of it: lower "
            "train.learning_rate; started again, the run resumes from the last checkpoint"
        )


def check_weights(models: nn.Module, source: str) -> None:
    """ValueError where a weight is not finite."""
    for name, value in models.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{name} of {source} is not finite: start from other weights")
