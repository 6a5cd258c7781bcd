"""The panels of the page, in order."""

from analyzer.report.panel import COSTS, NEIGHBOURS, PAIR_ONLY, SAME_TASK, SWEEP, UNFILTERED, WATCH, Listed, Panel, PanelColumn
from analyzer.report.words import sentences

ACCURACY = PanelColumn("accuracy_change", "Δ accuracy, points", 2, interval=True, sign=True, times=100)
SIZE = PanelColumn("set_size_change", "Δ set size", 3, interval=True, sign=True)
FLIPS = PanelColumn("flips", "flips, %", 2, interval=True, times=100)
REASON = PanelColumn("unreliable", "unreliable")
PAIR = (
    PanelColumn("accuracy", "accuracy, %", 2, interval=True, times=100),
    ACCURACY,
    PanelColumn("set_size", "set size", 3, interval=True),
    SIZE,
    PanelColumn("coverage_change", "Δ coverage, points", 2, interval=True, sign=True, times=100),
    FLIPS,
    PanelColumn("kl", "KL, nats", 4, interval=True),
    PanelColumn("verdict", "verdict"),
    REASON,
)
CHECKS = (
    PanelColumn("check", "check"),
    PanelColumn("subject", "subject"),
    PanelColumn("amount", "amount", 4, interval=True),
    PanelColumn("limit", "limit", 4),
    PanelColumn("result", "result"),
    PanelColumn("worst_value", "stated worst value", 2),
    PanelColumn("items_needed", "items that would decide", 0, interval=True),
    PanelColumn("items_needed_to", "most likely to"),
    PanelColumn("look", "look", 0),
    PanelColumn("n_looks", "of looks", 0),
    PanelColumn("look_error", "error of the look, %", 3, times=100),
    PanelColumn("next_look", "next look at items", 0),
    PanelColumn("reason", "reason"),
)

PANELS = (
    Panel("checks", "Every check of the gate", "The figures behind the verdicts above, each beside its limit.", "checks", CHECKS),
    Panel(
        "heat",
        "What each method changed",
        "Orange is worse than the dense run, blue is better. Bold numbers are changes that chance does not explain (95 % confidence, each "
        "by itself: of many unchanged ones, one in 20 is bold). A run marked ! cannot be trusted, and the last panel says why.",
        "pairs",
        PAIR,
        sentences.heat_map,
        ("heat",),
    ),
    Panel(
        "decoupling",
        "Does accuracy tell the whole story?",
        "Each point is a compressed run: above the horizontal dashed line its sets grew, left of the vertical one its accuracy fell. Runs "
        "in the upper right corner look fine by accuracy alone, although they have become less sure. A run marked ! cannot be trusted.",
        "pairs",
        PAIR,
        sentences.decoupling,
        ("scatter",),
    ),
    Panel(
        "alpha",
        "Move alpha",
        "Alpha is the share of sets that may miss the right answer. The shaded band is two standard deviations wide on each side, over all "
        "ways to choose the calibration items.",
        "curves",
        (
            PanelColumn("set_size", "set size", 3),
            PanelColumn("set_size_sd", "set size ± over splits", 3),
            PanelColumn("coverage", "coverage", 4),
            PanelColumn("coverage_sd", "coverage ± over splits", 4),
        ),
        sentences.alphas,
        ("alpha-size", "alpha-coverage"),
        NEIGHBOURS,
        "No run here is measured over all splits.",
    ),
    Panel(
        "cliffs",
        "Where is the cliff?",
        "Points and their intervals are levels that were measured, all on the same scale as the chosen run's, for its model, task and "
        "prompt; dotted lines only connect them. The dashed line is the largest change that counts as none.",
        "cliffs",
        (
            PanelColumn("strength", "strength", 3),
            SIZE,
            ACCURACY,
            PanelColumn("coverage_change", "Δ coverage, points", 2, interval=True, sign=True, times=100),
            FLIPS,
            PanelColumn("safe_level", "safe up to"),
            PanelColumn("growth", "growth"),
            PanelColumn("note", "note"),
            PanelColumn("break_strength", "break at", 3, interval=True),
            REASON,
        ),
        sentences.cliffs,
        ("cliff-size", "cliff-accuracy", "cliff-coverage", "cliff-flips"),
        SWEEP,
        "No run in this selection has a compression level.",
    ),
    Panel(
        "sizes",
        "How large are the sets?",
        "A set of one option is an answer, a large set is a hedge, and an empty set means that no option looks right.",
        "sizes",
        (PanelColumn("size", "options", 0), PanelColumn("rate", "questions, %", 2, interval=True, times=100)),
        sentences.set_sizes,
        ("sizes",),
        PAIR_ONLY,
        "No run is chosen.",
    ),
    Panel(
        "flips",
        "Which answers flipped?",
        "Answers that turned from right to wrong or from wrong to right, by subject; below, the items whose answer's probability changed "
        "most. Subjects with the most flips come first.",
        "subjects",
        (
            PanelColumn("subject", "subject"),
            PanelColumn("direction", "flip"),
            PanelColumn("share", "items, %", 2, interval=True, times=100),
            PanelColumn("n_items", "items", 0),
        ),
        sentences.flips,
        ("flips",),
        PAIR_ONLY,
        listed=Listed("subject", "share", falls=True),
    ),
    Panel(
        "frontier",
        "Which compression for this memory?",
        "Set size and accuracy against the bytes of the weights, for the chosen run's model, task and prompt. Filled points are on the "
        "frontier: every run with no more bytes is worse beyond noise. Crosses are dominated; circles cannot be decided yet.",
        "frontier",
        (
            PanelColumn("bytes", "bytes", 0),
            PanelColumn("effective_bits", "effective bits", 2),
            PanelColumn("cache_bytes_per_token", "cache bytes per token", 0),
            PanelColumn("accuracy", "accuracy, %", 2, interval=True, times=100),
            PanelColumn("set_size", "set size", 3, interval=True),
            FLIPS,
            PanelColumn("finding", "finding"),
            PanelColumn("dominated_by", "dominated by"),
            REASON,
        ),
        sentences.frontier,
        ("frontier-size", "frontier-accuracy"),
        NEIGHBOURS,
        "No run in this selection says how many bytes its weights take.",
    ),
    Panel(
        "scale",
        "Do larger models suffer less?",
        "Growth of the mean set size against the number of parameters, on the chosen run's task and prompt. Upright names are models; a "
        "line is named at its largest model where that growth is not just chance.",
        "scale",
        (
            PanelColumn("parameters", "parameters", 0),
            PanelColumn("inflation", "growth, %", 2, interval=True, sign=True, times=100),
            PanelColumn("slope", "slope per tenfold size", 4, interval=True, sign=True),
            PanelColumn("note", "note"),
            REASON,
        ),
        sentences.scale,
        ("scale",),
        SAME_TASK,
        empty="No run in this selection has a dense run of a model whose number of parameters is known.",
        more=("family",),
    ),
    Panel(
        "transfer",
        "Ship without recalibrating?",
        "Filled points: coverage with the dense model's threshold. Open points: after recalibrating. Solid line: the target coverage, "
        "1 - alpha; dashed line: the lowest coverage that is tolerated. The lowest "
        "coverage comes first. A run marked ! cannot be trusted.",
        "transfer",
        (
            PanelColumn("coverage", "coverage, dense threshold", 4, interval=True),
            PanelColumn("recalibrated_coverage", "coverage, recalibrated", 4),
            PanelColumn("set_size", "set size, dense threshold", 3, interval=True),
            PanelColumn("recalibrated_set_size", "set size, recalibrated", 3),
            PanelColumn("finding", "finding"),
            REASON,
        ),
        sentences.transfer,
        ("transfer",),
        listed=Listed("label", "coverage"),
    ),
    Panel(
        "cost",
        "What do the sets cost?",
        "A question whose set has one option is answered, one with a few options is asked again, one with more goes to a person. Type your "
        "own prices; dark ticks mark the dense run. The cheapest comes first, whether or not it may ship; one marked ! cannot be trusted.",
        COSTS,
        (
            PanelColumn("cost", "cost per 1,000", 3, interval=True),
            PanelColumn("cost_change", "Δ cost", 3, interval=True, sign=True),
            PanelColumn("total_change", "Δ with hardware", 3, interval=True, sign=True),
            PanelColumn("pays", "pays"),
            PanelColumn("break_even", "review price at break-even", 3, interval=True),
            REASON,
        ),
        None,
        ("cost",),
        empty="No run here is measured over all splits.",
        more=("n_items", "t", "rates", "covariance", "change", "change_covariance", "saving", "unreliable"),
        listed=Listed("label", "cost"),
    ),
    Panel(
        WATCH,
        "Does it still hold in production?",
        "What the monitor knows of the live questions. A line is the evidence of one test that they differ from the questions that "
        "calibrated; at the dashed line it raises an alarm. Open points: shares of questions as promised. Filled points: as seen.",
        WATCH,
        (
            PanelColumn("check", "check"),
            PanelColumn("group", "group"),
            PanelColumn("n_items", "questions", 0),
            PanelColumn("calibrated", "promised", 4),
            PanelColumn("live", "seen", 4, interval=True),
            PanelColumn("e_value", "e-value", 1),
            PanelColumn("limit", "alarm at", 0),
            PanelColumn("result", "result"),
            PanelColumn("began", "since"),
        ),
        sentences.watch,
        ("watch-evidence", "watch-shares"),
        UNFILTERED,
        "The monitor has seen no question yet.",
        more=("test", "questions", "evidence", "share", "outcome"),
    ),
    Panel(
        "made",
        "What was run?",
        "The weights that answered, and when and with which versions each run was made.",
        "made",
        (
            PanelColumn("date", "date"),
            PanelColumn("weights", "weights, SHA-256"),
            PanelColumn("revision", "revision"),
            PanelColumn("dtype", "dtype"),
            PanelColumn("backend", "backend"),
            PanelColumn("device", "device"),
            PanelColumn("libraries", "versions"),
        ),
        sentences.made,
        empty="No run passes the filters.",
    ),
    Panel(
        "noted",
        "Noted when the runs were made",
        "Doubtful items, truncated prompts, fallbacks. The figures of these runs are shown with the others.",
        "noted",
        (PanelColumn("note", "note"),),
        sentences.noted,
        empty="Nothing was noted when these runs were made.",
    ),
    Panel(
        "unreliable",
        "Runs that cannot be trusted",
        "These runs are flagged by fixed rules. The sentences on this page leave them out.",
        "unreliable",
        (PanelColumn("reason", "reason"),),
        sentences.unreliable,
        empty="No run in this selection is flagged.",
    ),
)
ITEM_FIELDS = ("run", "task", "item", "id", "subject", "answer", "dense", "compressed", "answer_prob_change")
TEXT_FIELDS = ("task", "item", "question", "options")


def panels_of(watched: bool) -> tuple[Panel, ...]:
    """Return the panels of a page; that of live questions only if a predictor is watched."""
    return tuple(panel for panel in PANELS if watched or panel.id != WATCH)
