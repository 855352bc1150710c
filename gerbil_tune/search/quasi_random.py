"""Points that fill the space evenly: a scrambled Sobol sequence over all parameters.

Sobol 1967; the scrambling is Owen's of 1995, as SciPy does it.
"""

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.parameters import in_force, walk
from gerbil_tune.config.space import SpaceFile


def quasi_random_point(space: SpaceFile, index: int, seed: int) -> dict[str, Scalar]:
    """Values by path of one point of the sequence; it depends on its number and the seed alone.

    Every parameter has a dimension of its own, those in branches too: they are used where their branch is
    chosen, so that each branch is filled evenly as well.
    """
    from scipy.stats import qmc

    dimensions = {
        (path, branches): dimension
        for dimension, (path, _, branches) in enumerate(walk(space.parameters))
    }
    sequence = qmc.Sobol(len(dimensions), scramble=True, rng=seed)
    if index > 0:
        sequence.fast_forward(index)
    shares = sequence.random(1)[0].tolist()
    values: dict[str, Scalar] = {}
    # A branch stands before the parameters in it, and ``in_force`` looks when it gets there.
    for path, parameter, branches in in_force(space.parameters, values):
        values[path] = parameter.at(shares[dimensions[path, branches]])
    return values
