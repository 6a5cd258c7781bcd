"""SpinQuant: QuaRot with R1 and R2 learned on the Stiefel manifold, so that rounding activations changes the output as little as possible.

As in the paper, only activations are rounded while learning, since GPTQ compensates for rounding the weights. The loss is the
Kullback-Leibler divergence from the dense model's predictions, since the compressed model should predict the same; the paper uses the
loss of the next token.

The matrices are learned by gradient descent in which every step is a rotation, so that they stay orthogonal up to rounding.
"""

from collections.abc import Sequence
from typing import Any

from producer.methods.quarot import CLIPPING, fits_rotation, quantize_rotated, verify_rotated
from producer.methods.quarot import settings_for as quarot_settings
from producer.methods.shared.contract import GRADIENTS, Job
from producer.methods.shared.quantization import WEIGHTS_AND_ACTIVATIONS
from producer.methods.shared.rotated_forward import DenseStates, RotatedModel, RoundStraightThrough, dense_states, rotated
from producer.methods.shared.rotation import Rotations, random_rotations
from schemas.errors import PostConditionError
from schemas.levels import Level

STEPS, RATE, CHECK_EVERY = 60, 0.05, 10
SEQUENCES, LENGTH, BATCH = 32, 256, 8  # of the compression data; rotations have few parameters
ORTHOGONAL = 1e-6  # largest deviation from orthogonality that can be due to rounding


def spinquant(model: Any, job: Job) -> Any:
    """Return the model with learned rotations, weights and activations rounded."""
    learned, before, after = learn(model, random_rotations(model, job.seed), job)
    model = quantize_rotated(model, learned, job)
    model.learning = {"rotation_loss_before": before, "rotation_loss_after": after, "rotation_orthogonality": orthogonality(learned)}
    return model


def learn(model: Any, start: Rotations, job: Job) -> tuple[Rotations, float, float]:
    """Return the best rotations, the loss (nats per token) of the random start, and that of the best. R4 is not learned; norms are fused.

    The loss over all batches is computed at the start and every CHECK_EVERY steps; the rotations with the lowest loss are returned.
    """
    import torch

    device = job.device or model.device
    matrices = [matrix.clone().to(device) for matrix in (start.stream, *start.values)]
    optimizer, targets = CayleySGD(matrices, RATE), dense_states(model, learning_batches(model, job.data), device)
    rounding = RoundStraightThrough(job.level.activation_bits, job.settings["activation_clip"])
    with rotated(model, start, rounding, device) as candidate:
        best, first = [matrix.clone() for matrix in matrices], mean_loss(candidate, matrices, targets)
        best_loss = first
        for step in range(STEPS):
            variables = [matrix.clone().requires_grad_() for matrix in matrices]
            loss = candidate.loss(variables, targets[step % len(targets)])
            optimizer.step(list(torch.autograd.grad(loss, variables)), 1 - step / STEPS)
            if (step + 1) % CHECK_EVERY == 0 and (now := mean_loss(candidate, matrices, targets)) < best_loss:
                best, best_loss = [matrix.clone() for matrix in matrices], now
    return Rotations(best[0], best[1:], start.down), first, best_loss


def learning_batches(model: Any, data: Any) -> list[Any]:
    """Return the token ids that the rotations are learned on, (sequence, token) each."""
    import torch

    ids = torch.tensor([row[:LENGTH] for row in data.input_ids[:SEQUENCES]], device=model.device)
    return list(ids.split(BATCH))


def mean_loss(candidate: RotatedModel, matrices: Sequence[Any], targets: Sequence[DenseStates]) -> float:
    """Return the loss over all batches, nats per token."""
    import torch

    with torch.no_grad():
        return sum(float(candidate.loss(matrices, each)) * len(each.ids) for each in targets) / sum(len(each.ids) for each in targets)


def orthogonality(rotations: Rotations) -> float:
    """Return the largest entry of R^T R - I over R1 and every R2."""
    import torch

    def gap(matrix: Any) -> Any:
        return (matrix.T @ matrix - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)).abs().max()

    return float(torch.stack([gap(matrix) for matrix in (rotations.stream, *rotations.values)]).max())  # NaN if any entry is


def verify_learned(model: Any, job: Job) -> dict[str, Any]:
    """Return the loss before and after learning, and the post-conditions of QuaRot.

    Raises PostConditionError if a learned matrix is not orthogonal, or if learning did not lower the loss, which would leave QuaRot.
    """
    gap, before, after = (model.learning[f"rotation_{name}"] for name in ("orthogonality", "loss_before", "loss_after"))
    if not after < before:
        raise PostConditionError(f"no learned rotation was better than the random one (loss {before:.3g}); try another --seed, or quarot")
    if not gap <= ORTHOGONAL:
        raise PostConditionError(f"a learned rotation deviates from orthogonality by {gap:.2g}; rounding explains at most {ORTHOGONAL:g}")
    return model.learning | verify_rotated(model, job)


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a SpinQuant run records."""
    learning: dict[str, Any] = {"steps": STEPS, "rate": RATE, "sequences": SEQUENCES, "length": LENGTH, "batch": BATCH}
    learning |= {"loss": "KL from dense", "gradient": "with scale"}
    return quarot_settings(level) | {"rotations": "learned R1, R2, random Hadamard R4", "learning": learning}


class CayleySGD:
    """Cayley SGD with momentum; `rate` is the largest angle, in radians, by which one step rotates any plane.

    Source : Li, Fuxin and Todorovic 2020, arXiv:2002.01113, algorithm 1, with the Cayley transform solved exactly.
    """

    def __init__(self, matrices: list[Any], rate: float, momentum: float = 0.9) -> None:
        import torch

        self.matrices, self.rate, self.momentum = matrices, rate, momentum
        self.velocities = [torch.zeros_like(matrix) for matrix in matrices]

    def step(self, gradients: list[Any], factor: float = 1.0) -> None:
        """Rotate every matrix against its gradient; `factor` multiplies the rate (learning-rate schedule)."""
        import torch

        for matrix, velocity, gradient in zip(self.matrices, self.velocities, gradients, strict=True):
            velocity.mul_(self.momentum).sub_(gradient)
            skew = tangent(velocity, matrix)
            velocity.copy_(skew @ matrix)  # the next step's momentum is projected onto the tangent space
            norm = torch.linalg.matrix_norm(skew, 2)
            if norm > 0:
                matrix.copy_(cayley(skew * (factor * self.rate / norm)) @ matrix)


def tangent(direction: Any, matrix: Any) -> Any:
    """Return the skew-symmetric A for which A @ matrix is the part of `direction` that keeps the matrix orthogonal."""
    half = direction @ matrix.T - 0.5 * matrix @ (matrix.T @ direction @ matrix.T)
    return half - half.T


def cayley(skew: Any) -> Any:
    """Return the orthogonal matrix (I - A/2)^-1 (I + A/2) of a skew-symmetric A."""
    import torch

    identity = torch.eye(skew.shape[0], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(identity - skew / 2, identity + skew / 2)


METHOD = WEIGHTS_AND_ACTIVATIONS(
    name="spinquant",
    paper="Liu et al. 2025, arXiv:2405.16406",
    default_level="w4a4",
    needs=GRADIENTS,
    compress=spinquant,
    settings_for=settings_for,
    fits=fits_rotation,
    verify=verify_learned,
    rotates=True,
    options=CLIPPING,
    unsavable="it rotates activations inside the forward pass",
)
