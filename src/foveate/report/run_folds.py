"""The part of a run's page that shows a cross-validation fold by fold."""

from statistics import mean, stdev

from foveate.counts import plural
from foveate.metrics import wilson_ends
from foveate.report.html import interval, percent
from foveate.report.sections import Card, Section, Table, numbers, small
from foveate.training.measured import Measured


def folds_section(measured: Measured) -> Section:
    """The accuracy of each fold, their mean and their spread: of the images that were trained on in other folds.

    These stay what they are once the test split was measured too, and then head the page no more.
    """
    accuracies = [each.accuracy for each in measured.folds]
    rows = []
    for number, each in enumerate(measured.folds, start=1):
        ends = wilson_ends(round(each.accuracy * each.images), each.images)
        rows.append([str(number), f"{each.images:,}", small(percent(each.accuracy), interval(ends))])
    average = percent(mean(accuracies))
    columns = numbers("Fold", "Images", "Accuracy")
    table = Table("Accuracy by fold", columns, rows, footer=["Mean", average])
    over = "groups, of which the images share a fold" if measured.groups else "images"
    copies = (
        f" Of {plural(measured.copies_across_folds, 'image')} there is a copy or a near copy in another fold, on "
        "which the network that predicted it was trained: the figure is a little too good."
        if measured.copies_across_folds
        else ""
    )
    spread = f"{100 * stdev(accuracies):.1f} points"
    fitted = (
        ""
        if measured.calibration is None
        else " Temperature and prediction sets are fitted on the answers of the folds’ networks, which saw fewer "
        "images and may be more or less sure than the final model: for it they hold approximately."
    )
    note = (
        f"Each of {measured.n:,} images was predicted by one of {len(rows)} networks, which was trained without "
        f"it, to a length that was fixed before.{copies} The accuracy of the folds is {average} on average, "
        f"with a standard deviation of {spread}: the choice of training images matters that much. It is not "
        f"an interval; that of the out-of-fold accuracy is over {over}. The final model "
        f"was trained on all of these images, by the same settings and to the same length.{fitted}"
    )
    return Section("folds", "Folds", "Fold by fold, out-of-fold images", [Card("", [table])], note)
