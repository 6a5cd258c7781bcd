"""The report's page as text: what is in it, that its figures are those of the other commands, and that names cannot break out."""

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from click.testing import CliRunner
from report_stores import CLOSING, FEW, MARKUP, embedded, family, mixed_store, panel_html, quiz, rows, run_of, study_of, write

from analyzer.api import ask, compare, sets
from analyzer.cli.main import main
from analyzer.gate.gate import gate
from analyzer.gate.policy import LIMITABLE, Policy
from analyzer.report.charts import theme
from analyzer.report.charts.drawn import CHARTS
from analyzer.report.charts.kept import kept_charts
from analyzer.report.data.study import MAX_RUNS, ReportRequest, measure_study
from analyzer.report.data.tables import first_question_tables, tables
from analyzer.report.page import page
from analyzer.report.panel import Panel, PanelColumn
from analyzer.report.panels import panels_of
from analyzer.report.papers import paper
from analyzer.report.rows import pack
from analyzer.report.vega import vega_bundle
from analyzer.report.words import sentences
from analyzer.report.words.cards import WORDINGS, cards
from analyzer.runs.loading import select_runs
from analyzer.tables.cautions import KL, ONE_PROMPT, RECALIBRATED
from schemas.errors import HedgemarkError, UsageError

pytestmark = [pytest.mark.large, pytest.mark.usefixtures("swaps_drawn_once")]  # no interpreter changes the text of a page
PANELS = panels_of(False)
CLOSE = 2e-6  # the page keeps six digits


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with hostile names, a broken run and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(store_url: str) -> str:
    """Its page."""
    return page(study_of(store_url))


@pytest.fixture(scope="module")
def data(html: str) -> dict[str, Any]:
    """What the page embeds."""
    return embedded(html)


def scripts(html: str) -> list[str]:
    return re.findall(r"<script>(.*?)</script>", html, re.S)


def test_the_page_asks_nothing_of_a_network(html: str) -> None:
    """No element names an address, and the policy allows none."""
    addresses: list[str | None] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, given: addresses.extend(v for n, v in given if n in ("src", "href", "action", "srcset", "style"))
    parser.feed(html)
    assert addresses == ["#main"]
    assert "default-src &#39;none&#39;" in html and "connect-src" not in html
    assert "url(" not in re.search(r"<style>(.*?)</style>", html, re.S)[1]


def test_the_policy_names_every_script_by_its_hash(html: str) -> None:
    """A script that is not ours has no hash in the policy."""
    for script in scripts(html):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in html.replace("&#43;", "+").split("</head>")[0]
    assert len(scripts(html)) == 2


def test_names_with_markup_stay_text(html: str, data: dict[str, Any]) -> None:
    """Markup in a model's name is escaped in the page, closes no script in the data, and is whole when read back."""
    assert MARKUP not in html
    assert CLOSING not in html
    assert {MARKUP, CLOSING} < set(data["runs"]["model"])


def test_no_path_of_this_machine_is_in_the_page(html: str, data: dict[str, Any], store_url: str) -> None:
    """A page that is mailed does not say where its store lay."""
    text = html + json.dumps(data)
    assert str(Path(store_url).parent) not in text
    assert str(Path.home()) + "/" not in text.replace("</", "")


def test_panels_come_in_the_order_of_their_list(html: str) -> None:
    """The page shows every panel of PANELS once, in that order; the verdict comes first, what cannot be trusted last."""
    shown = re.findall(r'<section class="panel" id="panel-([\w-]+)"', html)
    assert shown == [panel.id for panel in PANELS]
    assert len(set(shown)) == len(shown) and (shown[0], shown[-1]) == ("checks", "unreliable")


def test_every_panel_finds_its_fields_in_its_table(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that several panels show embeds the fields of all, and so do the items, which the page shows without a panel."""
    tiles = Panel("tiles", "Tiles", "", "pairs", (PanelColumn("n_items", "items", 0),))
    items = Panel("items", "Items", "", "items", (PanelColumn("position", "position"),))
    monkeypatch.setattr("analyzer.report.rows.panels_of", lambda watched: (*PANELS, tiles, items))
    study = study_of(store_url, model=("small-1b",))
    embedded = pack(study, tables(study) | {"checks": []})["tables"]
    for panel in (*PANELS, tiles, items):
        assert set(panel.fields) <= set(embedded[panel.table])
    assert embedded["pairs"]["n_items"] != [None] and {"accuracy", "verdict"} <= set(embedded["pairs"])
    assert {"answer_prob_change", "position"} <= set(embedded["items"])


def test_pairs_are_those_of_compare(store_url: str, data: dict[str, Any]) -> None:
    """Every change on the page is what `analyze compare` prints."""
    known = {(row["run"], row["scorer"]): row for row in compare(store_url).to_dicts() if row["compared_with"]}
    names = [run["name"] for run in study_of(store_url).runs.rows]
    pairs = rows(data, "pairs")
    assert len(pairs) == len(known) > 20
    for pair in pairs:
        expected = known[names[pair["run"]], pair["scorer"]]
        assert pair["verdict"] == expected["verdict"] and pair["unreliable"] == expected["unreliable"]
        for name in ("accuracy_change", "set_size_change_low", "flips_high", "kl"):
            assert pair[name] == (None if expected[name] is None else pytest.approx(expected[name], rel=1e-5, abs=CLOSE))


def test_a_scorers_parameter_is_measured_and_named(store_url: str) -> None:
    """With --parameter the page's pairs are those of `analyze compare` with it, and page and tables name it; without, they name none."""
    asked = {"scorers": ("raps",), "model": ("small-1b",), "parameters": ("raps.penalty=0.7",)}
    whole = study_of(store_url, **asked)
    options = {"scorers": ["raps"], "model": ["small-1b"]}
    plain = {row["run"]: row["set_size"] for row in compare(store_url, **options).to_dicts()}
    wanted = {row["run"]: row["set_size"] for row in compare(store_url, **options, parameters=["raps.penalty=0.7"]).to_dicts()}
    assert {pair["run"]: pair["set_size"] for pair in tables(whole)["pairs"]}.items() <= wanted.items()
    assert wanted != plain
    assert all("raps.penalty=0.7" in text for text in (page(whole), paper(whole, "md"), paper(whole, "latex")))
    assert "raps.penalty" not in page(study_of(store_url, **asked | {"parameters": ()}))
    with pytest.raises(UsageError, match="scorer lac has no parameter 'nonsense'"):
        study_of(store_url, parameters=("lac.nonsense=1",))


def test_curves_are_those_of_sets(store_url: str, data: dict[str, Any]) -> None:
    """At every alpha of the grid the slider shows what `analyze sets` prints."""
    asked = {alpha: sets(store_url, alphas=[alpha]).to_dicts() for alpha in ("0.01", "0.1", "0.37", "0.99")}
    names = [run["name"] for run in study_of(store_url).runs.rows]
    for curve in rows(data, "curves"):
        for alpha, records in asked.items():
            known = next(r for r in records if (r["run"], r["scorer"]) == (names[curve["run"]], curve["scorer"]))
            for name in ("set_size", "set_size_sd", "coverage", "coverage_sd"):
                assert curve[name][round(float(alpha) * 100) - 1] == pytest.approx(known[name], rel=1e-5, abs=CLOSE)


def test_a_card_is_the_gate_of_its_model(store_url: str) -> None:
    """The checks of each compressed model are those of `analyze gate` for that model alone."""
    whole = study_of(store_url)
    checks = page_checks(whole)
    wanted = {"model": ["small-7b"], "method": ["wanda"], "level": ["0.4"]}
    alone = gate(select_runs(whole.runs.reader, wanted, with_dense=True), ask(), whole.request.policy.limits)
    own = [check for check in checks if (check["model"], check["method"], check["level"]) == ("small-7b", "wanda", "0.4")]
    assert [check["result"] for check in own] == [check["result"] for check in alone if check["run"] == own[0]["run"]]
    assert [check["amount"] for check in own] == [check["amount"] for check in alone]


def test_planned_looks_stand_on_the_page(tmp_path: Path) -> None:
    """The page says which look it is, how much it may err and where to look next; its table has the same fields as the gate."""
    items, policy = quiz("quiz", 60), tmp_path / "policy.toml"
    url = write(str(tmp_path / "store"), [(items, family(items, "toy", 0))])
    policy.write_text("[limits]\naccuracy_loss = 0.1\n[looks]\nitems = [60, 120]\nspending = 'pocock'\n")
    html = page(study_of(url, policy=policy))
    assert "Looks are planned at 60 and 120 items, pocock." in html
    assert "Look 1 of 2, at 60 items, may err with 1.6\u00a0%" in html
    assert "Look next at 120 items" in html and "Look next at 120 questions" in html
    checks = [row for row in rows(embedded(html), "checks") if row["check"] == "accuracy_loss"]
    assert {(row["look"], row["n_looks"]) for row in checks} == {(1, 2)} and 120 in {row["next_look"] for row in checks}


def test_cautions_of_tables_stand_on_the_page(store_url: str, tmp_path: Path) -> None:
    """Clusters with their design effect, prompts, sets without intervals; KL and recalibrated figures below the panels that show them."""
    items = quiz("quiz", 60, subjects=20)
    url = write(str(tmp_path / "store"), [(items, family(items, "toy", 0))])
    html = unescape(page(study_of(url, cluster="subject")))
    assert html.count(KL) == 2 and html.count(RECALIBRATED) == 1
    assert KL in panel_html(html, "heat") and RECALIBRATED in panel_html(html, "transfer") and KL not in panel_html(html, "sizes")
    above = html[: html.index('<main id="main">')]
    assert re.search(r"60 items of quiz form 20 clusters \(--cluster subject\).*times that of independent items", above)
    assert ONE_PROMPT.replace("`", "") in above and "Set size has no interval" in above
    assert "Between 2 prompts the accuracy of one run differs by up to" in page(study_of(store_url))
    tables_below = CliRunner().invoke(main, ["gate", "--store", url, "--cluster", "subject", "--markdown", str(tmp_path / "m"), "--junit",
                                             str(tmp_path / "j"), "--limit", "flips=0.5"])  # fmt: skip
    assert tables_below.exit_code in (0, 1, 3)
    for name in ("m", "j"):
        assert "60 items of quiz form 20 clusters (--cluster subject)" in (tmp_path / name).read_text()


def page_checks(whole: Any) -> list[dict[str, Any]]:
    return [check for card in cards(whole) for check in card.checks]


def test_every_panel_has_a_sentence_for_every_store(store_url: str, tmp_path: Path) -> None:
    """A reading is one sentence with a number or a reason in it, whatever the store holds."""
    items = quiz("quiz", 60)
    one = write(str(tmp_path / "one"), [(items, family(items, "toy", 0)[:1])])
    for url in (store_url, one):
        found = study_of(url)
        spoken = first_question_tables(tables(found), found.request.questions[0])
        for panel in PANELS:
            if panel.reading:
                sentence = panel.reading(spoken)
                assert sentence.endswith(".") and "None " not in sentence.removeprefix("None of") and "nan" not in sentence


def test_a_broken_run_is_flagged_and_spoken_of_nowhere_else(data: dict[str, Any], store_url: str) -> None:
    """A run of NaN is listed with its reason; it has no curve and moves no sentence."""
    level = [run["level"] for run in study_of(store_url).runs.rows]
    broken = [row for row in rows(data, "unreliable") if level[row["run"]] == "w2a16"]
    assert broken and "non-finite" in broken[0]["reason"]
    assert "w2a16" not in {level[row["run"]] for row in rows(data, "curves")}


def test_more_runs_than_a_page_holds_are_refused() -> None:
    """The message says how many and how to select."""
    items = item_set(np.zeros(4, dtype=np.int64))
    runs = [make_run(items, np.ones((4, 4)), model=f"m{number}") for number in range(MAX_RUNS + 1)]
    with pytest.raises(UsageError, match=f"{MAX_RUNS + 1} runs are selected"):
        measure_study(select_runs(MemoryReader([items], runs), {}), ReportRequest((ask(),), Policy([], None)))


def test_runs_alike_in_all_that_is_shown_stay_apart(tmp_path: Path) -> None:
    """Two runs of the same model, method, level, task and prompt are told apart by the end of their names, and never averaged."""
    items = quiz("quiz", 60)
    twin = run_of(items, skilled_logits(np.random.default_rng(5), items.answer, 4), 10**9, model="toy", method="wanda", level="0.4", seed=7)
    whole = study_of(write(str(tmp_path / "twins"), [(items, [*family(items, "toy", 0, 10**9, FEW), twin])]))
    packed = pack(whole, tables(whole) | {"checks": []})
    marked = [name for name in packed["runs"]["name"] if "#" in name]
    assert len(set(marked)) == 2 and all(name.startswith("wanda 0.4 #") for name in marked)
    assert len(rows(packed, "scale")) == 4


def test_answers_far_from_the_dense_runs_flag_a_comparison() -> None:
    """A run that nearly always says "None of the above" is flagged wherever it is compared, not only in `analyze sets`."""
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, 300), 6)
    dense = skilled_logits(rng, items.answer, 6)
    evasive = dense.copy()
    evasive[:, 5] += 3
    runs = select_runs(MemoryReader([items], [make_run(items, dense), make_run(items, evasive, method="rtn", level="w3a16")]), {})
    found = tables(measure_study(runs, ReportRequest((ask(),), Policy([], None))))
    assert all("None of the above" in pair["unreliable"] for pair in found["pairs"])
    assert found["unreliable"]


def test_the_command_writes_the_page_and_prints_its_path(store_url: str, tmp_path: Path) -> None:
    """Whatever was there is overwritten; a folder that is not there is an error of one line, exit 2."""
    done = CliRunner().invoke(main, ["report", "--store", store_url, "--out", str(tmp_path / "r.html"), "--task", "exam"])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    lost = CliRunner().invoke(main, ["report", "--store", store_url, "--out", str(tmp_path / "no" / "r.html")])
    assert lost.exit_code == 2 and "cannot write" in lost.output


@pytest.mark.parametrize(("option", "value"), [("--alpha", "0.1:0.2:0.1"), ("--protocol", "old"), ("--scorer", "x"), ("--limit", "kl")])
def test_what_cannot_be_meant_is_refused(store_url: str, tmp_path: Path, option: str, value: str) -> None:
    """Exit 2, one line, nothing written."""
    done = CliRunner().invoke(main, ["report", "--store", store_url, "--out", str(tmp_path / "r.html"), option, value])
    assert done.exit_code == 2 and not (tmp_path / "r.html").exists()


def test_colours_reach_the_contrast_of_aa() -> None:
    """Text stands 4.5 to 1 and marks 3 to 1 on the light and on the dark page."""
    for dark, plain in enumerate((theme.LIGHT, theme.DARK)):
        for ground in (plain["page"], plain["card"]):
            texts = [plain["ink"], plain["soft"], *(both[dark] for both in theme.STATUS.values())]
            assert min(theme.contrast(text, ground) for text in texts) >= 4.5
            assert min(theme.contrast(mark, ground) for mark in theme.SERIES) >= 3
        assert min(theme.contrast(plain["ink"], plain[cell]) for cell in ("better", "worse", "card")) >= 4.5  # text on the heat map


def test_without_known_sizes_no_growth_is_drawn_against_them(tmp_path: Path) -> None:
    """The panel says what is missing in place of an empty chart, and so does the sentence of a paper."""
    items = quiz("quiz", 60)
    study = study_of(write(str(tmp_path / "store"), [(items, family(items, "toy", 0, levels=FEW))]))
    named = tables(study)
    assert named["pairs"] and not named["scale"]
    assert sentences.scale(named) == "No run here says how many parameters its model has."
    assert "of a model whose number of parameters is known." in panel_html(page(study), "scale")


def test_no_line_ends_between_a_number_and_its_percent_sign(html: str) -> None:
    """What a reader sees has no ordinary space there; names in attributes stay as they are stored."""
    seen = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", "", html, flags=re.S)
    assert "2.5\u00a0%" in seen and not re.search(r"\d %", seen)


def test_a_check_that_would_decide_is_called_as_on_its_bar(store_url: str) -> None:
    """The page has no names of fields in its sentences."""
    said = [card.why for card in cards(study_of(store_url)) if "most likely that" in card.why]
    assert said and any("most likely that the check of " in why for why in said)
    assert not any("accuracy_loss" in why or "set_size_growth" in why for why in said)


def test_a_policy_of_any_figure_is_said_and_drawn(store_url: str) -> None:
    """Every figure that the gate can limit has words and a bar; coverage, of which more is better, is shown as misses."""
    limits = tuple(f"{name}={0.88 if name == 'coverage_after_transfer' else 0.05}" for name in LIMITABLE)
    found = cards(study_of(store_url, model=("small-7b",), limits=(*limits, "worst_subject.accuracy_loss=0.1")))
    (card,) = found
    bars = {found["check"]: found for found in card.bars}
    assert set(bars) == set(LIMITABLE) == set(WORDINGS)
    assert bars["coverage_after_transfer"]["allowed"] == "12.0 %"
    assert [bar["nearness"] for bar in card.bars] == sorted((bar["nearness"] for bar in card.bars), reverse=True)
    assert {bar["subject"] for bar in card.bars} == {None, "s0", "s1", "s2"}
    assert card.why.endswith(".") and "None" not in card.why


def test_the_page_compares_with_the_model_that_is_named(tmp_path: Path) -> None:
    """A checkpoint without a dense run is named as not judged; with --against it is judged, with the figures of `compare --against`."""
    items = quiz("quiz", 60)
    teacher = family(items, "teacher", 0, levels=FEW)
    ships = run_of(items, teacher[1].logits, model="ships", method="checkpoint", level="as found")
    url = write(str(tmp_path / "store"), [(items, [*teacher, ships])])
    assert "Not judged: ships (checkpoint) has no matching dense run. Name one with <code>--against</code>." in page(study_of(url))
    wanted = {"model": ("ships",), "scorers": ("lac",), "against": "teacher"}
    study = study_of(url, **wanted)
    [pair] = tables(study)["pairs"]
    [expected] = compare(url, model="ships", scorers="lac", against="teacher").filter(method="checkpoint").to_dicts()
    assert pair["set_size_change"] == expected["set_size_change"] and pair["flips"] == expected["flips"]
    assert "Not judged" not in page(study) and [card.model for card in cards(study)] == ["ships"]
    with pytest.raises(HedgemarkError, match="stranger"):
        study_of(url, **wanted | {"against": "stranger"})


def test_charts_are_drawn_once_for_the_same_methods_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later pages take their specifications from the cache, without Altair; other methods or limits get charts of their own."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path))
    limits = {"accuracy_tolerance": 0.02, "set_size_tolerance": 0.1, "coverage_tolerance": 0.01, "alpha": 0.1}
    first = kept_charts(["wanda"], limits)
    assert set(first) == {name for panel in panels_of(True) for name in panel.charts} == set(CHARTS)
    assert first == json.loads(json.dumps({name: draw(["wanda"], limits) for name, draw in CHARTS.items()}))
    assert kept_charts(["gptq", "wanda"], limits) != first != kept_charts(["wanda"], limits | {"alpha": 0.2})
    assert len(list((tmp_path / "charts").iterdir())) == 3
    monkeypatch.setattr("analyzer.report.charts.kept._drawn", None)
    assert kept_charts(["wanda"], limits) == first


def test_the_charts_scripts_are_bundled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process finds the bundle in the cache; a damaged one is made anew, and without a cache the page has it all the same."""
    made = []
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: made.append(1) or "let a = '</script><!--';\r\n")
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path))
    script = vega_bundle.__wrapped__()
    assert "</script" not in script and "<!--" not in script
    assert vega_bundle.__wrapped__() == script and len(made) == 1
    (cached,) = (tmp_path / "scripts").iterdir()
    cached.write_bytes(cached.read_bytes().replace(b"let", b"led"))
    assert vega_bundle.__wrapped__() == script and len(made) == 2
    cached.write_bytes(b"\xff\xfe")
    assert vega_bundle.__wrapped__() == script and len(made) == 3
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "file"))
    assert vega_bundle.__wrapped__() == script and len(made) == 4
