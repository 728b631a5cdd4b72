"""A detector as the Hugging Face Hub knows models: `Detector.from_pretrained`, `save_pretrained`, `push_to_hub`.

    from concord_av import Detector

    detector = Detector.from_pretrained("runs/first")    # a run's folder, a saved one, or USER/NAME on the Hub
    detector.save_pretrained("detector")                 # for one's own keeping
    detector.push_to_hub("USER/NAME", private=True)      # needs a login: hf auth login

A saved detector is three files: `model.safetensors`, whose header has everything that scoring needs; `config.json`, which
repeats the most important of it for people; and the model card `README.md`. Only the first decides, and it is read by
`student.checkpoint.load_model` with all its checks: no code is run, sizes are limited, a damaged file is refused. The
folder is a --checkpoint for `student.predict`, `student.evaluate` and `student.export`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, errors, hf_hub_download
from torch import nn

from concord import files, plain_json
from concord.errors import ConcordError
from store.similarity.strangers import NAME
from student import checkpoint
from student.config import to_json
from student.header import NOT_FITTED, Header
from student.models.output import Output
from student.run import card

FORMAT = "concord-av detector"  # in config.json
CONFIG_FILE, CARD_FILE = "config.json", "README.md"
SAVED = (checkpoint.MODEL_FILE, CONFIG_FILE, CARD_FILE)
MOST_TEXT = 1 << 20  # bytes of a card or of config.json; the project's own have some thousands
CHANGED = (
    "> The weights were changed after this card was written. Its figures are of the weights before, and threshold, temperature "
    "and calibration were removed."
)


class HubError(ConcordError):
    """The Hub cannot be reached, refused, or has no such detector; or a folder for a detector holds other files."""


class Detector(nn.Module, ModelHubMixin):
    """A trained student and its header: name, sizes, threshold, temperature, and whom it may judge.

    Called as the student is (`student.models`): mouth u1 [batch, frames, 96, 96] (faces for some, see `header.picture`),
    audio i2 [batch, 640 frames], mask bool [batch, frames] give an `Output`. Whether a verdict may come of its
    logits is said by `header.grounds` and `header.strangers`; `student.predict` respects them.
    """

    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012 - it is none: `config.json` is written here

    def __init__(self, model: nn.Module, header: Header, text: str = "") -> None:
        """`text` is the model card that was with it, if any."""
        super().__init__()
        self.model, self.header, self.text = model, header, text
        self._digest = checkpoint.weights_digest(model.state_dict())
        self.eval()

    def forward(self, mouth: torch.Tensor, audio: torch.Tensor, mask: torch.Tensor) -> Output:
        found: Output = self.model(mouth, audio, mask)
        return found

    def probability(self, clip_logits: torch.Tensor) -> torch.Tensor:
        """P(fake) [batch] of clip logits, as calibrated on the validation clips of its training."""
        return torch.sigmoid((clip_logits - self.header.threshold) / self.header.temperature)

    @property
    def is_changed(self) -> bool:
        """Whether the weights are no longer those that were loaded, and that threshold and temperature belong to."""
        return checkpoint.weights_digest(self.model.state_dict()) != self._digest

    # -- loading ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]  # what the mixin would hand on to __init__ is not the caller's to give
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> Detector:
        """The detector in a folder of this machine (a run's, or one that `save_pretrained` wrote), or else the one of that
        name on the Hub, which is kept in the Hub's cache.

        Raises CheckpointError for files that are missing, foreign or damaged, HubError if the Hub does not give them.
        """
        name = os.fspath(pretrained_model_name_or_path)
        if os.path.lexists(name) or _is_path(name):
            path = Path(name)
            return cls(*checkpoint.load_model(path, device), _card(path if path.is_dir() else path.parent))
        how: dict[str, Any] = {"force_download": force_download, "token": token, "cache_dir": cache_dir}
        how |= {"local_files_only": local_files_only, "revision": revision}
        with _asking(f"{name} is not a folder here, and the Hub"):
            file = _fetched(name, checkpoint.MODEL_FILE, checkpoint.MOST_MODEL, how)
            text = ""
            with suppress(errors.EntryNotFoundError):  # a card is not needed to judge
                text = _read(_fetched(name, CARD_FILE, MOST_TEXT, how))
        return cls(*checkpoint.load_model(file, device), text)

    # -- saving -------------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, **how: Any) -> str | None:
        """Write the three files into a folder that is new, empty, or holds a detector saved before; `how` is the mixin's
        (push_to_hub, repo_id).

        Weights that were changed since they were loaded lose threshold, temperature and calibration, which were not theirs.
        Raises HubError for a folder with other files, SaveError for weights that are not finite.
        """
        _check_folder(Path(save_directory))
        url: str | None = super().save_pretrained(save_directory, **how)
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        about = self._about()
        checkpoint.save_model(save_directory, self.model, self.header.model, about)
        told = {name: about.get(name) for name in ("threshold", "temperature", "fitted_on", "window")}
        told |= {"trim": self.header.trim, "picture": self.header.picture}
        first = {"format": FORMAT, "library_name": card.LIBRARY, "model": self.header.model}
        files.write(
            save_directory / CONFIG_FILE, to_json(first | {"options": checkpoint.options_of(self.model)} | told)
        )
        files.write(save_directory / CARD_FILE, self._text().encode(errors="backslashreplace"))

    def push_to_hub(self, repo_id: str, **how: Any) -> str:
        """Save it as the model `repo_id` (USER/NAME) on the Hub, which is made if it does not exist; `how` is the mixin's
        (private, token, branch, create_pr, commit_message). Returns the URL of the commit.

        Card and header name the store's path and the options of training: read them before they become public. Raises
        HubError, and then no file was published.
        """
        with _asking(f"{repo_id} was not published: the Hub"):
            url: str = super().push_to_hub(repo_id, **how)
        return url

    def _about(self) -> dict[str, Any]:
        """The header without what `checkpoint.save_model` adds; without what belonged to other weights, too."""
        about = {name: value for name, value in self.header.told.items() if name not in ("model", "options", "format")}
        if self.is_changed:
            about |= {"threshold": 0.0, "temperature": 1.0, "fitted_on": NOT_FITTED, "calibrated_on": {}}
            about.pop(NAME, None)
        return about

    def _text(self) -> str:
        text = self.text or card.of_header(self.header)
        if not self.is_changed or CHANGED in text:
            return text
        front, end, rest = text.partition("\n---\n")
        return f"{front}{end}\n{CHANGED}\n{rest}" if end and front.startswith("---\n") else f"{CHANGED}\n\n{text}"


def _is_path(name: str) -> bool:
    """Whether a name that is not there can only have been meant as a path."""
    return not name or name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name


def _card(folder: Path) -> str:
    """The card in a saved folder or in that of a run; "" if there is none that can be read."""
    for name in (CARD_FILE, card.CARD_FILE):
        if (text := _read(folder / name)).startswith("---\n"):
            return text
    return ""


def _read(file: Path) -> str:
    try:
        return "" if file.stat().st_size > MOST_TEXT else file.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""


def _fetched(name: str, file: str, most: int, how: dict[str, Any]) -> Path:
    """A file of a model on the Hub, whose declared size is known before any of it is fetched."""
    size = hf_hub_download(name, file, dry_run=True, **how).file_size
    if size is None or size > most:
        raise HubError(f"{file} of {name} on the Hub has {size} bytes, and no detector has more than {most}")
    return Path(hf_hub_download(name, file, **how))


def _check_folder(folder: Path) -> None:
    """Raises HubError for a folder whose files would be lost or mixed with a detector's."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise HubError(f"{folder} is not a folder; give the name of one for the detector")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if name not in SAVED]
    if others or (names and not _is_saved(folder / CONFIG_FILE)):
        what = f"holds {others[0]!r}" if others else "holds files that are not a saved detector"
        raise HubError(f"{folder} {what}, and nothing there is replaced: give a new or an empty folder")


def _is_saved(config: Path) -> bool:
    try:
        told = plain_json.parse(_read(config))
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("format") == FORMAT


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Whatever goes wrong with the Hub becomes one HubError that begins with `what`."""
    try:
        yield
    except (errors.GatedRepoError, errors.DisabledRepoError) as error:
        raise HubError(f"{what} keeps it behind a gate: ask for access on its page, then hf auth login") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise HubError(f"{what} has no such model, or it is private: check the name, or hf auth login") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(f"{what} cannot be reached, nor is a copy in its cache; check the network") from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{what} has no {checkpoint.MODEL_FILE} in it: that model is none of this project's") from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"{what} wants a login: hf auth login") from error
    except errors.HFValidationError as error:
        raise HubError(f"{what} takes names like USER/NAME: {checkpoint.first(error)}") from error
    except errors.HfHubHTTPError as error:
        raise HubError(f"{what} refused: {checkpoint.first(error)}") from error
    except (errors.HTTPError, OSError) as error:
        raise HubError(f"{what} could not be asked: {checkpoint.first(error)}; check network and disk") from error
