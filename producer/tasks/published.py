"""The five tasks of the published benchmark (Ye et al. 2024, arXiv 2401.12794), from files or the Hub.

In: `--data DIR`, or nothing.  Out: the path of the task's item JSON. Options are four, then "I don't know", "None of the above".
"""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import HedgemarkError, UsageError

HUB_DATA_SET = "ErikYip/LLM-Uncertainty-Bench"
ODD = ("1", "3", "5", "7", "9")
DEPTHS = ("", "*/", "*/*/")  # a task file may lie in --data itself or up to two folders below


@dataclass(frozen=True)
class Published:
    """One published task: file names it goes by (the first one on the Hub) and the ids of its demonstrations."""

    names: tuple[str, ...]
    demonstrations: tuple[str, ...] = ODD


PUBLISHED = {
    "mmlu": Published(("mmlu_10k.json", "mmlu.json")),
    "cosmosqa": Published(("cosmosqa_10k.json", "cosmosqa_valid.json", "cosmosqa.json")),
    "hellaswag": Published(("hellaswag_10k.json", "hellaswag_val.json", "hellaswag.json")),
    "haludial": Published(("halu_dialogue.json", "haludial.json"), ("5", "7", "9")),
    "halusum": Published(("halu_summarization.json", "halusum.json"), ("9",)),
}


def find_file(task: str, data: Path | None) -> Path:
    """Return the item file of a published task: in `data` if given, else from the Hub.

    Raises UsageError where `data` has none, or several that could be meant; HedgemarkError where the Hub has no answer.
    """
    names = PUBLISHED[task].names
    if data is None:
        return _download(task, names[0])
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    found = sorted({path for depth in DEPTHS for name in names for path in data.glob(depth + name)})
    if len(found) != 1:
        problem = f"several files for task {task!r}: {', '.join(map(str, found))}" if found else f"no file for task {task!r}"
        raise UsageError(f"--data {data} has {problem}; expected exactly one of {', '.join(names)}, in it or up to two folders below")
    return found[0]


def _download(task: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(HUB_DATA_SET, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HedgemarkError(
            f"cannot get {name} of task {task!r} from the Hub data set {HUB_DATA_SET} ({type(error).__name__}); "
            "give the folder that has it as --data"
        ) from error
