"""The run folder has one manifest (run.json) and stages that are skipped when done; one process writes at a time.

run.json holds the configuration, the class names in order, versions, machine and, per stage, the hash of what went in,
the sha256 of each file that came out, time, peak memory and facts. Times and memory are nowhere else, so that two runs
of one configuration have the same bytes in every other file. An output `metadata.jsonl` stands for the images it lists
with their hashes.
"""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddoq.machine.environment import environment
from ddoq.storage.files import RunError as RunError, clean, inside, is_temporary, sha256_file, write_atomic
from ddoq.storage.image_folder import METADATA, read_rows
from ddoq.storage.manifest import FORMAT, LOCK, MANIFEST, Kind, image_sets, kind_of, read_manifest, sealed
from ddoq.storage.points import POINTS, Points, read_points
from ddoq.storage.values import differences, digest, plain


@dataclass
class Stage:
    """A stage at work (see `Run.stage`).

    Attributes
    ----------
    done
        Whether its files are there and whole, from the same inputs: there is nothing to do.
    outputs, info
        For the stage to set, as for `Run.record`.
    """

    done: bool
    outputs: Sequence[Path] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


class Run:
    """A run folder: `path`, and `manifest`, the content of its run.json.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Run.locked(folder, {"ipc": 10}, ["cat", "dog"]) as run:
    ...     with run.stage("greet", {"ipc": 10}) as stage:
    ...         if not stage.done:
    ...             write_atomic(folder / "hello.txt", b"hello")
    ...             stage.outputs, stage.info = [folder / "hello.txt"], {"words": 1}
    >>> Run.open(folder).info("greet")
    {'words': 1}
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run folder for reading; NoRunError if there is none, RunError if its run.json is damaged."""
        folder = Path(path).absolute()
        return cls(folder, read_manifest(folder / MANIFEST))

    @classmethod
    def new(
        cls,
        path: Path,
        config: Mapping[str, Any],
        class_names: Sequence[str],
        stages: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Run:
        """A run that nothing is written of before its first stage is recorded; `stages` are taken from another run."""
        facts = {"config": plain(config), "class_names": plain(list(class_names)), **environment()}
        return cls(path, {"format": FORMAT, **facts, "stages": dict(stages or {})})

    @classmethod
    @contextmanager
    def locked(
        cls, path: str | os.PathLike[str], config: Mapping[str, Any], class_names: Sequence[str]
    ) -> Iterator[Run]:
        """Create a run folder, or resume it, and keep other processes out until the block ends.

        Raises
        ------
        RunError
            The folder cannot be made or written, holds something else, is in use by another process, was made with
            another configuration (every difference is named), or its run.json is damaged.
        """
        folder = Path(path).absolute()
        _refuse_foreign(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"cannot make or write the run folder {folder}: {error.strerror}; choose another") from error
        try:
            _take(lock, folder)
            wanted = {"config": plain(config), "class_names": plain(list(class_names))}
            if (folder / MANIFEST).exists():
                run = cls(folder, read_manifest(folder / MANIFEST))
                _check_same(folder, run.manifest, wanted)
            else:
                _refuse_foreign(folder)
                run = cls.new(folder, **wanted)
                run._write()
            clean(folder)
            yield run
        finally:
            os.close(lock)

    @property
    def kind(self) -> Kind:
        """Whether it is a run of `ddoq.distill`, or a folder of anybody's images that `ddoq.weigh` gave weights."""
        return kind_of(self.manifest)

    @property
    def config(self) -> dict[str, Any]:
        """All that decides the result, as the manifest has it."""
        config: dict[str, Any] = self.manifest["config"]
        return config

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""
        return tuple(self.manifest["class_names"])

    def syntheses(self) -> list[str]:
        """Names of the sets of images that are made, the main one first if it is among them."""
        return image_sets(self.manifest)

    def has(self, stage: str) -> bool:
        """Whether a stage is recorded."""
        return stage in self.manifest["stages"]

    def outputs(self, stage: str) -> list[Path]:
        """The files of a recorded stage."""
        return [inside(self.path, name, self.path / MANIFEST) for name in self._stage(stage)["outputs"]]

    def points(self) -> Points:
        """The points of the stage "quantize"."""
        if not self.has("quantize"):
            self._stage("quantize")
        return read_points(self.path / POINTS)

    @contextmanager
    def stage(self, name: str, inputs: Mapping[str, Any]) -> Iterator[Stage]:
        """Work on a stage, which is recorded when the block ends, with the time that it took.

        Nothing is recorded if the stage is done already, or if an exception passes.

        Parameters
        ----------
        name
            Under which run.json has it.
        inputs
            All that decides the result.
        """
        stage = Stage(self.done(name, inputs))
        start = time.monotonic()
        yield stage
        if not stage.done:
            self.record(name, inputs, stage.outputs, seconds=time.monotonic() - start, info=stage.info)

    def done(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether a stage was recorded with these inputs and all its files are there and whole.

        False if a file is missing: the stage is then made again. RunError naming the file if one is damaged; deleting
        it is the remedy.
        """
        entry = self.manifest["stages"].get(stage)
        if entry is None or entry["inputs"] != digest(inputs):
            return False
        missing = False
        for path, reason in self._problems(stage):
            if reason == "is damaged":
                raise RunError(
                    f"{path} is damaged (its sha256 is not the recorded one): delete it and run again to remake it"
                )
            missing = True
        return not missing

    def record(
        self, stage: str, inputs: Mapping[str, Any], outputs: Sequence[Path], *, seconds: float, info: Mapping[str, Any]
    ) -> None:
        """Write a finished stage into run.json: its inputs' hash, its files' sha256, time in seconds, peak memory in
        bytes, facts.

        `outputs` are files below the run folder. Of an image folder give metadata.jsonl and README.md: the images are
        listed there.
        """
        hashes = {}
        for output in outputs:
            path = self.path / output
            hashes[path.relative_to(self.path).as_posix()] = sha256_file(path)
        here = environment()
        entry = {
            "inputs": digest(inputs),
            "outputs": hashes,
            "output": digest(hashes),
            "seconds": round(float(seconds), 3),
            # of the process so far, so a stage's own need is at most this
            "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "info": plain(info),
        }
        if any(here[key] != self.manifest[key] for key in here):
            entry.update(here)  # resumed elsewhere or after an upgrade
        self.manifest["stages"][stage] = entry
        self._write()

    def drop(self, stage: str) -> None:
        """Forget a stage whose files are no longer wanted."""
        if self.manifest["stages"].pop(stage, None) is not None:
            self._write()

    def output(self, stage: str) -> str:
        """Hash over all files of a recorded stage, for the inputs of the next."""
        return str(self._stage(stage)["output"])

    def info(self, stage: str) -> dict[str, Any]:
        """Facts that a recorded stage left."""
        facts: dict[str, Any] = self._stage(stage)["info"]
        return facts

    def verify(self, stages: Sequence[str] | None = None) -> None:
        """Check run.json and every recorded file (or those of some stages); RunError naming each missing or damaged
        one.
        """
        read_manifest(self.path / MANIFEST)
        names = self.manifest["stages"] if stages is None else stages
        problems = [f"{path} {reason}" for stage in names for path, reason in self._problems(stage)]
        if problems:
            raise RunError("; ".join(problems) + ": delete what is damaged and run ddoq distill again to remake it")

    def _stage(self, stage: str) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = self.manifest["stages"][stage]
        except KeyError:
            raise RunError(f"{self.path}: stage {stage!r} is not finished; run it again to resume") from None
        return entry

    def _problems(self, stage: str) -> Iterator[tuple[Path, str]]:
        """Missing and damaged files of a recorded stage, with the images that its metadata.jsonl lists."""
        for name, recorded in self._stage(stage)["outputs"].items():
            path = inside(self.path, name, self.path / MANIFEST)
            problem = _problem(path, recorded)
            if problem:
                yield path, problem
            elif path.name == METADATA:
                for image, row in read_rows(path):
                    if problem := _problem(image, row["sha256"]):
                        yield image, problem

    def _write(self) -> None:
        write_atomic(self.path / MANIFEST, sealed(self.manifest))


def _problem(path: Path, recorded: str) -> str | None:
    try:
        return None if sha256_file(path) == recorded else "is damaged"
    except FileNotFoundError:
        return "is missing"


def _refuse_foreign(folder: Path) -> None:
    """RunError for a file, or for a folder that holds something and is not a run."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot use {folder} as a run folder: {error.strerror}; choose another") from error
    if MANIFEST in names:
        read_manifest(folder / MANIFEST)
        return
    foreign = sorted(name for name in names if name != LOCK and not is_temporary(name))
    if foreign:
        raise RunError(
            f"{folder} is not empty and not a run folder (it holds {foreign[0]!r}): choose a new or empty folder"
        )


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        raise RunError(f"{folder} is in use by another process ({holder}): wait until it ends") from None
    except OSError as error:
        raise RunError(f"cannot lock {folder / LOCK}: {error.strerror}; choose a local folder") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _check_same(folder: Path, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [
        f"{key}: {old!r:.200} in the folder, {new!r:.200} now"
        for part in ("config", "class_names")
        for key, old, new in differences(part.removeprefix("config"), recorded[part], wanted[part])
    ]
    if changed:
        raise RunError(
            f"{folder} was made with another configuration ({'; '.join(changed)}): "
            "choose another folder, or call with the configuration of this one"
        )
