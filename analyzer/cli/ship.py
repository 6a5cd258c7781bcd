"""The commands of `analyze` for predictors: make one, apply it, and monitor it on live questions."""

from inspect import unwrap
from pathlib import Path
from typing import Any

import click

from analyzer.cli.options import SELECTION, at_option, format_option
from store.command import FILE, add_options, begin, friendly_errors, store_option

predictor_option = click.option("--predictor", "path", type=FILE, required=True, help="File that analyze calibrate wrote.")
EXPECT_HELP = "Refuse a run whose key says otherwise, such as prompt_hash=3f2a9c01 or option_tokens=A,B,C,D; repeatable."


@click.command("calibrate")
@store_option
@at_option
@add_options(SELECTION)
@click.option("--alpha", metavar="A", default="0.1", show_default=True, help="Allowed miscoverage.")
@click.option("--scorer", metavar="S", default="lac", show_default=True, help="Nonconformity score.")
@click.option("--parameter", "parameters", multiple=True, metavar="S.NAME=X", help="Parameter of the scorer, such as raps.penalty=0.1.")
@click.option(
    "--empty",
    type=click.Choice(["keep", "top1"]),
    default="keep",
    show_default=True,
    help="Keep empty prediction sets, or put the most likely option into them.",
)
@click.option(
    "--by", type=click.Choice(["none", "subject"]), default="none", show_default=True, help="One threshold, or one for every subject."
)
@click.option(
    "--reliability",
    type=click.Choice(["none", "temperature"]),
    default="none",
    show_default=True,
    help="First fit a temperature, on a fifth of the items.",
)
@click.option(
    "--cluster",
    metavar="question|subject|context|FILE:COLUMN",
    help="Of items that depend on each other calibrate on one each, drawn at random, to cover questions of new clusters. [all items]",
)
@click.option(
    "--guarantee",
    metavar="average|pac:C",
    default="average",
    show_default=True,
    help="Coverage on average over draws of the calibration items, or with a confidence, such as pac:0.95.",
)
@click.option("--max-wrong", metavar="X", help="Answer alone only as long as at most this share is wrong, such as 0.05. [no limit]")
@click.option("--prices", type=FILE, help="TOML with prices and rules, as analyze cost takes it, such as prices.toml. [no prices]")
@click.option(
    "--subject-mix",
    type=FILE,
    help="TOML with each subject's share under [subjects]: make the threshold for questions in this mix. [that of the items]",
)
@click.option("--expect", multiple=True, metavar="FIELD=VALUE", help=EXPECT_HELP)
@click.option("--allow-unreliable", is_flag=True, help="Make a predictor of an unreliable run; the file says why it is unreliable.")
@click.option("--out", type=FILE, default="predictor.json", show_default=True, help="File to write.")
@friendly_errors
def calibrate_command(store_url: str, out: Path, **options: Any) -> None:
    """Make the threshold to deploy, with what it guarantees, from one run. All items calibrate unless --cluster is given.

    Example: analyze calibrate --model ref-m --method rtn --level w4a16-g32 --task urn --prompt base
    """
    begin(f"calibrating on a run of {store_url}")
    from analyzer.api import calibrate

    predictor = unwrap(calibrate)(store_url, **options)  # the function itself, whose errors speak of options
    predictor.save(out)
    click.echo(out)
    click.echo(predictor.document.value["guarantee"], err=True)
    if reason := predictor.document.value["made_on"]["unreliable"]:
        click.echo(f"unreliable: {reason}", err=True)


@click.command("predict")
@predictor_option
@click.option("--logits", type=FILE, required=True, help="CSV, Parquet or JSON lines with columns logit_A, logit_B, ...")
@click.option("--format", "form", type=click.Choice(["csv", "json", "parquet"]), default="csv", show_default=True, help="How to print.")
@friendly_errors
def predict_command(path: Path, logits: Path, form: str) -> None:
    """Print the prediction set of every question of a table, and what to do with it: answer, ask again, review or abstain.

    Example: analyze predict --predictor predictor.json --logits live.csv
    """
    from analyzer.predictor import Predictor
    from analyzer.tables.emit import emit
    from analyzer.watch.live_log import read_log
    from analyzer.watch.predict import predict, unlike_calibration

    predictor = Predictor.load(path)
    log = read_log(logits, predictor)
    emit(predict(predictor, log), form, ())
    for line in filter(None, [unlike_calibration(predictor, log), predictor.document.value["made_on"]["unreliable"]]):
        click.echo(line, err=True)


@click.command("monitor")
@predictor_option
@click.option("--log", type=FILE, required=True, help="CSV, Parquet or JSON lines with columns logit_A, logit_B, ...; rows are only added.")
@click.option("--state", type=FILE, help="File that carries the watch from night to night, such as watch.json. [start anew]")
@click.option("--delta", metavar="X", type=float, default=0.01, show_default=True, help="Chance of a false alarm, over all nights.")
@click.option(
    "--coverage-tolerance", metavar="X", type=float, default=0.02, show_default=True, help="Coverage losses up to this count as no loss."
)
@click.option(
    "--mix-out",
    type=FILE,
    help="Where a changed mix of subjects explains an alarm, write it here, such as mix.toml, for calibrate --subject-mix. [not written]",
)
@format_option
@friendly_errors
def monitor_command(path: Path, log: Path, state: Path | None, mix_out: Path | None, form: str, **options: Any) -> None:
    """Watch whether the guarantee still holds for live questions. Exit 0 if it holds, 1 on an alarm, 3 if there is not enough yet.

    Without answers, questions are compared with those that calibrated; with answers, misses are counted, by group too. Where the log has
    the questions' subjects, the last line says whether a changed mix of them explains an alarm.

    Example: analyze monitor --predictor predictor.json --log live.parquet --state watch.json
    """
    begin(f"reading the questions of {log}")
    from analyzer.predictor import Predictor
    from analyzer.tables.columns import MONITOR
    from analyzer.tables.emit import emit
    from analyzer.watch.mix_change import write_mix
    from analyzer.watch.monitor import follow
    from analyzer.watch.report import EXIT_CODES, UNDECIDED, explanation, last_line, report
    from store.exchange.whole_file import check_writable

    if mix_out is not None:
        check_writable(mix_out)
    watch = follow(Predictor.load(path), log, delta=options["delta"], state=state)
    records = report(watch, options["coverage_tolerance"])
    emit(records, form, MONITOR)
    change = explanation(watch, records, options["coverage_tolerance"])
    if mix_out is not None:
        write_mix(change, mix_out)
    click.echo(last_line(watch, records, change), err=True)
    click.get_current_context().exit(EXIT_CODES[records[0]["outcome"] if records else UNDECIDED])


COMMANDS = (calibrate_command, predict_command, monitor_command)
