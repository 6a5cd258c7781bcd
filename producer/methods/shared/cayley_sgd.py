"""Gradient descent on orthogonal matrices: Cayley SGD with momentum. Every step is a rotation, so matrices stay orthogonal up to rounding.

In: matrices and the gradients of a loss.  Out: the matrices, updated in place.
Source: Li, Fuxin and Todorovic 2020, arXiv:2002.01113, algorithm 1, with the Cayley transform solved exactly.
"""

from typing import Any


class CayleySGD:
    """The optimizer; `rate` is the largest angle, in radians, by which one step rotates any plane."""

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
