"""What the page of an evaluation says beside its numbers, in plain words."""

METHODS = (
    "Errors are distances in mm; of several keypoints their mean. Below them 95 % intervals of {draws:,} "
    "bootstrap draws of {drawn}. NLL: negative log-likelihood of the true location, lower is better. "
    "Calibration error: mean distance of the calibration curve from the diagonal, 0 is perfect. 95 % "
    "coverage: how many true locations lie in the regions that state 95 %. A dash: the method states no "
    "uncertainty."
)
PAIRED = (
    "Each row is {subject} minus the other method, so below 0 {subject} is better. What makes events hard "
    "for both cancels: both are scored on the same draws. P: share of draws in which {subject} has the lower "
    "median error. “Beyond chance”: the 95 % interval excludes 0."
)
NO_WEIGHTS = (
    "No model has initial or final weights beside its best ones, so there is nothing to compare."
)
WEIGHTS = (
    "The same network before training, at its best epoch on the validation events, and after its last "
    "epoch. Final far above best means that it began to learn its training events by heart; best near "
    "initial, that it learned little. The bars are 95 % intervals. Uncertainty is not compared, for it is "
    "calibrated for the best weights only."
)
NO_REGIONS = (
    "No method states regions of a calibrated size, so there is nothing to compare with the errors."
)
REGIONS = (
    "One dot an event, of more than 3,000 a random choice: how large a region the model says the animal is "
    "in, and how wrong it was. Lines are medians of events with regions of similar size. A line that rises "
    "means that the model knows which of its answers are poor; a flat one, that its doubts say nothing."
)
RANKS = (
    "Spearman's: 1 where the order of the regions' sizes is that of the errors, 0 where the two have nothing "
    "to do with each other. A perfect model has far less than 1, for an error is a draw from its region."
)
BREAKDOWN_LEAD = (
    "Median error with 95 % intervals, by what is known of the events. Intervals that overlap much say that "
    "a difference may be chance."
)
BREAKDOWNS = {
    "zone": (
        "The ninths of the arena by where the animal truly was, as in the map above: x to the right, y "
        "upwards."
    ),
    "call_length": "Bins of about equally many events, by the length of the whole event.",
    "snr": (
        "How far the loudest 4 ms of an event stand out of its quiet parts. “Not known”: too short to tell, "
        "or constant."
    ),
    "session": "By the groups that the data file states.",
    "file": "By file, for the files state no groups.",
}
WORST_BINS = "Shown are the {shown} of {count:,} in which {subject} is worst."
WORST = (
    "The {number} events with the largest errors of {subject}. Spectrogram: the microphone with the most "
    "power, time over the whole event, frequency from 0 to {khz} kHz. The region drawn has the shape of the "
    "stated covariance and the size of the 95 % region. The command shows all microphones."
)
NEXT = "Locate the calls of new recordings:"
UNSCORED = (
    "For these a model, named in brackets, gives no number: they have no samples, no sound, or audio that is "
    "not finite. gerbil-tune data check says more."
)
