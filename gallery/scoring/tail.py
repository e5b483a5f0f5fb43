"""How alike strangers are: quantiles where there are pairs, a fitted law beyond them.

Extreme values above a high threshold follow a generalised Pareto law (J. Pickands, Statistical
inference using extreme order statistics, Annals of Statistics 3, 1975), so the few pairs at the
top tell how much rarer pairs lie beyond.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHARES", "stranger_quantiles"]

# Shares of stranger pairs at which a calibration keeps the cosine that they reach or exceed.
SHARES = (0.99, 0.9, 0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)

_ABOVE = 5_000  # the law is fitted to about so many pairs, ...
_THRESHOLDS = (1e-2, 5e-2)  # ... which are at least 1 % and at most 5 % of all
_MISFIT = 0.03  # how far the law itself may be off, beside the chance of the draw
_SHAPES = (
    -0.5,
    0.1,
)  # a cosine has an upper end, so its law has none much heavier than an exponential
_FEWEST_BEYOND = 15  # pairs that must lie beyond a quantile before it is believed


def stranger_quantiles(cosines: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosines that the shares SHARES of strangers reach.

    The body is read off the pairs. From 1 in 100 on, the law is fitted to quantiles, not to
    single pairs: pairs at the very top may be one person under two names.

    Args:
        cosines: float32 (N,), one per pair of strangers, at least 2, finite.

    Returns:
        float64 (len(SHARES),), rising; not bounded by 1; NaN where there are too few pairs to tell.
    """
    shares = np.asarray(SHARES)
    found: NDArray[np.float64] = np.quantile(
        cosines.astype(np.float64), 1 - np.maximum(shares, 1e-2)
    )
    found[np.minimum(shares, 1 - shares) * len(cosines) < 1] = np.nan
    beyond = shares < 1e-2
    law = _pareto(cosines)
    if law is None:
        found[beyond] = np.nan
        return found
    from scipy.stats import genpareto  # takes 0.6 s, needed only where a gallery is built

    share, threshold, shape, scale = law
    found[beyond] = genpareto.isf(shares[beyond] / share, shape, loc=threshold, scale=scale)
    rising: NDArray[np.float64] = np.fmax.accumulate(found)
    return rising


def _pareto(cosines: NDArray[np.float32]) -> tuple[float, float, float, float] | None:
    """Share of pairs above the threshold, threshold, shape and scale; None for too few pairs."""
    from scipy.optimize import least_squares
    from scipy.stats import genpareto

    share = float(np.clip(_ABOVE / len(cosines), *_THRESHOLDS))
    rarest = max(1e-4, _FEWEST_BEYOND / len(cosines))
    if rarest > share / 4:
        return None
    threshold = float(np.quantile(cosines, 1 - share))
    shares = np.geomspace(share * 0.8, rarest, 16)
    excess = np.quantile(cosines.astype(np.float64), 1 - shares) - threshold
    unit = float(excess[-1])
    if unit < 1e-6:
        return None
    trust = 1 / np.sqrt(1 / (shares * len(cosines)) + _MISFIT**2)

    def misfit(law: NDArray[np.float64]) -> NDArray[np.float64]:
        fitted = genpareto.isf(shares / share, law[0], scale=np.exp(law[1]))
        return np.asarray(fitted - excess / unit) * trust

    start = np.array([-0.1, np.log(1 / np.log(share / rarest))])
    bounds = ([_SHAPES[0], -12.0], [_SHAPES[1], 6.0])
    fit = least_squares(misfit, start, bounds=bounds, loss="soft_l1")
    return share, threshold, float(fit.x[0]), float(np.exp(fit.x[1]) * unit)
