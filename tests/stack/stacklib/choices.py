"""What was chosen when the stack was made or extended: later commands start the same servers with the same settings."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Optional, Sequence

from .layout import Layout, StackError
from .metastore_versions import DEFAULT_VERSION, VERSIONS


ENGINES = ("hiveserver2", "trino")


@dataclass(frozen=True)
class Choices:
    # The main metastore's: its data is the stack's data, so it stays.
    metastore_version: str = DEFAULT_VERSION
    # Others beside it, in the order in which they were added.
    further_metastores: tuple[str, ...] = field(default=())
    # None: what the metastore does by itself.
    lock_timeout_seconds: Optional[int] = None
    # Engines that are servers, of ENGINES.
    engines: tuple[str, ...] = field(default=())

    @property
    def metastore_versions(self) -> tuple[str, ...]:
        return (self.metastore_version, *self.further_metastores)


def read(layout: Layout) -> Optional[Choices]:
    """None: this stack has not been made yet."""
    file = layout.run / "choices.json"
    if not file.exists():
        return None
    stored = json.loads(file.read_text())
    return Choices(**{**stored, **{name: tuple(stored.get(name, ())) for name in ("further_metastores", "engines")}})


def write(layout: Layout, choices: Choices) -> None:
    (layout.run / "choices.json").write_text(json.dumps(asdict(choices)))


def extended(
    made: Optional[Choices], versions: Sequence[str], lock_timeout_seconds: Optional[int], engines: Sequence[str] = ()
) -> Choices:
    """What was chosen before together with what is wanted now; nothing wanted changes nothing."""
    choices = made or Choices(metastore_version=versions[0] if versions else DEFAULT_VERSION)
    if versions and versions[0] != choices.metastore_version:
        kept = choices.metastore_version
        raise StackError(
            f"this stack's main metastore is {kept}, not {versions[0]}\n"
            f" hint: `--hms {kept} --hms {versions[0]}` starts it beside that one; else `stack down --wipe` first,"
            " or set LAKESMITH_STACK_DIR to another directory"
        )
    further = dict.fromkeys((*choices.further_metastores, *versions[1:]))
    further.pop(choices.metastore_version, None)
    if choices.metastore_version != DEFAULT_VERSION and any(VERSIONS[version].shares_main for version in further):
        raise StackError(f"a second server is of version {DEFAULT_VERSION}: the main metastore, {choices.metastore_version}, would not share with it")
    if lock_timeout_seconds is not None:
        choices = replace(choices, lock_timeout_seconds=lock_timeout_seconds)
    return replace(choices, further_metastores=tuple(further), engines=tuple(dict.fromkeys((*choices.engines, *engines))))
