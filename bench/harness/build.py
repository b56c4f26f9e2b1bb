"""Builds and installs what a run needs, once; all of it stays below the target folder."""

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .process import Failed, run

BENCH = Path(__file__).resolve().parent.parent
PROJECT = BENCH.parent
NEEDED = {"cargo": "Rust", "java": "Java 17", "mvn": "Maven", "wrk": "wrk"}
BUILD_LIMIT = 3600


@dataclass(frozen=True)
class Tools:
    service: Path
    programs: Path
    jars: Path
    express: Path | None
    fastapi: Path | None
    benthos: Path | None

    def program(self, name: str) -> Path:
        return self.programs / name


def target() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target").resolve()


def build(binary: Path | None, without: set[str]) -> Tools:
    missing = [f"{name} ({program})" for program, name in NEEDED.items() if not shutil.which(program)]
    if missing:
        raise Failed(f"not installed: {', '.join(missing)}")
    cache = target() / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    say("building the programs")
    programs = cache / "programs"
    cargo(BENCH, programs)
    if binary is None:
        say("building kafka-inlet")
        cargo(PROJECT, target())
        binary = target() / "release" / "kafka-inlet"
    if not binary.is_file():
        raise Failed(f"{binary}: no such file")
    say("fetching Apache Kafka")
    jars = once(cache / "kafka-jars", [PROJECT / "tests" / "kafka" / "pom.xml"], fetch_jars)
    return Tools(
        service=binary.resolve(),
        programs=programs / "release",
        jars=jars,
        express=None if "express" in without else express(cache),
        fastapi=None if "fastapi" in without else fastapi(cache),
        benthos=None if "benthos" in without else benthos(cache),
    )


def cargo(package: Path, folder: Path):
    manifest = package / "Cargo.toml"
    run(
        ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", folder],
        BUILD_LIMIT,
    )


def fetch_jars(folder: Path, sources: list[Path]):
    out = f"-DoutputDirectory={folder}"
    run(["mvn", "-q", "-B", "-f", sources[0], "dependency:copy-dependencies", out], BUILD_LIMIT)


def express(cache: Path) -> Path | None:
    if not (shutil.which("node") and shutil.which("npm")):
        return skipped("express", "node or npm is not installed")
    say("installing Express and KafkaJS")
    return installed("express", cache, ["package.json", "server.js"], install_express)


def install_express(folder: Path, sources: list[Path]):
    copy(folder, sources)
    run(
        ["npm", "install", "--omit=dev", "--no-audit", "--no-fund", "--no-package-lock"],
        BUILD_LIMIT,
        cwd=folder,
    )


def fastapi(cache: Path) -> Path | None:
    say("installing FastAPI and confluent-kafka")
    return installed("fastapi", cache, ["requirements.txt", "server.py"], install_fastapi)


def install_fastapi(folder: Path, sources: list[Path]):
    copy(folder, sources)
    run([sys.executable, "-m", "venv", folder / "venv"], BUILD_LIMIT)
    python = folder / "venv" / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], BUILD_LIMIT)


def benthos(cache: Path) -> Path | None:
    if not shutil.which("go"):
        return skipped("benthos", "go is not installed")
    say("building Benthos")
    return installed("benthos", cache, ["go.mod", "go.sum", "main.go", "config.yaml"], build_benthos)


def build_benthos(folder: Path, sources: list[Path]):
    copy(folder, sources)
    run(["go", "build", "-o", "benthos", "."], BUILD_LIMIT, cwd=folder)


def installed(name: str, cache: Path, files: list[str], make) -> Path | None:
    """A baseline that cannot be installed is left out, and the run goes on."""
    try:
        return once(cache / name, [BENCH / name / file for file in files], make)
    except Failed as failed:
        return skipped(name, str(failed))


def once(folder: Path, sources: list[Path], make) -> Path:
    """`folder` as `make` left it, made again when one of the sources has changed."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = folder / ".made-of"
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder, sources)
        stamp.write_text(digest)
    return folder


def copy(folder: Path, sources: list[Path]):
    for source in sources:
        shutil.copy(source, folder)


def skipped(name: str, reason: str) -> None:
    print(f"SKIPPED: {name}: {reason}", file=sys.stderr, flush=True)


def say(what: str):
    print(f"== {what}", flush=True)
