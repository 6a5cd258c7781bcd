"""Tasks: which items are asked, which are shown, and what is refused."""

from pathlib import Path

import pytest
from producer_standin import URN, urn_rows, write_items

from producer.tasks import EMBEDDED
from producer.tasks.source import draw, load_task
from schemas.errors import ItemError, UsageError

pytestmark = pytest.mark.producer


@pytest.mark.parametrize("name", EMBEDDED)
def test_demonstrations_are_not_asked(name: str) -> None:
    """The five demonstrations of an embedded task are shown and not among its 2,000 items."""
    task = load_task(name)
    assert [item.id for item in task.demonstrations] == ["1", "3", "5", "7", "9"]
    assert len(task.items) == 2000
    assert not {item.id for item in task.items} & {"1", "3", "5", "7", "9"}


def test_named_tasks_are_found_below_the_data_folder(tmp_path: Path) -> None:
    """`--data` may be the folder of the files or one above it, and halusum shows item 9 only."""
    write_items(tmp_path / "deep" / "halu_summarization.json", urn_rows(12))
    task = load_task("halusum", tmp_path)
    assert [item.id for item in task.demonstrations] == ["9"]
    assert len(task.items) == 11
    assert task.revision.startswith("sha256:")


def test_cosmosqa_drops_items_with_two_none_options(tmp_path: Path) -> None:
    """Where one of the four options already is "None of the above", the item is dropped, and that is counted and noted."""
    rows = urn_rows(14)
    rows[12] = rows[12] | {"choices": URN["choices"] | {"C": "None of the above choices ."}}
    write_items(tmp_path / "cosmosqa_valid.json", rows)
    task = load_task("cosmosqa", tmp_path)
    assert "12" not in {item.id for item in task.items}
    assert len(task.items) == 8
    assert task.dropped == 1
    assert any("1 items not asked: one of their options already is" in note for note in task.notes)


def test_any_json_file_is_a_task(tmp_path: Path) -> None:
    """A file of items is asked whole, with no demonstrations, under its own name."""
    task = load_task(str(write_items(tmp_path / "mine.json", urn_rows(4))))
    assert (task.name, len(task.items), list(task.demonstrations)) == ("mine", 4, [])


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    """Draws by one seed are nested, in file order, and recorded by their limit."""
    task = load_task("urn")
    small, large = draw(task, 10, 3), draw(task, 50, 3)
    assert {item.id for item in small.items} < {item.id for item in large.items}
    assert [int(item.id) for item in large.items] == sorted(int(item.id) for item in large.items)
    assert (small.limit, draw(task, 5000, 3).limit, draw(task, 0, 3).limit) == (10, 0, 0)
    assert [i.id for i in draw(task, 10, 4).items] != [i.id for i in small.items]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nonsense", UsageError, "known: urn, facts, mmlu"),
        ("missing.json", ItemError, "cannot read items"),
        ("mmlu", UsageError, "no file for task 'mmlu'"),
    ],
)
def test_unknown_tasks_are_refused_by_name(name: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    """An unknown name lists the known ones; a missing file is named."""
    with pytest.raises(error, match=message):
        load_task(name, tmp_path)


def test_two_files_for_one_task_are_refused(tmp_path: Path) -> None:
    """Which of two files is meant is not guessed."""
    for folder in ("a", "b"):
        write_items(tmp_path / folder / "mmlu_10k.json", urn_rows(12))
    with pytest.raises(UsageError, match="several files"):
        load_task("mmlu", tmp_path)


def test_items_without_text_cannot_be_asked(tmp_path: Path) -> None:
    """An item that is only id and answer can be imported, not asked."""
    path = write_items(tmp_path / "bare.json", [{"id": 0, "answer": "A"}])
    with pytest.raises(ItemError, match="no column 'question', 'choices'"):
        load_task(str(path))


def test_missing_demonstrations_are_an_error(tmp_path: Path) -> None:
    """A published task without the items its prompts show is refused."""
    write_items(tmp_path / "mmlu_10k.json", urn_rows(4))
    with pytest.raises(ItemError, match="no item with id 5, 7, 9"):
        load_task("mmlu", tmp_path)


def test_the_published_files_load(shared_data: Path) -> None:
    """MMLU, HellaSwag and CosmosQA load from one data folder; most CosmosQA items say "None of the above" themselves."""
    assert len(load_task("mmlu", shared_data).items) == 9995
    assert len(load_task("hellaswag", shared_data).items) == 10037
    assert len(load_task("cosmosqa", shared_data).items) == 797
