"""The figures that the page of a study and that of an evaluation share, with their titles and captions."""

from gerbil_tune.evaluation import figures
from gerbil_tune.evaluation.results import EvaluationResult
from gerbil_tune.pages.pieces import PageFigure


def comparing_figures(result: EvaluationResult) -> list[PageFigure]:
    """Distribution of errors and calibration curve of all methods: error_cdf and calibration_curve."""
    return [
        PageFigure("error_cdf", "Distribution of errors", _ERROR_CDF, figures.error_cdf(result)),
        PageFigure(
            "calibration_curve",
            "Is the stated uncertainty true?",
            _CALIBRATION,
            figures.calibration_curve(result),
        ),
    ]


def maps_of(result: EvaluationResult, method_number: int, suffix: str = "") -> list[PageFigure]:
    """Error over the arena and predicted against true of one method: error_map and predicted_vs_true.

    Args:
        result: The evaluation.
        method_number: Which of its methods; -1 is the one that it is about.
        suffix: Of the figures' names, which a page may have only once.
    """
    name = result.methods[method_number].name
    return [
        PageFigure(
            f"error_map{suffix}",
            f"Error over the arena: {name}",
            _ERROR_MAP,
            figures.error_map(result, method_number),
        ),
        PageFigure(
            f"predicted_vs_true{suffix}",
            f"Predicted against true location: {name}",
            _PREDICTED.format(most=figures.MAX_POINTS),
            figures.predicted_vs_true(result, method_number),
            min_width_px=500,
        ),
    ]


_ERROR_MAP = (
    "Median error by where the animal truly was; yellow cells are where the model is worst. The frame is "
    "the arena. Cells with fewer than 3 events are empty."
)
_ERROR_CDF = (
    "How many events were located within a distance of the truth. The farther up and left, the better; "
    "at 50 % stands the median error."
)
_CALIBRATION = (
    "Each prediction comes with regions that state how likely they hold the animal. On the diagonal that is "
    "true: of the regions that state 50 %, half hold it. Below the diagonal the model is too sure, above too "
    "cautious. A calibrated method stays within the grey band, but for chance."
)
_PREDICTED = (
    "One point a prediction, of more than {most:,} a random choice. On the dashed line it is exact; a cloud "
    "that is flatter than the line means predictions drawn to the middle of the arena."
)
